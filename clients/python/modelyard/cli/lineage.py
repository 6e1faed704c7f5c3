"""lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from modelyard.cli._output import TABLE, Format, Output, show_json, show_one, show_tree
from modelyard.cli._session import connect
from modelyard.cli.catalog import Reference
from modelyard.types import Dataset, Lineage, LineageDirection, LineageEdge, LineageKind, LineageNode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.client import Client

lineage = typer.Typer(help="What was made from what.", no_args_is_help=True)

DatasetVersion = Annotated[str, typer.Option("--version", help="Version of the data set.")]
DatasetDigest = Annotated[str, typer.Option("--digest", help="Digest of its content.")]

_HEADINGS = {LineageDirection.UPSTREAM: "made from", LineageDirection.DOWNSTREAM: "went into"}


@lineage.command("show")
def show(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Version reference, or with --kind the name of something else."),
    ],
    kind: Annotated[
        LineageKind, typer.Option("--kind", case_sensitive=False, help="Kind of thing.")
    ] = LineageKind.MODEL_VERSION,
    direction: Annotated[
        LineageDirection,
        typer.Option(
            "--direction", case_sensitive=False, help="To what it was made from, or what came of it."
        ),
    ] = LineageDirection.BOTH,
    depth: Annotated[int, typer.Option("--depth", min=1, max=20, help="Edges from it at most.")] = 1,
    version: DatasetVersion = "",
    digest: DatasetDigest = "",
    output: Output = TABLE,
) -> None:
    """Show what something was made from, and what was made from it."""
    node = LineageNode(kind=kind, name=name, version=version, digest=digest)
    with connect() as client:
        found = client.lineage.query(node, direction=direction, depth=depth)
        if output is Format.JSON:
            show_one(found, output)
            return
        node = _resolved(client, node)
    if not found.edges:
        typer.echo("nothing is recorded", err=True)
    else:
        show_tree(_tree(node, found, direction))
    if found.truncated:
        typer.echo("there is more than can be sent at once; ask with a smaller --depth", err=True)


@lineage.command("log-input")
def log_input(
    reference: Reference,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Name or address: s3://lake/iris.")],
    version: DatasetVersion = "",
    digest: DatasetDigest = "",
    role: Annotated[
        str, typer.Option("--role", help="What it was for: training, validation, test.")
    ] = "training",
    output: Output = TABLE,
) -> None:
    """Record that a version was made from a data set."""
    with connect() as client:
        client.log_input(reference, Dataset(dataset, version, digest, role))
    if output is Format.JSON:
        show_json({"version": reference, "dataset": dataset})
    else:
        typer.echo(f"Recorded {dataset} for {reference}.")


def _resolved(client: Client, node: LineageNode) -> LineageNode:
    """The node as the edges name it: an alias is no name of a version."""
    if node.kind is not LineageKind.MODEL_VERSION:
        return node
    version = client.versions.get(node.name)
    return LineageNode(kind=node.kind, id=version.id, name=version.name)


def _tree(start: LineageNode, found: Lineage, direction: LineageDirection) -> Tree:
    tree = Tree(_label(start))
    for way, heading in _HEADINGS.items():
        if direction not in {way, LineageDirection.BOTH}:
            continue
        branch = Tree(Text(heading, style="bold"))
        upstream = way is LineageDirection.UPSTREAM
        _grow(branch, [start], found.edges, upstream=upstream, shown=set())
        if branch.children:
            tree.add(branch)
    return tree


def _grow(
    branch: Tree,
    nodes: Sequence[LineageNode],
    edges: Sequence[LineageEdge],
    *,
    upstream: bool,
    shown: set[tuple[str, ...]],
) -> None:
    """Add what is one edge away, then what is behind it; each thing is followed once."""
    for edge in edges:
        here, there = (edge.target, edge.source) if upstream else (edge.source, edge.target)
        if not any(_same(node, here) for node in nodes):
            continue
        label = _label(there).append(f"  {edge.relation}" if edge.relation else "", style="dim")
        if _key(there) in shown:
            branch.add(label.append("  (see above)", style="dim"))
            continue
        shown.add(_key(there))
        _grow(branch.add(label), [there], edges, upstream=upstream, shown=shown)


def _same(wanted: LineageNode, node: LineageNode) -> bool:
    """Whether a node of an edge is the one meant: by id, else by all that a node of its kind is known by."""
    if wanted.id and node.id:
        return wanted.id == node.id
    known = ("kind", "name", "version", "digest") if node.kind is LineageKind.DATASET else ("kind", "name")
    return all(getattr(wanted, field) == getattr(node, field) for field in known)


def _key(node: LineageNode) -> tuple[str, ...]:
    return (str(node.kind), node.id or node.name, node.version, node.digest)


def _label(node: LineageNode) -> Text:
    kind = str(node.kind or "UNKNOWN").lower().replace("_", " ")
    text = Text(f"{kind} ", style="dim").append(node.name or "(you may not see it)", style="not dim")
    known = [node.version, node.digest if node.kind is LineageKind.DATASET else ""]
    return text.append("".join(f" {value}" for value in known if value), style="not dim")
