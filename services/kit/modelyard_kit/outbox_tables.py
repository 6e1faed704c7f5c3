"""The tables of the outbox, and what migrations do with them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB


def outbox_table(metadata: MetaData, *, sequenced: bool = False) -> Table:
    """Define the outbox in a service's metadata; with `sequenced` as it is after `add_sequence`."""
    table = Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("id", Text, nullable=False, unique=True),
        Column("type", Text, nullable=False),
        Column("resource_type", Text, nullable=False),
        Column("resource_id", Text, nullable=False),
        Column("resource_name", Text, nullable=False),
        Column("owner_id", Text, nullable=False),
        Column("actor_id", Text, nullable=False),
        Column("actor_name", Text, nullable=False),
        Column("actor_kind", Text, nullable=False),
        Column("request_id", Text, nullable=False),
        Column("time", DateTime(timezone=True), nullable=False),
        Column("data", JSONB, nullable=False),
        Column("deliver_time", DateTime(timezone=True)),
        Index("outbox_undelivered", "position", postgresql_where=text("deliver_time IS NULL")),
    )
    if sequenced:
        for part in _sequence_columns():
            table.append_column(part)
        table.append_constraint(UniqueConstraint("sequence", name="outbox_sequence_key"))
        Index("outbox_unsequenced", table.c.position, postgresql_where=text("sequence IS NULL"))
        Table("outbox_head", metadata, *_head_parts(), _feed_id())
    return table


def _sequence_columns() -> list[Column[Any]]:
    return [
        Column("sequence", BigInteger),
        # Ids of what the event is about and of its containers, innermost first; see `append`.
        Column("scope", ARRAY(Uuid(as_uuid=False))),
    ]


def _head_parts() -> list[Any]:
    return [
        Column("single", Boolean, primary_key=True, server_default=text("true")),
        # Last number given, and last one removed. Kept apart from the rows, so that both outlive these.
        Column("sequence", BigInteger, nullable=False, server_default=text("0")),
        Column("pruned", BigInteger, nullable=False, server_default=text("0")),
        CheckConstraint("single", name="outbox_head_single"),
    ]


def _feed_id() -> Column[Any]:
    # Made once, by the database itself, so that the numbers of another one can be told apart.
    return Column("feed_id", Uuid(as_uuid=False), nullable=False, server_default=text("gen_random_uuid()"))


OUTBOX = outbox_table(MetaData())
SEQUENCED = outbox_table(MetaData(), sequenced=True)
HEAD = SEQUENCED.metadata.tables["outbox_head"]


def create(operations: Any) -> None:
    """Create the outbox in a service's first migration; `operations` is `alembic.op`."""
    OUTBOX.create(operations.get_bind())


def add_sequence(operations: Any) -> None:
    """Make an outbox one that watchers can read, in a later migration; `operations` is `alembic.op`."""
    for column in _sequence_columns():
        operations.add_column("outbox", column)
    operations.create_unique_constraint("outbox_sequence_key", "outbox", ["sequence"])
    operations.create_index(
        "outbox_unsequenced", "outbox", ["position"], postgresql_where=text("sequence IS NULL")
    )
    operations.create_table("outbox_head", *_head_parts())
    operations.execute("INSERT INTO outbox_head DEFAULT VALUES")


def add_feed_id(operations: Any) -> None:
    """Give a sequenced outbox an id of its own, in a later migration; `operations` is `alembic.op`."""
    operations.add_column("outbox_head", _feed_id())
