"""The change feed on a real database: nothing skipped, in order, permitted, and the same over restarts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import CatalogServiceStub
from modelyard_catalog import feed as feed_module
from modelyard_catalog.access import Resolvers
from modelyard_catalog.app import FULL_NAME, CatalogSettings, build
from modelyard_catalog.commands import AliasChange, SetTags, Watch
from modelyard_catalog.feed import Feed, FeedOptions, Step
from modelyard_catalog.models import Catalog, Path, Schema
from modelyard_kit import interceptors, outbox
from modelyard_kit.access import SYSTEM_ID, Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.auth import Call, Principal, TokenVerifier
from modelyard_kit.chassis import Chassis
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import InvalidField, NotFound, PermissionDenied, PermissionsStale, TooManyWatches
from modelyard_kit.grants import Grants
from modelyard_kit.ids import new_id
from modelyard_kit.interceptors import CallChain
from modelyard_kit.limits import LIMITS, Limit
from modelyard_kit.outbox import Event, Sequencer
from modelyard_kit.peers import Peers
from tests.conformance.catalog_plans import explained, recorded, scanned
from tests.conformance.catalog_stack import ADA, BOB, IRIS, CatalogStack
from tests.framework.postgres import transaction

ROOT = Call(Principal("0198c0de-0000-7000-8000-00000000aaaa", "root", "user"), "request-of-root")
FEED = "0198c0de-0000-7000-8000-0000000feed0"
FAST = FeedOptions(heartbeat=0.05, longest=30.0)


@pytest.fixture
async def stack(fresh_database: Callable[[str], str]) -> AsyncIterator[CatalogStack]:
    stack = CatalogStack(fresh_database("modelyard_catalog"))

    async def known_id(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE outbox_head SET feed_id = :id"), {"id": FEED})

    await stack.db.in_tx(known_id)
    yield stack
    await stack.close()


@pytest.fixture
async def grants() -> Grants:
    grants = Grants()
    root = ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)
    grants.replace(ROOT.principal.id, "root", [root])
    await grants.mark_fresh(1)
    return grants


@pytest.fixture
async def feed(stack: CatalogStack, grants: Grants) -> AsyncIterator[Feed]:
    feed = stack.feed(grants, FAST)
    async with running(feed):
        yield feed


@contextlib.asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[Feed]:
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def wanted(
    position: int | None = None,
    *,
    types: tuple[str, ...] = (),
    prefixes: tuple[str, ...] = (),
    resource: Path = (),
    from_beginning: bool = False,
    feed_id: str = FEED,
) -> Watch:
    return Watch(
        position=position,
        feed_id=feed_id,
        from_beginning=from_beginning,
        types=types,
        prefixes=prefixes,
        resource=resource,
    )


BEGINNING = wanted(from_beginning=True)


async def collect(feed: Feed, watch: Watch, until: Callable[[list[Event]], bool], *, by: Call = ROOT) -> Any:
    """Return events and last position of a watch, once `until` is true of the events."""
    seen: list[Event] = []
    stream = feed.watch(by, watch)
    async with asyncio.timeout(60), contextlib.aclosing(cast("Any", stream)):
        async for step in stream:
            seen += step.events
            if until(seen):
                return seen, step.position
    raise AssertionError(f"the watch ended after {[event.type for event in seen]}")


async def kept(feed: Feed, watch: Watch = BEGINNING, *, by: Call = ROOT) -> list[str]:
    """Types and resources of everything that a watch shows up to now."""
    last = await feed.advance()
    stream = feed.watch(by, watch)
    shown: list[str] = []
    async with asyncio.timeout(60), contextlib.aclosing(cast("Any", stream)):
        async for step in stream:
            shown += [f"{event.type} {event.resource.name}" for event in step.events]
            if step.position >= last:
                break
    return shown


def tag(number: int, path: Path = IRIS) -> SetTags:
    return SetTags(path, {"number": str(number)}, ())


# The straight path.


async def test_a_watch_begins_now_or_at_the_beginning(stack: CatalogStack, feed: Feed) -> None:
    await stack.create_model(*IRIS)
    assert await kept(feed) == [
        "catalog.catalog.created prod",
        "catalog.schema.created prod.ml",
        "catalog.model.created prod.ml.iris",
    ]
    stream = feed.watch(ROOT, wanted())
    first = await anext(stream)
    assert (first.events, first.position) == ((), 3)
    await stack.create_version()
    async with asyncio.timeout(60):
        step = first
        while not step.events:
            step = await anext(stream)
    assert [event.type for event in step.events] == ["catalog.model_version.created"]
    assert step.events[0].actor.name == "ada"
    await cast("Any", stream).aclose()


async def test_a_notification_wakes_a_watch(
    stack: CatalogStack, grants: Grants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "POLL_SECONDS", 600.0)  # so that only NOTIFY can be what woke it
    async with running(stack.feed(grants, FeedOptions(heartbeat=600.0))) as feed:
        stream = feed.watch(ROOT, wanted())
        await anext(stream)
        arrived = asyncio.create_task(anext(stream))
        async with asyncio.timeout(60):
            # The listener may still be connecting: every change notifies again.
            for number in range(10_000):
                await stack.create(Catalog, f"c{number}")
                await asyncio.sleep(0.05)
                if arrived.done():
                    break
        assert arrived.result().events[0].type == "catalog.catalog.created"
        await cast("Any", stream).aclose()


async def test_silence_is_broken_by_heartbeats_and_a_watch_ends_in_time(
    stack: CatalogStack, grants: Grants
) -> None:
    feed = stack.feed(grants, FeedOptions(heartbeat=0.01, longest=0.2))
    steps = [step async for step in feed.watch(ROOT, wanted())]
    assert len(steps) > 1
    assert set(steps) == {Step((), 0, FEED)}


@pytest.mark.parametrize(
    ("watch", "names"),
    [
        (wanted(types=("catalog.alias.moved",)), ["prod.ml.iris"]),
        (wanted(prefixes=("catalog.model.",)), ["prod.ml.iris", "prod.ml.wine", "prod.old.rose"]),
        (
            wanted(types=("catalog.alias.moved",), prefixes=("catalog.catalog.",)),
            ["prod", "prod.ml.iris"],
        ),
        (wanted(types=("catalog.alias",)), []),
        (wanted(resource=("prod", "ml", "wine")), ["prod.ml.wine"]),
        (
            wanted(resource=("prod", "ml")),
            ["prod.ml", "prod.ml.iris", "prod.ml.wine", "prod.ml.iris/1", "prod.ml.iris"],
        ),
        (wanted(resource=("prod", "old"), prefixes=("catalog.model.",)), ["prod.old.rose"]),
    ],
)
async def test_filters(stack: CatalogStack, feed: Feed, watch: Watch, names: list[str]) -> None:
    await stack.create_model(*IRIS)
    await stack.create_model("prod", "ml", "wine")
    await stack.create_model("prod", "old", "rose")
    await stack.create_version()
    await stack.set_aliases(AliasChange("champion", 1))
    from_beginning = wanted(
        types=watch.types, prefixes=watch.prefixes, resource=watch.resource, from_beginning=True
    )
    assert [line.split()[1] for line in await kept(feed, from_beginning)] == names


async def test_bounds_of_rows_bytes_and_windows_lose_nothing(
    stack: CatalogStack, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "WINDOW", 7)
    monkeypatch.setattr(feed_module, "ROWS", 3)
    await stack.create_model(*IRIS)
    for number in range(20):
        await stack.namespaces.set_tags(ADA, tag(number))
    everything = await kept(feed)
    assert len(everything) == 23
    monkeypatch.setattr(feed_module, "BYTES", 1)
    assert await kept(feed) == everything
    aliases = wanted(prefixes=("catalog.schema.",), from_beginning=True)
    assert await kept(feed, aliases) == ["catalog.schema.created prod.ml"]


# Order and completeness.


async def test_a_transaction_that_commits_late_is_not_skipped(stack: CatalogStack, feed: Feed) -> None:
    """It has a lower position than what was read before: by position it would be lost."""
    await stack.create_model(*IRIS)
    late = Event("test.late", Link(ResourceType.CATALOG, new_id(), "late"), ADA.principal, "r")
    async with transaction(stack.db.engine) as (connection, open_):
        await outbox.append(connection, late)
        await stack.create(Catalog, "early")
        seen, position = await collect(feed, BEGINNING, lambda events: len(events) == 4)
        assert seen[-1].resource.name == "early"
        await open_.commit()
    seen, _ = await collect(feed, wanted(position), bool)
    assert [event.type for event in seen] == ["test.late"]

    async def work(connection: AsyncConnection) -> list[tuple[int, int]]:
        query = text("SELECT position, sequence FROM outbox ORDER BY sequence DESC LIMIT 2")
        return [(row.position, row.sequence) for row in await connection.execute(query)]

    (late_position, late_number), (early_position, early_number) = await stack.db.read(work)
    assert late_position < early_position
    assert late_number > early_number


async def test_many_numbering_at_once_give_each_event_one_number_without_a_gap(stack: CatalogStack) -> None:
    sequencers = [Sequencer(stack.db) for _ in range(3)]
    await stack.create(Catalog, "prod")

    async def write(writer: int) -> None:
        for number in range(10):
            await stack.create(Schema, "prod", f"s{writer}_{number}")

    async def number(sequencer: Sequencer, done: asyncio.Event) -> None:
        while not done.is_set():
            await sequencer.advance()

    done = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for sequencer in sequencers:
            tasks.create_task(number(sequencer, done))
        await asyncio.gather(*(write(writer) for writer in range(3)))
        done.set()
    assert await sequencers[0].advance() == 31

    async def work(connection: AsyncConnection) -> list[int]:
        rows = await connection.execute(text("SELECT sequence FROM outbox ORDER BY sequence"))
        return list(rows.scalars())

    assert await stack.db.read(work) == list(range(1, 32))


@pytest.mark.parametrize("seed", range(3))
async def test_a_watcher_that_comes_and_goes_sees_everything_in_order(
    stack: CatalogStack, grants: Grants, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers change models at once; the watcher drops out anywhere and resumes with its last position."""
    monkeypatch.setattr(feed_module, "ROWS", 4)
    chance = random.Random(seed)
    models = [("prod", "ml", name) for name in ("a", "b", "c")]
    for path in models:
        await stack.create_model(*path)
    seen: dict[str, list[int]] = {".".join(path): [] for path in models}

    async def write(path: Path) -> None:
        for number in range(1, 13):
            await stack.namespaces.set_tags(ADA, tag(number, path))
            await asyncio.sleep(chance.random() / 100)

    async def follow(watch: Watch) -> Watch:
        """Watch for some steps, perhaps forgetting that the last one was seen."""
        async with running(stack.feed(grants, FAST)) as feed:
            stream = cast("Any", feed.watch(ROOT, watch))
            for _ in range(chance.randint(1, 6)):
                step = await anext(stream)
                for event in step.events:
                    seen[event.resource.name].append(int(event.data["after"]["number"]))
                if chance.random() < 0.2:
                    break
                watch = wanted(step.position, types=watch.types)
            await stream.aclose()
        return watch

    watch = wanted(types=("catalog.model.tagged",), from_beginning=True)
    async with asyncio.timeout(120), asyncio.TaskGroup() as writers:
        for path in models:
            writers.create_task(write(path))
        while not all(12 in numbers for numbers in seen.values()):
            watch = await follow(watch)
    for name, numbers in seen.items():
        assert list(dict.fromkeys(numbers)) == list(range(1, 13)), (name, "by the first time each was seen")


