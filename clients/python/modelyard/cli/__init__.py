"""The command line: `modelyard …`, one module for each noun."""

from __future__ import annotations

from typing import Annotated

import typer

from modelyard._channel import version
from modelyard.cli import (
    access,
    approvals,
    artifacts,
    audit,
    cache,
    cards,
    catalog,
    contexts,
    deployments,
    events,
    identities,
    inspections,
    labels,
    limits,
    lineage,
    metadata,
    observing,
    predict,
    sharing,
    storage,
    top,
    trust,
    versions,
    webhooks,
)
from modelyard.cli._root import RootGroup
from modelyard.cli._session import select_context

app = typer.Typer(
    name="modelyard",
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(version())
        raise typer.Exit


@app.callback()
def root(
    context: Annotated[
        str,
        typer.Option(
            "--context", envvar="MODELYARD_CONTEXT", help="Saved context to use instead of the current one."
        ),
    ] = "",
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and end.")
    ] = False,
) -> None:
    """Catalog, artifact store, governance and serving of models.

    Start an installation on this machine with `modelyard up`, or connect to one with `modelyard login`. Every list and
    show verb takes `--output json`. Exit codes: 0 done, 1 refused or failed, 2 wrong use.
    """
    del show_version
    select_context(context)


for module in (contexts, predict, top, limits):
    module.add_to(app)
app.add_typer(catalog.catalogs, name="catalogs")
app.add_typer(catalog.schemas, name="schemas")
app.add_typer(catalog.models, name="models")
app.add_typer(versions.versions, name="versions")
app.add_typer(labels.aliases, name="aliases")
app.add_typer(labels.tags, name="tags")
app.add_typer(labels.metrics, name="metrics")
app.add_typer(metadata.metadata, name="metadata")
app.add_typer(lineage.lineage, name="lineage")
app.add_typer(artifacts.artifacts, name="artifacts")
app.add_typer(trust.trust, name="trust")
app.add_typer(cache.cache, name="cache")
app.add_typer(deployments.deployments, name="deployments")
app.add_typer(access.principals, name="principals")
app.add_typer(identities.groups, name="groups")
app.add_typer(identities.issuers, name="issuers")
app.add_typer(access.tokens, name="tokens")
app.add_typer(access.grants, name="grants")
app.add_typer(approvals.approvals, name="approvals")
app.add_typer(approvals.policies, name="policies")
app.add_typer(audit.audit, name="audit")
app.add_typer(cards.cards, name="cards")
app.add_typer(webhooks.webhooks, name="webhooks")
app.add_typer(sharing.shares, name="shares")
app.add_typer(sharing.bundles, name="bundles")
app.add_typer(events.events, name="events")
identities.add_to(access.tokens)
app.command("grant", help="Same as `grants create`.")(access.create_grant)
app.command("revoke", help="Same as `grants delete`.")(access.delete_grant)
artifacts.add_to(app)
storage.add_to(artifacts.artifacts)
trust.add_to(artifacts.artifacts)
inspections.add_to(artifacts.artifacts)
observing.add_to(deployments.deployments)


def main() -> None:
    """Entry point of the `modelyard` script."""
    app()
