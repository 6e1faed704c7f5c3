"""lineage."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard._lineage import MAX_DEPTH
from modelyard.cli._lineage_tree import label, parse_node, tree
from modelyard.cli._output import TABLE, Format, Output, draw, show_json, show_one
from modelyard.cli._session import connect
from modelyard.cli.catalog import Reference
from modelyard.types import Dataset, LineageDirection, LineageEdge, LineageKind, LineageNode

lineage = typer.Typer(help="What was made from what.", no_args_is_help=True)

NodeName = Annotated[
    str,
    typer.Argument(
        metavar="NODE",
        help="Version reference, or KIND:NAME of something else: dataset:s3://lake/iris, run:train-7, "
        "deployment:prod.ml.iris (also by id), job:airflow://scoring.",
    ),
]
Kind = Annotated[
    LineageKind | None,
    typer.Option("--kind", case_sensitive=False, help="Kind of NODE, which then is the name alone."),
]
Depth = Annotated[int, typer.Option("--depth", min=1, max=MAX_DEPTH, help="Edges from it at most.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Edges to show at most, the nearest first.")]
DatasetVersion = Annotated[
    str, typer.Option("--version", help="Version of the data set, or run of the batch job.")
]
DatasetDigest = Annotated[str, typer.Option("--digest", help="Digest of its content.")]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="What was used: a NODE as for `show`.")]
Target = Annotated[str, typer.Argument(metavar="TARGET", help="What came of it: a NODE as for `show`.")]
Relation = Annotated[
    str, typer.Option("--relation", "-r", help="How: trained_on, tested_on, produced, scored_by …")
]
SourceVersion = Annotated[
    str, typer.Option("--source-version", help="Version of a data set, run of a batch job.")
]
SourceDigest = Annotated[str, typer.Option("--source-digest", help="Digest of a data set or batch job.")]
TargetVersion = Annotated[
    str, typer.Option("--target-version", help="Version of a data set, run of a batch job.")
]
TargetDigest = Annotated[str, typer.Option("--target-digest", help="Digest of a data set or batch job.")]


@lineage.command("show")
def show(
    node: NodeName,
    kind: Kind = None,
    direction: Annotated[
        LineageDirection,
        typer.Option(
            "--direction", case_sensitive=False, help="To what it was made from, or what came of it."
        ),
    ] = LineageDirection.BOTH,
    depth: Depth = 1,
    limit: Limit = 1_000,
    version: DatasetVersion = "",
    digest: DatasetDigest = "",
    output: Output = TABLE,
) -> None:
    """Show what something was made from, and what was made from it."""
    start = parse_node(node, kind=kind, version=version, digest=digest)
    _walk(start, direction, depth=depth, limit=limit, output=output)


@lineage.command("upstream")
def upstream(
    node: NodeName,
    kind: Kind = None,
    depth: Depth = MAX_DEPTH,
    limit: Limit = 1_000,
    version: DatasetVersion = "",
    digest: DatasetDigest = "",
    output: Output = TABLE,
) -> None:
    """Show all that something was made from."""
    start = parse_node(node, kind=kind, version=version, digest=digest)
    _walk(start, LineageDirection.UPSTREAM, depth=depth, limit=limit, output=output)


@lineage.command("downstream")
def downstream(
    node: NodeName,
    kind: Kind = None,
    depth: Depth = MAX_DEPTH,
    limit: Limit = 1_000,
    version: DatasetVersion = "",
    digest: DatasetDigest = "",
    output: Output = TABLE,
) -> None:
    """Show all that was made from something."""
    start = parse_node(node, kind=kind, version=version, digest=digest)
    _walk(start, LineageDirection.DOWNSTREAM, depth=depth, limit=limit, output=output)


@lineage.command("record")
def record(
    source: Source,
    target: Target,
    relation: Relation = "",
    source_version: SourceVersion = "",
    source_digest: SourceDigest = "",
    target_version: TargetVersion = "",
    target_digest: TargetDigest = "",
    anchor: Annotated[
        str,
        typer.Option(
            "--anchor",
            metavar="NAME",
            help="Schema or model on whose behalf, where TARGET is neither a version nor a deployment.",
        ),
    ] = "",
) -> None:
    """Record that something was made from something else."""
    edge = LineageEdge(
        source=parse_node(source, version=source_version, digest=source_digest),
        target=parse_node(target, version=target_version, digest=target_digest),
        relation=relation,
    )
    with connect() as client:
        client.lineage.record(edge, anchor=anchor)
    typer.echo(f"Recorded {_shown(edge)}.")


@lineage.command("delete")
def delete(
    source: Source,
    target: Target,
    relation: Relation = "",
    source_version: SourceVersion = "",
    source_digest: SourceDigest = "",
    target_version: TargetVersion = "",
    target_digest: TargetDigest = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an edge that was recorded by mistake."""
    edge = LineageEdge(
        source=parse_node(source, version=source_version, digest=source_digest),
        target=parse_node(target, version=target_version, digest=target_digest),
        relation=relation,
    )
    if not yes:
        typer.confirm(f"Remove {_shown(edge)}?", abort=True, err=True)
    with connect() as client:
        client.lineage.delete(edge)
    typer.echo(f"Removed {_shown(edge)}.")


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


def _walk(start: LineageNode, direction: LineageDirection, *, depth: int, limit: int, output: Format) -> None:
    with connect() as client:
        found = client.lineage.query(start, direction=direction, depth=depth, limit=limit)
    if output is Format.JSON:
        show_one(found, output)
        return
    if not found.edges:
        typer.echo("nothing is recorded", err=True)
    else:
        draw(tree(found, direction))
    if found.truncated:
        typer.echo("there is more; ask with a higher --limit or a smaller --depth", err=True)


def _shown(edge: LineageEdge) -> str:
    how = f" ({edge.relation})" if edge.relation else ""
    return f"{_plain(edge.source)} -> {_plain(edge.target)}{how}"


def _plain(node: LineageNode) -> str:
    return label(node).plain if node.name else f"deployment {node.id}"
