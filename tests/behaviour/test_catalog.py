"""Names, versions, aliases, as users of the Python client meet them."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from pathlib import Path

import pytest

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard.types import ModelVersion
from tests.framework.stack import Stack
from tests.framework.waiting import eventually


@pytest.fixture
async def model(admin: AsyncClient, schema: str) -> str:
    """A new model without versions."""
    await admin.models.create(f"{schema}.iris")
    return f"{schema}.iris"


async def log(admin: AsyncClient, model: str, folder: Path, content: str = "weights") -> ModelVersion:
    """Log a version whose artifact is one file with this content."""
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_text(content)
    artifact = await admin.artifacts.upload(model, folder)
    return await admin.versions.create(model, artifact.digest)


async def test_a_logged_version_is_ready_complete_and_downloadable(
    admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    artifact = await admin.artifacts.upload(model, _folder(tmp_path / "up", "weights"))
    version = await admin.versions.create(
        model,
        artifact.digest,
        metrics={"accuracy": 0.9, "confusion": [[1, 0], [0, 1]]},
        tags={"team": "blau-weiß"},
        description="first",
    )
    assert (version.name, version.number, str(version.state)) == (f"{model}/1", 1, "READY")
    assert version.metrics == {"accuracy": 0.9, "confusion": [[1, 0], [0, 1]]}
    assert version.tags == {"team": "blau-weiß"}
    assert (await admin.versions.get(model)).id == version.id
    folder = await admin.artifacts.download(version.name, tmp_path / "down")
    assert (folder / "weights").read_text() == "weights"


async def test_the_digest_is_the_published_one(admin: AsyncClient, model: str, tmp_path: Path) -> None:
    version = await log(admin, model, tmp_path / "up")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    manifest = f"modelyard-manifest-v1\n{sha256} 7 weights\n"
    assert version.artifact_digest == "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()


async def test_numbers_are_given_once_whatever_happens_at_the_same_time(
    admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    first = await log(admin, model, tmp_path / "up")
    created = await asyncio.gather(*(admin.versions.create(model, first.artifact_digest) for _ in range(8)))
    assert sorted(version.number for version in created) == list(range(2, 10))


@pytest.mark.parametrize("reference", ["{}/7", "{}@nobody", "{}x/1", "{}x"])
async def test_unknown_versions_are_not_found_by_name(admin: AsyncClient, model: str, reference: str) -> None:
    with pytest.raises(errors.NotFound) as caught:
        await admin.versions.get(reference.format(model))
    assert caught.value.metadata["name"] in reference.format(model) + "/"


async def test_a_request_id_makes_a_repetition_safe(admin: AsyncClient, schema: str) -> None:
    request_id = uuid.uuid4().hex
    first = await admin.models.create(f"{schema}.once", request_id=request_id)
    assert (await admin.models.create(f"{schema}.once", request_id=request_id)).id == first.id
    with pytest.raises(errors.RequestIdReused):
        await admin.models.create(f"{schema}.other", request_id=request_id)
    with pytest.raises(errors.AlreadyExists):
        await admin.models.create(f"{schema}.once")


async def test_of_two_who_move_an_alias_from_the_same_place_one_wins(
    admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    for content in "abc":
        await log(admin, model, tmp_path / "up", content)
    await admin.aliases.set(model, {"champion": 1})
    results = await asyncio.gather(
        *(admin.aliases.set(model, {"champion": to}, expected={"champion": 1}) for to in (2, 3)),
        return_exceptions=True,
    )
    lost = [result for result in results if isinstance(result, errors.AliasMoved)]
    assert len(lost) == 1
    winner = next(result for result in results if not isinstance(result, BaseException))
    assert (await admin.models.get(model)).aliases == winner.aliases
    assert lost[0].metadata["expected"] == "1"


async def test_several_aliases_move_together_or_not_at_all(
    admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    for content in "ab":
        await log(admin, model, tmp_path / "up", content)
    await admin.aliases.set(model, {"blue": 1, "green": 2})
    with pytest.raises(errors.AliasMoved):
        await admin.aliases.set(model, {"blue": 2, "green": 1}, expected={"green": 1})
    assert (await admin.models.get(model)).aliases == {"blue": 1, "green": 2}
    with pytest.raises(errors.NotFound):
        await admin.aliases.set(model, {"blue": 2, "green": 99})
    assert (await admin.models.get(model)).aliases == {"blue": 1, "green": 2}


@pytest.mark.parametrize("alias", ["default", "first", "last", "latest", "v3", "1st", "a b", "", "x" * 64])
async def test_reserved_and_malformed_aliases_are_refused(
    admin: AsyncClient, model: str, tmp_path: Path, alias: str
) -> None:
    await log(admin, model, tmp_path / "up")
    with pytest.raises(errors.InvalidArgument) as caught:
        await admin.aliases.set(model, {alias: 1})
    assert "alias" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a", "a.b", "a.b.c.d", "a.b.ü", "a.b." + "x" * 64, "a.b.c/1"])
async def test_malformed_names_are_refused_by_field(admin: AsyncClient, name: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="name"):
        await admin.models.create(name)


async def test_lists_show_what_one_may_see_in_pages(stack: Stack, admin: AsyncClient, schema: str) -> None:
    for index in range(5):
        await admin.models.create(f"{schema}.m{index}")
    assert [one.name async for one in admin.models.list(schema, page_size=2)] == [
        f"{schema}.m{index}" for index in range(5)
    ]
    catalog = schema.partition(".")[0]
    async with stack.user() as user:
        with pytest.raises(errors.PermissionDenied):
            [one async for one in user.client.models.list(schema)]
        for privilege in ("USE_CATALOG", "USE_SCHEMA"):
            await admin.grants.create(user.name, privilege, catalog)
        await admin.grants.create(user.name, "READ_METADATA", f"{schema}.m3", resource_type="MODEL")
        await eventually(lambda: _sees(user.client, schema, [f"{schema}.m3"]))
        await admin.grants.create(user.name, "READ_METADATA", catalog)
        await admin.grants.create(
            user.name, "READ_METADATA", f"{schema}.m1", resource_type="MODEL", effect="DENY"
        )
        await eventually(lambda: _sees(user.client, schema, [f"{schema}.m{index}" for index in (0, 2, 3, 4)]))


async def _sees(client: AsyncClient, schema: str, names: list[str]) -> bool:
    try:
        return [one.name async for one in client.models.list(schema, page_size=2)] == names
    except errors.PermissionDenied:
        return False


def _folder(folder: Path, content: str) -> Path:
    folder.mkdir()
    (folder / "weights").write_text(content)
    return folder