# Resuming.


async def test_a_position_outlives_the_process_that_gave_it(stack: CatalogStack, grants: Grants) -> None:
    await stack.create_model(*IRIS)
    async with running(stack.feed(grants, FAST)) as feed:
        _, position = await collect(feed, BEGINNING, lambda events: len(events) == 3)
    await stack.create_version()
    async with running(stack.feed(grants, FAST)) as feed:
        seen, _ = await collect(feed, wanted(position), bool)
    assert [event.type for event in seen] == ["catalog.model_version.created"]


async def test_old_delivered_events_go_and_nobody_misses_them_unawares(
    stack: CatalogStack, grants: Grants
) -> None:
    await stack.create_model(*IRIS)
    feed, sequencer = stack.feed(grants, FAST), Sequencer(stack.db)
    await feed.advance()
    later = utc_now() + timedelta(days=1)
    assert await sequencer.prune(later) == 0  # none is delivered

    async def deliver(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE outbox SET deliver_time = now() WHERE sequence <> 3"))

    await stack.db.in_tx(deliver)
    assert await sequencer.prune(utc_now() - timedelta(days=1)) == 0  # none is old
    assert await sequencer.prune(later) == 2
    assert await sequencer.prune(later) == 0
    assert await kept(feed) == ["catalog.model.created prod.ml.iris"]
    assert await kept(feed, wanted(2)) == ["catalog.model.created prod.ml.iris"]
    with pytest.raises(InvalidField, match="no longer kept"):
        await anext(feed.watch(ROOT, wanted(1)))
    with pytest.raises(InvalidField, match="ahead of every event"):
        await anext(feed.watch(ROOT, wanted(4)))
    with pytest.raises(InvalidField, match="another installation"):
        await anext(feed.watch(ROOT, wanted(3, feed_id=new_id())))


async def test_numbers_go_on_after_everything_was_removed(stack: CatalogStack, grants: Grants) -> None:
    await stack.create_model(*IRIS)
    feed, sequencer = stack.feed(grants, FAST), Sequencer(stack.db)
    await feed.advance()

    async def deliver(connection: AsyncConnection) -> None:
        await connection.execute(text("UPDATE outbox SET deliver_time = now()"))

    await stack.db.in_tx(deliver)
    assert await sequencer.prune(utc_now() + timedelta(days=1)) == 3
    await stack.create_version()
    assert await feed.advance() == 4
    assert await kept(feed, wanted(3)) == ["catalog.model_version.created prod.ml.iris/1"]


# Permission.


def give(grants: Grants, *held: tuple[str, Privilege], by: Call = BOB, effect: Effect = Effect.ALLOW) -> None:
    grants.replace(by.principal.id, "x", [ResourceGrant(id_, privilege, effect) for id_, privilege in held])


async def ids_of(stack: CatalogStack) -> dict[str, str]:
    async def work(connection: AsyncConnection) -> dict[str, str]:
        parts = " UNION ALL ".join(
            f"SELECT name, id FROM {table}" for table in ("catalogs", "schemas", "models")
        )
        return {row.name: str(row.id) for row in await connection.execute(text(parts))}

    return await stack.db.read(work)


async def test_only_what_the_caller_may_see_is_shown(stack: CatalogStack, grants: Grants) -> None:
    await stack.create_model(*IRIS)
    await stack.create_model("prod", "ml", "wine")
    await stack.create_version()
    feed, ids = stack.feed(grants, FAST), await ids_of(stack)
    use = [(ids["prod"], Privilege.USE_CATALOG), (ids["ml"], Privilege.USE_SCHEMA)]
    namespaces = ["catalog.catalog.created prod", "catalog.schema.created prod.ml"]
    iris = ["catalog.model.created prod.ml.iris", "catalog.model_version.created prod.ml.iris/1"]

    assert await kept(feed, by=BOB) == []
    assert len(await kept(feed, by=ADA)) == 5  # she owns all of it
    give(grants, (ids["iris"], Privilege.READ_METADATA))
    assert await kept(feed, by=BOB) == []  # out of reach
    give(grants, *use)
    assert await kept(feed, by=BOB) == namespaces
    give(grants, *use, (ids["iris"], Privilege.READ_METADATA))
    assert await kept(feed, by=BOB) == [*namespaces, *iris]
    give(grants, *use, (SYSTEM_ID, Privilege.READ_METADATA))
    assert len(await kept(feed, by=BOB)) == 5
    denied = [
        ResourceGrant(ids["wine"], Privilege.READ_METADATA, Effect.DENY),
        *(ResourceGrant(id_, privilege, Effect.ALLOW) for id_, privilege in use),
        ResourceGrant(ids["prod"], Privilege.READ_METADATA, Effect.ALLOW),
    ]
    grants.replace(BOB.principal.id, "bob", denied)
    assert await kept(feed, by=BOB) == [*namespaces, *iris]


@pytest.mark.parametrize("seed", range(4))
async def test_the_query_shows_what_a_decision_allows(stack: CatalogStack, grants: Grants, seed: int) -> None:
    """Random grants: the condition in SQL and `access.decide` agree on every event."""
    chance = random.Random(seed)
    for path in (IRIS, ("prod", "old", "rose"), ("dev", "x", "y")):
        await stack.create_model(*path, by=chance.choice((ADA, ROOT)))
    feed, ids = stack.feed(grants, FAST), await ids_of(stack)
    everything = await kept(feed)
    rights = {1: Privilege.USE_CATALOG, 2: Privilege.USE_SCHEMA, 3: Privilege.READ_METADATA}
    privileges = [*rights.values(), Privilege.OWNERSHIP]
    resolve = Resolvers(stack.db, stack.store).path
    chains = {line: await resolve(tuple(line.split()[1].split("."))) for line in everything}
    for _ in range(40):
        held = [
            ResourceGrant(
                chance.choice([*ids.values(), SYSTEM_ID]),
                chance.choice(privileges),
                Effect.DENY if chance.random() < 0.2 else Effect.ALLOW,
            )
            for _ in range(chance.randint(0, 6))
        ]
        grants.replace(ADA.principal.id, "ada", held)
        expected = [
            line
            for line, chain in chains.items()
            if grants.decide(ADA.principal.id, rights[len(chain) - 1], chain).allowed
        ]
        assert await kept(feed, by=ADA) == expected, held


async def test_a_change_of_permission_counts_at_once(stack: CatalogStack, grants: Grants, feed: Feed) -> None:
    await stack.create_model(*IRIS)
    ids = await ids_of(stack)
    stream = feed.watch(BOB, wanted(types=("catalog.model.tagged",)))
    async with asyncio.timeout(60), contextlib.aclosing(cast("Any", stream)):
        position = (await anext(stream)).position
        await stack.namespaces.set_tags(ADA, tag(1))
        while position < 4:  # passed by, unseen
            step = await anext(stream)
            assert step.events == ()
            position = step.position
        give(
            grants,
            *(
                (ids["prod"], p)
                for p in (Privilege.USE_CATALOG, Privilege.USE_SCHEMA, Privilege.READ_METADATA)
            ),
        )
        await stack.namespaces.set_tags(ADA, tag(2))
        step = await anext(stream)
        while not step.events:
            step = await anext(stream)
        assert step.events[0].data["after"] == {"number": "2"}
        grants.remove(BOB.principal.id)
        await stack.namespaces.set_tags(ADA, tag(3))
        while step.position < 6:
            step = await anext(stream)
            assert step.events == ()


async def test_a_watched_resource_must_be_there_and_permitted(stack: CatalogStack, grants: Grants) -> None:
    await stack.create_model(*IRIS)
    feed = stack.feed(grants, FAST)
    for path in (("prod",), ("prod", "ml"), IRIS, ("prod", "ml", "none"), ("none",)):
        with pytest.raises(PermissionDenied):
            await anext(feed.watch(BOB, wanted(resource=path)))
    with pytest.raises(NotFound):
        await anext(feed.watch(ADA, wanted(resource=("prod", "ml", "none"))))
    assert (await anext(feed.watch(ADA, wanted(resource=IRIS)))).events == ()


async def test_without_fresh_grants_a_watch_ends(stack: CatalogStack) -> None:
    now = 0.0
    grants = Grants(bound=30.0, monotonic=lambda: now)
    await grants.mark_fresh(1)
    feed = stack.feed(grants, FAST)
    stream = feed.watch(ADA, BEGINNING)
    await anext(stream)
    await stack.create(Catalog, "prod")
    await feed.advance()
    now = 31.0
    with pytest.raises(PermissionsStale):
        await anext(stream)


# Bounds.


def of(number: int) -> Call:
    """A call of one of many principals."""
    return Call(Principal(f"0198c0de-0000-7000-8000-{number:012d}", f"p{number}", "user"), "r")


async def test_each_principal_and_all_together_have_so_many_watches_and_not_one_more(
    stack: CatalogStack, grants: Grants
) -> None:
    feed = stack.feed(grants, FAST)
    of_one, of_all = (LIMITS[name].maximum for name in ("watches_per_principal", "watches_per_process"))
    streams = []
    for number in range(of_all):
        if number and number % of_one == 0:
            with pytest.raises(TooManyWatches) as caught:
                await anext(feed.watch(of(number // of_one - 1), wanted()))
            assert caught.value.metadata == {"limit": "watches_per_principal", "maximum": str(of_one)}
        stream = cast("Any", feed.watch(of(number // of_one), wanted()))
        await anext(stream)
        streams.append(stream)
    another = of(of_all)
    with pytest.raises(TooManyWatches, match="end one that is no longer read") as caught:
        await anext(feed.watch(another, wanted()))
    assert caught.value.metadata["limit"] == "watches_per_process"
    await streams.pop().aclose()
    streams.append(cast("Any", feed.watch(another, wanted())))
    await anext(streams[-1])
    for stream in streams:
        await stream.aclose()
    assert feed._watches.total == 0


async def test_a_refused_watch_is_not_counted(stack: CatalogStack, grants: Grants) -> None:
    feed = stack.feed(grants, FAST)
    for _ in range(LIMITS["watches_per_principal"].maximum + 1):
        with pytest.raises(NotFound):
            await anext(feed.watch(ROOT, wanted(resource=("none",))))
    assert feed._watches.total == 0


MANY = 100_000


@pytest.mark.parametrize(
    "narrow",
    [
        {},
        {"types": ("catalog.model.updated",)},
        {"prefixes": ("catalog.model.u",)},
        {"resource": IRIS},
        {"types": ("catalog.model.updated",), "resource": IRIS},
    ],
    ids=["all", "type", "prefix", "resource", "type and resource"],
)
async def test_a_watch_of_many_events_reads_them_by_number(
    stack: CatalogStack, grants: Grants, narrow: dict[str, Any]
) -> None:
    """However many events there are, and however few match: no query reads all of the outbox."""
    iris = await stack.create_model(*IRIS)
    feed = stack.feed(grants, FAST)
    first = await feed.advance()
    await stack.db.in_tx(lambda connection: fill(connection, iris.id, [link.id for link in iris.chain[:3]]))
    give(
        grants,
        *((iris.chain[2].id, p) for p in (Privilege.USE_CATALOG, Privilege.USE_SCHEMA)),
        (iris.id, Privilege.READ_METADATA),
    )
    async with stack.db.engine.connect() as connection:
        await connection.execute(text("VACUUM ANALYZE outbox"))
    for by in (ROOT, BOB):
        with recorded(stack) as statements:
            seen = 0
            stream = feed.watch(by, wanted(first + 500, **narrow))
            async with asyncio.timeout(60), contextlib.aclosing(cast("Any", stream)):
                async for step in stream:
                    seen += len(step.events)
                    if seen >= 10:
                        break
        assert any("row_number" in statement for statement, _ in statements)
        for statement, parameters in statements:
            plan = await explained(stack, statement, parameters)
            assert not {"outbox"} & set(scanned(plan)), json.dumps(plan, indent=1)


async def fill(connection: AsyncConnection, model_id: str, scope: list[str]) -> None:
    """Add numbered, delivered events; one in a thousand is about the model, and another type for every second of those."""
    await connection.execute(
        text(
            "INSERT INTO outbox (id, type, resource_type, resource_id, resource_name, owner_id, actor_id, actor_name,"
            " actor_kind, request_id, time, data, deliver_time, sequence, scope)"
            " SELECT gen_random_uuid()::text, CASE WHEN n % 2000 = 0 THEN 'catalog.model.updated'"
            " ELSE 'catalog.model.tagged' END, 'model', gen_random_uuid()::text, 'prod.ml.x', '', 'a', 'ada', 'user',"
            " 'r', now(), '{}', now(), head.sequence + n, CASE WHEN n % 1000 = 0 THEN CAST(:scope AS uuid[])"
            " ELSE ARRAY[gen_random_uuid(), gen_random_uuid(), gen_random_uuid()] END"
            " FROM generate_series(1, CAST(:many AS bigint)) n, outbox_head head"
        ),
        {"scope": scope, "many": MANY},
    )
    await connection.execute(text("UPDATE outbox_head SET sequence = sequence + :many"), {"many": MANY})


# Over the wire.


async def test_a_watcher_that_does_not_read_is_let_go(
    stack: CatalogStack, served: tuple[CallChain, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it costs the service one answer: the next one is read when that was taken."""
    monkeypatch.setattr(interceptors, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setitem(
        LIMITS, "watches_per_principal", Limit("watches_per_principal", 1, "watches", "of one")
    )
    await stack.create(Catalog, "prod")
    link, count = Link(ResourceType.CATALOG, new_id(), "big"), 100

    async def append(connection: AsyncConnection) -> None:
        for _ in range(count):
            large = Event("test.large", link, ADA.principal, "r", {"text": "x" * 400_000})
            await outbox.append(connection, large)

    await stack.db.in_tx(append)
    _, _, stub = served
    by_root = [("authorization", "Bearer root")]
    begin = service.WatchEventsRequest(from_beginning=True)
    unread = stub.WatchEvents(begin, metadata=by_root)
    await unread.read()

    async def refused() -> bool:
        other = stub.WatchEvents(service.WatchEventsRequest(), metadata=by_root)
        try:
            await other.read()
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return True
        finally:
            other.cancel()
        return False

    assert await refused()
    async with asyncio.timeout(60):
        while await refused():
            await asyncio.sleep(0.05)
    taken = 0

    async def drain() -> None:
        nonlocal taken
        while answer := await unread.read():
            taken += len(answer.events)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(drain(), 60)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert taken < count, "the service went on without the watcher"


class NameVerifier:
    """Takes the name of a principal for its token."""

    async def verify(self, token: str) -> Principal:
        return {"root": ROOT, "ada": ADA, "bob": BOB}[token].principal


@pytest.fixture
async def served(stack: CatalogStack, grants: Grants) -> AsyncIterator[tuple[CallChain, Any, Any]]:
    """The service as `app` builds it, without a chassis around it."""
    settings = CatalogSettings.model_construct(feed_heartbeat_seconds=0.05)
    chassis = Chassis(settings, stack.db, cast("Peers", None), grants, utc_now, None)
    async with build(chassis) as built, asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(cast("Any", run)()) for run in built.background]
        chain = CallChain(FULL_NAME, built.access, cast("TokenVerifier", NameVerifier()), grants)
        server = grpc.aio.server(interceptors=[chain])
        built.register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield chain, server, CatalogServiceStub(channel)
        await server.stop(None)
        for task in background:
            task.cancel()


BY_ADA = [("authorization", "Bearer ada")]


async def test_a_token_of_an_answer_resumes_after_it(
    stack: CatalogStack, served: tuple[CallChain, Any, Any]
) -> None:
    _, _, stub = served
    await stack.create_model(*IRIS)
    call = stub.WatchEvents(service.WatchEventsRequest(from_beginning=True), metadata=BY_ADA, timeout=60)
    token, seen = "", 0
    while seen < 3:
        answer = await call.read()
        seen, token = seen + len(answer.events), answer.resume_token
    call.cancel()
    await stack.create_version()
    call = stub.WatchEvents(service.WatchEventsRequest(resume_token=token), metadata=BY_ADA, timeout=60)
    answer = await call.read()
    while not answer.events:
        assert answer.resume_token
        answer = await call.read()
    assert [event.resource.name for event in answer.events] == ["prod.ml.iris/1"]
    call.cancel()


async def test_a_server_that_stops_ends_watches_at_once(served: tuple[CallChain, Any, Any]) -> None:
    chain, server, stub = served
    call = stub.WatchEvents(service.WatchEventsRequest(), metadata=BY_ADA)
    await call.read()
    async with asyncio.timeout(60):
        chain.end_watches()
        await server.stop(600)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_that_stops_while_a_first_answer_is_sent_says_so(
    served: tuple[CallChain, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hand_over(context: Any, response: Any) -> None:
        asyncio.get_running_loop().call_soon(begun.set)
        await real(context, response)

    real = interceptors._hand_over
    monkeypatch.setattr(interceptors, "_hand_over", hand_over)
    chain, server, stub = served
    call = stub.WatchEvents(service.WatchEventsRequest(), metadata=BY_ADA)
    async with asyncio.timeout(60):
        await begun.wait()
        chain.end_watches()
        assert (await call.read()).resume_token
        await server.stop(600)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (service.WatchEventsRequest(resume_token="nonsense"), "resume_token"),
        (service.WatchEventsRequest(resume_token="WzFd"), "resume_token"),
        (service.WatchEventsRequest(types=["*"]), "types[0]"),
        (service.WatchEventsRequest(resource="a.b.c.d"), "resource"),
    ],
)
async def test_wrong_fields_are_named(
    served: tuple[CallChain, Any, Any], request_: service.WatchEventsRequest, field: str
) -> None:
    call = served[2].WatchEvents(request_, metadata=BY_ADA, timeout=60)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in str(caught.value.details())
