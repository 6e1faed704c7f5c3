"""How what replicas write down about predictions is written on the command line: `access predict=5 payload`."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard.cli._settings import Setting, parse_settings, percent, word
from modelyard.types import LoggingPolicy

_SETTINGS = {
    "access": word("access_log"),
    "predict": Setting("predict_log_percent", percent, "PERCENT (0 to 100)"),
    "payload": word("include_payload"),
    "otlp": word("otlp"),
    "parquet": word("parquet"),
}

Logging = Annotated[
    str | None,
    typer.Option(
        "--logging",
        metavar="WHAT",
        help="What replicas write down about predictions: 'access' for a line each, 'predict=PERCENT' for the tensors of a share,"
        " with 'payload' their values too; 'otlp' and 'parquet' to send it to the collector, or into Parquet files. '' for nothing.",
    ),
]


def parse_logging(text: str | None) -> LoggingPolicy | None:
    """Return the policy that a text says; None if nothing is said.

    Raises:
        typer.BadParameter: it is none; the message says what is wrong.
    """
    return None if text is None else LoggingPolicy(**parse_settings(text.split(), _SETTINGS))
