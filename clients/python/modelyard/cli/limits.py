"""limits."""

from __future__ import annotations

from modelyard.cli._output import TABLE, Output, show_rows
from modelyard.cli._session import connect


def limits(output: Output = TABLE) -> None:
    """Show every published limit."""
    with connect() as client:
        show_rows(client.limits(), ("name", "maximum", "unit", "description"), output, empty="no limits")
