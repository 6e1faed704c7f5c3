"""Which verbs and nouns there are, and which module each is in: only the module of the one that is used is imported."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer


@dataclass(frozen=True)
class Part:
    """A verb, which is a function, or a noun, which is a `typer.Typer` with verbs.

    Args:
        module: module of this package.
        name: its name there; empty if it is that on the command line.
        also: modules whose `add_to` gives the noun further verbs.
        help: instead of its own.
    """

    module: str
    name: str = ""
    also: tuple[str, ...] = ()
    help: str | None = None


PARTS: Mapping[str, Part] = {
    "login": Part("contexts"),
    "logout": Part("contexts"),
    "whoami": Part("contexts"),
    "token": Part("contexts"),
    "predict": Part("predict"),
    "top": Part("top"),
    "limits": Part("limits"),
    "grant": Part("access", "create_grant", help="Same as `grants create`."),
    "revoke": Part("access", "delete_grant", help="Same as `grants delete`."),
    "log": Part("artifacts"),
    "context": Part("contexts"),
    "catalogs": Part("catalog"),
    "schemas": Part("catalog"),
    "models": Part("catalog"),
    "versions": Part("versions"),
    "aliases": Part("labels"),
    "tags": Part("labels"),
    "metrics": Part("labels"),
    "metadata": Part("metadata"),
    "lineage": Part("lineage"),
    "artifacts": Part("artifacts", also=("storage", "trust", "inspections")),
    "trust": Part("trust"),
    "cache": Part("cache"),
    "deployments": Part(
        "deployments",
        also=(
            "observing",
            "statistics",
        ),
    ),
    "principals": Part("access"),
    "groups": Part("identities"),
    "issuers": Part("identities"),
    "tokens": Part("access", also=("identities",)),
    "grants": Part("access"),
    "approvals": Part("approvals"),
    "policies": Part("approvals"),
    "audit": Part("audit"),
    "cards": Part("cards"),
    "webhooks": Part("webhooks"),
    "shares": Part("sharing"),
    "bundles": Part("sharing"),
    "events": Part("events"),
}
"""In the order of `modelyard --help`."""


class Commands(Mapping[str, Any]):
    """The commands of `PARTS`; each is made when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        return _made(name)

    def __iter__(self) -> Iterator[str]:
        return iter(PARTS)

    def __len__(self) -> int:
        return len(PARTS)


@functools.cache
def _made(name: str) -> Any:
    part = PARTS[name]
    found: Any = getattr(_module(part.module), part.name or name)
    parent = typer.Typer()
    if isinstance(found, typer.Typer):
        for module in part.also:
            _module(module).add_to(found)
        parent.add_typer(found, name=name)
    else:
        parent.command(name, help=part.help)(found)
    return typer.main.get_group(parent).commands[name]


def _module(name: str) -> Any:
    return importlib.import_module(f"modelyard.cli.{name}")
