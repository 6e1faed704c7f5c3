"""The lineage graph as a tree for people, and nodes as they type them."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import typer
from rich.text import Text
from rich.tree import Tree

from modelyard.types import Lineage, LineageDirection, LineageEdge, LineageKind, LineageNode

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADINGS = {LineageDirection.UPSTREAM: "made from", LineageDirection.DOWNSTREAM: "went into"}
_KINDS = {
    "dataset": LineageKind.DATASET,
    "run": LineageKind.RUN,
    "version": LineageKind.MODEL_VERSION,
    "deployment": LineageKind.DEPLOYMENT,
    "job": LineageKind.BATCH_JOB,
}
_VERSIONED = (LineageKind.DATASET, LineageKind.BATCH_JOB)


def parse_node(
    text: str, *, kind: LineageKind | None = None, version: str = "", digest: str = ""
) -> LineageNode:
    """The node in `KIND:NAME`, or in a plain name of a kind that was said otherwise; by default a version reference.

    Raises:
        BadParameter: a version or digest was given for something that has none.
    """
    name = text
    if kind is None:
        prefix, colon, rest = text.partition(":")
        known = bool(colon) and prefix in _KINDS
        kind, name = (_KINDS[prefix], rest) if known else (LineageKind.MODEL_VERSION, text)
    if (version or digest) and kind not in _VERSIONED:
        raise typer.BadParameter(f"{text!r} has no version or digest: only data sets and batch jobs do")
    if kind is LineageKind.DEPLOYMENT and _is_id(name):
        return LineageNode.deployment(id=name)
    return LineageNode(kind=kind, name=name, version=version, digest=digest)


def tree(found: Lineage, direction: LineageDirection) -> Tree:
    """What was found, from where it was looked for, each thing followed once."""
    root = Tree(label(found.node))
    for way, heading in _HEADINGS.items():
        if direction not in {way, LineageDirection.BOTH}:
            continue
        branch = Tree(Text(heading, style="bold"))
        upstream = way is LineageDirection.UPSTREAM
        _grow(branch, found.node, found.edges, upstream=upstream, shown={found.node.id})
        if branch.children:
            root.add(branch)
    return root


def label(node: LineageNode) -> Text:
    """A node on one line."""
    kind = str(node.kind or "UNKNOWN").lower().replace("_", " ")
    text = Text(f"{kind} ", style="dim").append(node.name or "(you may not see it)", style="not dim")
    known = [node.version, node.digest if node.kind in _VERSIONED else ""]
    text.append("".join(f" {value}" for value in known if value), style="not dim")
    return text.append(f"  (deleted {node.delete_time:%Y-%m-%d})" if node.delete_time else "", style="dim")


def _grow(
    branch: Tree, start: LineageNode, edges: Sequence[LineageEdge], *, upstream: bool, shown: set[str]
) -> None:
    """Add what is one edge away, then what is behind it."""
    for edge in edges:
        here, there = (edge.target, edge.source) if upstream else (edge.source, edge.target)
        if here.id != start.id:
            continue
        text = label(there).append(f"  {edge.relation}" if edge.relation else "", style="dim")
        if there.id in shown:
            branch.add(text.append("  (see above)", style="dim"))
            continue
        shown.add(there.id)
        _grow(branch.add(text), there, edges, upstream=upstream, shown=shown)


def _is_id(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
