"""What an import makes, where it goes on after it was cut off, and what it leaves alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from modelyard import errors
from modelyard._bundle_file import Bundle
from modelyard._bundle_import import Importer
from modelyard.bundles import (
    BundledEdge,
    BundledModel,
    BundledVersion,
    BundleManifest,
    BundleSignature,
    VersionDocument,
)
from modelyard.types import FileEntry, LineageEdge, MissingBlob, Model, ModelCard, ModelVersion, Upload

from .test_bundles import NOON

CARDS = ({"content": '{"a":1}', "comment": "first"}, {"content": '{"a":2}', "comment": "second"})
LILY = "lab.ml.lily"


@dataclass
class Rows:
    """The rows of a pager."""

    rows: list[Any]

    async def collect(self) -> list[Any]:
        return self.rows


@dataclass
class Here:
    """An installation that a bundle comes into: each noun of `Verbs`, in one."""

    models_here: dict[str, Model] = field(default_factory=dict)
    made: list[ModelVersion] = field(default_factory=list)
    requests: dict[str, ModelVersion] = field(default_factory=dict)
    written: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    edges: list[LineageEdge] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    moved: dict[str, int] = field(default_factory=dict)
    stored: int = 0
    fail_at_card: int = 0
    purged: bool = False
    lacks_blobs: bool = False
    cancelled: int = 0

    @property
    def models(self) -> Any:
        return Models(self)

    @property
    def versions(self) -> Any:
        return Versions(self)

    @property
    def cards(self) -> Any:
        return Cards(self)

    @property
    def lineage(self) -> Any:
        return self

    @property
    def aliases(self) -> Any:
        return self

    @property
    def artifacts(self) -> Any:
        return self

    async def begin_upload(self, model: str, files: Any) -> Upload:
        missing = (MissingBlob(sha256="0" * 64, size=2),) if self.lacks_blobs else ()
        return Upload(id="u-1", missing=missing)

    async def cancel_upload(self, upload_id: str) -> None:
        self.cancelled += 1

    async def commit_upload(self, upload_id: str) -> None:
        self.stored += 1

    async def store(self, model: str, files: Any, progress: Any) -> None:
        self.stored += 1

    async def record(self, *edges: LineageEdge) -> None:
        self.edges += edges

    async def set(self, model: str, aliases: dict[str, int]) -> None:
        self.moved |= aliases


@dataclass
class Models:
    here: Here

    async def get(self, name: str) -> Model:
        if name not in self.here.models_here:
            raise errors.NotFound("no such model")
        return self.here.models_here[name]

    async def create(self, name: str, *, description: str, tags: Any) -> Model:
        self.here.models_here[name] = Model(name=name, description=description, tags=tags)
        return self.here.models_here[name]


@dataclass
class Versions:
    here: Here

    def list(self, model: str, *, filter: str, order_by: str) -> Rows:  # noqa: A002  (as the client has it)
        wanted = filter.removeprefix("metadata.custom.imported_version_id = ").strip("'")
        return Rows([version for version in self.here.made if fact(version, "version_id") == wanted])

    async def create(
        self, model: str, digest: str, *, request_id: str = "", label: str, **rest: Any
    ) -> ModelVersion:
        if request_id in self.here.requests:
            if self.here.purged:
                raise errors.NotFound("purged", metadata={"resource_type": "model_version", "name": "v"})
            return self.here.requests[request_id]
        if label in self.here.labels:
            raise errors.AlreadyExists("the label is taken")
        number = len(self.here.made) + 8
        told = {name: value for name, value in rest.items() if value is not None}
        version = ModelVersion(
            name=f"{model}/{number}", model=model, number=number, artifact_digest=digest, label=label, **told
        )
        self.here.made.append(version)
        if request_id:
            self.here.requests[request_id] = version
        return version


@dataclass
class Cards:
    here: Here

    async def get(self, name: str) -> ModelCard:
        if not self.here.written.get(name):
            raise errors.NotFound("no card")
        return ModelCard(model_version=name, content=json_of(self.here.written[name][-1]))

    async def set(self, name: str, content: dict[str, Any], *, comment: str) -> None:
        self.here.fail_at_card -= 1
        if self.here.fail_at_card == 0:
            raise errors.Unavailable("cut off")
        self.here.written.setdefault(name, []).append(content)


def json_of(content: dict[str, Any]) -> str:
    import json

    return json.dumps(content)


def fact(version: ModelVersion, key: str) -> str:
    return next((each.value for each in version.metadata.custom if each.key == f"imported_{key}"), "")


class Inside(Bundle):
    """A bundle of two versions whose documents need no file."""

    def document(self, version: BundledVersion) -> VersionDocument:
        told = {
            "id": version.id,
            "number": str(version.number),
            "artifactDigest": version.artifact_digest,
            "label": f"1.{version.number}",
            "metrics": {"accuracy": 0.9},
            "metadata": {
                "custom": [{"key": "gpu", "value": "none"}, {"key": "imported_bundle", "value": "older"}]
            },
            "someFieldOfTomorrow": 1,
        }
        return VersionDocument(told, {"state": "APPROVED"}, CARDS, ())

    def files(self, version: BundledVersion) -> tuple[FileEntry, ...]:
        return (FileEntry("a", 2, "0" * 64),)

    def local_files(self, version: BundledVersion) -> list[Any]:
        return []


def bundle(*, embedded: bool = True) -> Bundle:
    versions = tuple(BundledVersion(f"v-{n}", "m-1", n, f"sha256:{n}", "") for n in (3, 4))
    model = BundledModel("m-1", "prod.ml.iris", "irises", {"team": "ml"}, {"champion": 4})
    edge = BundledEdge("v-3", "v-4", "fine_tuned_to")
    manifest = BundleManifest(embedded, (model,), versions, (edge,), ())
    signature = BundleSignature("sha256:b", "modelyard", NOON, "k")
    return Inside(Path("a.bundle"), manifest, signature, {}, {}, ("", ""))


async def imported(here: Here, *, aliases: bool = False) -> list[tuple[str, str, bool]]:
    told = await Importer(here, bundle(), {"m-1": LILY}, False).run(aliases=aliases)  # type: ignore[arg-type]
    return [(each.origin, each.version, each.created) for each in told]


async def test_all_of_it_is_made_once() -> None:
    here = Here()
    assert await imported(here) == [
        ("prod.ml.iris/3", f"{LILY}/8", True),
        ("prod.ml.iris/4", f"{LILY}/9", True),
    ]
    assert (here.models_here[LILY].description, here.models_here[LILY].tags) == ("irises", {"team": "ml"})
    assert [version.label for version in here.made] == ["1.3", "1.4"]
    assert here.made[0].metrics == {"accuracy": 0.9}
    facts = {each.key: each.value for each in here.made[0].metadata.custom}
    assert facts == {
        "gpu": "none",
        "imported_version": "prod.ml.iris/3",
        "imported_version_id": "v-3",
        "imported_from": "modelyard",
        "imported_signer": "k",
        "imported_bundle": "sha256:b",
        "imported_approval": "APPROVED",
    }
    assert here.written[f"{LILY}/8"] == [{"a": 1}, {"a": 2}]
    assert [(edge.source.name, edge.target.name) for edge in here.edges] == [(f"{LILY}/8", f"{LILY}/9")]
    assert here.moved == {}, "aliases move only when that is asked for"
    assert [created for _, _, created in await imported(here, aliases=True)] == [False, False]
    assert (len(here.made), here.stored, here.moved) == (2, 2, {"champion": 9})
    assert here.written[f"{LILY}/8"] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_it_goes_on_where_it_was_cut_off(at: int) -> None:
    here = Here(fail_at_card=at)
    with pytest.raises(errors.Unavailable):
        await imported(here)
    await imported(here)
    assert [version.name for version in here.made] == [f"{LILY}/8", f"{LILY}/9"]
    assert all(here.written[version.name] == [{"a": 1}, {"a": 2}] for version in here.made)


async def test_a_version_that_was_made_but_not_told_of_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = Here()
    await imported(here)
    monkeypatch.setattr(Versions, "list", lambda *_, **__: Rows([]))  # as before its commit was seen
    await imported(here)
    assert len(here.made) == 2


@pytest.mark.parametrize("purged", [False, True])
async def test_a_version_that_was_deleted_is_made_again(purged: bool) -> None:
    here = Here()
    await imported(here)
    here.purged = purged
    gone = {request: replace(version, delete_time=NOON) for request, version in here.requests.items()}
    here.requests = gone
    here.made.clear()
    assert [created for _, _, created in await imported(here)] == [True, True]
    assert len(here.made) == 2


async def test_a_label_that_is_taken_is_left_out() -> None:
    here = Here(labels={"1.3"})
    await imported(here)
    assert [version.label for version in here.made] == ["", "1.4"]


async def test_what_is_here_stays() -> None:
    here = Here(models_here={LILY: Model(name=LILY, description="ours")})
    await imported(here)
    here.written[f"{LILY}/8"].append({"ours": True})
    await imported(here)
    assert here.models_here[LILY].description == "ours"
    assert here.written[f"{LILY}/8"][-1] == {"ours": True}


async def test_references_come_in_where_the_bytes_are() -> None:
    here = Here(lacks_blobs=True)
    importer = Importer(here, bundle(embedded=False), {"m-1": LILY}, False)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="holds no blobs, and 1 of sha256:3 are not here"):
        await importer.run(aliases=False)
    assert (here.made, here.cancelled, here.stored) == ([], 1, 0)
    here.lacks_blobs = False
    await importer.run(aliases=False)
    assert (len(here.made), here.stored) == (2, 2)


@pytest.mark.parametrize(
    "card", [{}, {"content": 1}, {"content": "{"}, {"content": "[]"}, {"content": "[" * 100_000}]
)
async def test_a_card_that_is_none(monkeypatch: pytest.MonkeyPatch, card: dict[str, Any]) -> None:
    whole = Inside.document
    monkeypatch.setattr(Inside, "document", lambda *given: replace(whole(*given), cards=(card,)))
    with pytest.raises(errors.InvalidArgument, match="a card that is none"):
        await imported(Here())
