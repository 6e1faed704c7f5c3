"""The list of a model's artifacts, with filter and order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from modelyard_artifact.fields import ARTIFACTS
from modelyard_artifact.models import Artifact
from modelyard_artifact.tables import artifact_models, artifacts, inspections
from modelyard_kit.filters import read_listing

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from modelyard_artifact.lookup import Catalog
    from modelyard_kit.db import Database


@dataclass(frozen=True, slots=True)
class ListArtifacts:
    """A page of the artifacts of a model."""

    model: str
    page_size: int
    page_token: str
    filter: str
    order_by: str


class Listings:
    """The use case of listing artifacts."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database = database
        self._catalog = catalog

    async def page(self, command: ListArtifacts) -> tuple[list[Artifact], str]:
        """Returns a page and the token of the next one.

        Raises:
            NotFound: no such model.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
            PeerUnavailable: the catalog does not answer.
        """
        model = await self._catalog.model(command.model)
        listing = read_listing(
            command.filter, command.order_by, command.page_token, ARTIFACTS, scope=model.id
        )
        query = (
            select(artifacts.c.digest, artifacts.c.file_count, artifacts.c.size, artifacts.c.create_time)
            .join(artifact_models, artifact_models.c.digest == artifacts.c.digest)
            .outerjoin(inspections, inspections.c.digest == artifacts.c.digest)
            .where(artifact_models.c.model_id == model.id)
        )

        async def work(connection: AsyncConnection) -> tuple[list[Artifact], str]:
            found = (await connection.execute(listing.apply(query, command.page_size))).mappings().all()
            rows, token = listing.page(found, command.page_size)
            return [
                Artifact(row["digest"], row["file_count"], row["size"], row["create_time"]) for row in rows
            ], token

        return await self._database.read(work)
