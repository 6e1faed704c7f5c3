"""What is raised where a model alone does not tell its inputs and outputs."""

from __future__ import annotations

from modelyard.errors import InvalidArgument


class ExampleNeeded(InvalidArgument):
    """Inputs and outputs of a model cannot be told without rows; `needed` says so without the way to give them, which Python's is not for all."""

    def __init__(self, needed: str, way: str) -> None:
        super().__init__(f"{needed}: {way}")
        self.needed = needed


class AnswersNeeded(ExampleNeeded):
    """As it, of models that are not run where they are logged: what comes out for the rows has to be given too."""
