"""Fault tests break what they run on, so each module has a suite of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.framework.stack import Processes


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Everything that `modelyard up` starts."""
    with Processes.start() as stack:
        yield stack
