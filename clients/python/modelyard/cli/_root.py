"""The root command: errors as one sentence, and verbs that other packages add."""

from __future__ import annotations

import functools
from importlib import metadata
from typing import TYPE_CHECKING, Any

import typer
import typer.core

from modelyard import errors
from modelyard._examples import AnswersNeeded, ExampleNeeded
from modelyard.cli._parts import Commands

if TYPE_CHECKING:
    from collections.abc import Mapping

ENTRY_POINTS = "modelyard.commands"
SUITE_VERBS = {
    "up": "Start an installation on this machine.",
    "down": "Stop it.",
    "status": "Show what runs.",
    "demo": "Take a model through the whole product.",
}
"""Verbs of the package `modelyard_suite`, named here for installations that lack what it needs."""


class RootGroup(typer.core.TyperGroup):
    """Group of all verbs. Packages add theirs by an entry point of `modelyard.commands` that is a typer.Typer."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = Commands()  # type: ignore[assignment]  # nobody changes it

    def list_commands(self, _ctx: Any) -> list[str]:
        """The verbs of other packages, which start what ours talk to, then ours."""
        return [*sorted(set(added_commands()) - set(self.commands)), *self.commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One verb; other packages are imported only when it is not ours."""
        return super().get_command(ctx, cmd_name) or added_commands().get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb; an error becomes one sentence on stderr and exit code 1."""
        try:
            return super().invoke(ctx)
        except (errors.ModelyardError, errors.MissingExtra) as error:
            for line in explain(error):
                typer.echo(line, err=True)
            raise typer.Exit(1) from error


class AddedToGroup(typer.core.TyperGroup):
    """Group of ours to which packages add verbs by a group of the same name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Our verbs, then theirs."""
        return [*super().list_commands(ctx), *sorted(set(self._added()) - set(self.commands))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One verb; other packages are imported only when it is not ours."""
        return super().get_command(ctx, cmd_name) or self._added().get(cmd_name)

    def _added(self) -> Mapping[str, Any]:
        return getattr(added_commands().get(self.name or ""), "commands", {})


@functools.cache
def added_commands() -> Mapping[str, Any]:
    """The verbs of other packages. One that cannot be imported never breaks the rest."""
    commands: dict[str, Any] = {}
    for entry_point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            group = typer.main.get_command(entry_point.load())
        except Exception as error:  # noqa: BLE001  (whatever is wrong with it, our verbs work)
            if entry_point.name == "suite":
                commands.update(_missing(error))
            continue
        commands.update(getattr(group, "commands", None) or {group.name or entry_point.name: group})
    if not set(SUITE_VERBS) & set(commands):
        commands.update(_missing(None))
    return commands


def explain(error: errors.ModelyardError | errors.MissingExtra) -> list[str]:
    """The error as lines for people: what went wrong, each part of it, and what to do."""
    lines = [f"error: {error.needed if isinstance(error, ExampleNeeded) else error}"]
    if isinstance(error, errors.ModelyardError):
        lines += [
            f"  {v.field}: {v.description}" for v in error.violations if v.description not in str(error)
        ]
        word = "in use by" if isinstance(error, errors.ResourceInUse) else "unmet"
        lines += [f"  {word}: {condition}" for condition in error.unmet if condition not in str(error)]
        if isinstance(error, errors.InternalError):
            lines.append(
                f"  error id {error.error_id or 'unknown'}, request id {error.request_id or 'unknown'}"
            )
    hint = _hint(error)
    return [*lines, f"hint: {hint}"] if hint else lines


def _hint(error: Exception) -> str:
    if isinstance(error, errors.Unauthenticated):
        return "log in again with `modelyard login`"
    if isinstance(error, errors.ReplicaNotReady):
        return "`modelyard deployments show NAME` says what is being waited for"
    if isinstance(error, errors.DeploymentFailed):
        return f"see `modelyard deployments show {error.name}`; another update, or `rollback` to earlier settings, leads out"
    if type(error) is errors.Unavailable and not error.reason:
        return "is it running there? See `modelyard context show` and `modelyard status`"
    if isinstance(error, AnswersNeeded):
        return "give rows and what the model answers to them, JSON or CSV: --example rows.csv --answers answers.json"
    if isinstance(error, ExampleNeeded):
        return "give some in a file, JSON or CSV: --example rows.csv"
    if isinstance(error, errors.PermissionDenied) and error.privilege:
        return f"ask an owner: modelyard grants create YOUR_NAME {error.privilege} {_grantee(error)}".rstrip()
    if isinstance(error, errors.ResourceInUse):
        return "--force deletes what belongs to it too; a deployment has to go first in any case"
    if isinstance(error, errors.PolicyUnmet):
        return "see `modelyard policies explain VERSION`, with `--alias` for an alias"
    return ""


def _grantee(error: errors.PermissionDenied) -> str:
    """The resource as `grants create` takes it; what concerns a version is granted on its model."""
    name = error.name.split("/")[0].split("@")[0]
    if name.count(".") != 2:
        return name
    return f"{name} --type {'deployment' if error.resource_type.lower() == 'deployment' else 'model'}"


def _missing(cause: Exception | None) -> dict[str, Any]:
    """Stand-ins that say what to install."""
    placeholder = typer.Typer()
    for verb, text in SUITE_VERBS.items():
        placeholder.command(verb, help=f"{text} Needs modelyard[suite].", context_settings=_ANY)(
            _refuse(verb, cause)
        )
    return dict(typer.main.get_command(placeholder).commands)  # type: ignore[attr-defined]


_ANY = {"ignore_unknown_options": True, "allow_extra_args": True}


def _refuse(verb: str, cause: Exception | None) -> Any:
    def refuse() -> None:
        missing = f" ({cause})" if cause else ""
        message = f"`modelyard {verb}` is not installed{missing}: pip install 'modelyard[suite]'"
        raise errors.ConfigurationError(message)

    return refuse
