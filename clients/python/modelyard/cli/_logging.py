"""How what replicas write down about predictions is written on the command line: `access predict=5 payload`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from modelyard.types import LoggingPolicy

_WHOLE = 100

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
    if text is None:
        return None
    policy = LoggingPolicy()
    for word in text.split():
        name, _, value = word.partition("=")
        if word == "access":
            policy = replace(policy, access_log=True)
        elif word == "payload":
            policy = replace(policy, include_payload=True)
        elif word in ("otlp", "parquet"):
            policy = replace(policy, **{word: True})
        elif name == "predict" and value.isdecimal() and int(value) <= _WHOLE:
            policy = replace(policy, predict_log_percent=int(value))
        else:
            raise typer.BadParameter(
                f"{word!r} is none of access, predict=PERCENT (0 to 100), payload, otlp, parquet"
            )
    return policy
