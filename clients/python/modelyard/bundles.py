"""Bundles outside the services: what their manifest says, what is signed, what a document tells. Pure.

A bundle is a zip whose members are not compressed. `bundle.json`, the manifest, names every document with its SHA-256; the documents
name every blob with its SHA-256; and `bundle.sig` has a signature over the SHA-256 of the manifest. docs/sharing.md describes all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from modelyard._manifest import check_path, manifest_digest
from modelyard.errors import InvalidArgument
from modelyard.types import FileEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = "modelyard.bundle/1"
VERSION_FORMAT = "modelyard.version/1"
MANIFEST_BYTES = 2**20
"""The largest manifest; about 1,600 versions."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST = 2**53


@dataclass(frozen=True)
class BundledModel:
    """A model of a bundle, by what it is called at its origin; aliases lead to numbers of versions there."""

    id: str
    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]


@dataclass(frozen=True)
class BundledVersion:
    """A version of a bundle; `seal` is its origin's word that the document is about it and its artifact."""

    id: str
    model_id: str
    number: int
    artifact_digest: str
    seal: str

    @property
    def document(self) -> str:
        """Path of its document in the bundle."""
        return f"versions/{self.id}.jsonl"

    @property
    def artifact(self) -> str:
        """Path of the list of its files in the bundle."""
        return f"artifacts/{self.artifact_digest.removeprefix('sha256:')}.json"


@dataclass(frozen=True)
class BundledEdge:
    """That one version of a bundle was made from another one, by their ids."""

    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class BundleManifest:
    """What `bundle.json` says; `documents` are the files whose digests it has."""

    embedded: bool
    models: tuple[BundledModel, ...]
    versions: tuple[BundledVersion, ...]
    lineage: tuple[BundledEdge, ...]
    documents: tuple[FileEntry, ...]

    def model_of(self, version: BundledVersion) -> BundledModel:
        """The model of a version."""
        return next(model for model in self.models if model.id == version.model_id)

    def to_json(self) -> str:
        """The text of `bundle.json`."""
        versions = [{name: getattr(version, name) for name in _VERSION} for version in self.versions]
        return line(
            {
                "format": FORMAT,
                "blobs": "embedded" if self.embedded else "referenced",
                "models": [{name: getattr(model, name) for name in _MODEL} for model in self.models],
                "versions": versions,
                "lineage": [{name: getattr(edge, name) for name in _EDGE} for edge in self.lineage],
                "files": [{name: getattr(file, name) for name in _FILE} for file in self.documents],
            }
        )


_MODEL = {"id": str, "name": str, "description": str, "tags": dict, "aliases": dict}
_VERSION = {"id": str, "model_id": str, "number": int, "artifact_digest": str, "seal": str}
_EDGE = {"source": str, "target": str, "relation": str}
_FILE = {"path": str, "size": int, "sha256": str}
_WHOLE = {"format": str, "blobs": str, "models": list, "versions": list, "lineage": list, "files": list}


def line(document: Mapping[str, Any]) -> str:
    """JSON without spaces, members sorted by name."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def parse_manifest(text: str) -> BundleManifest:
    """Read `bundle.json`, and check that it is of one piece.

    Raises:
        InvalidArgument: it is not.
    """
    whole = _object(_json(text, "bundle.json"), _WHOLE, "bundle.json")
    if whole["format"] != FORMAT:
        raise InvalidArgument(f"bundle.json: is of the format {whole['format'][:40]!r}; this reads {FORMAT}")
    if whole["blobs"] not in ("embedded", "referenced"):
        raise InvalidArgument("bundle.json: blobs is neither 'embedded' nor 'referenced'")
    manifest = BundleManifest(
        embedded=whole["blobs"] == "embedded",
        models=tuple(BundledModel(**each) for each in _objects(whole, "models", _MODEL)),
        versions=tuple(BundledVersion(**each) for each in _objects(whole, "versions", _VERSION)),
        lineage=tuple(BundledEdge(**each) for each in _objects(whole, "lineage", _EDGE)),
        documents=tuple(FileEntry(**each) for each in _objects(whole, "files", _FILE)),
    )
    _check_models(manifest)
    _check_versions(manifest)
    return manifest


def _check_models(manifest: BundleManifest) -> None:
    _check_ids("models", [model.id for model in manifest.models])
    if len({model.name for model in manifest.models}) < len(manifest.models):
        raise InvalidArgument("bundle.json: models: two have the same name")
    used = {version.model_id for version in manifest.versions}
    for model in manifest.models:
        if model.id not in used:
            raise InvalidArgument(f"bundle.json: models: {model.name!r} has no version in the bundle")
        if not all(isinstance(value, str) for value in model.tags.values()):
            raise InvalidArgument(f"bundle.json: models: a tag of {model.name!r} is no text")
        numbers = {version.number for version in manifest.versions if version.model_id == model.id}
        if not all(type(number) is int and number in numbers for number in model.aliases.values()):
            raise InvalidArgument(f"bundle.json: models: an alias of {model.name!r} leads out of the bundle")


def _check_versions(manifest: BundleManifest) -> None:
    if not manifest.versions:
        raise InvalidArgument("bundle.json: versions: there are none")
    ids = [version.id for version in manifest.versions]
    _check_ids("versions", ids)
    models = {model.id for model in manifest.models}
    for version in manifest.versions:
        if version.model_id not in models:
            raise InvalidArgument(f"bundle.json: versions: the model of {version.id} is not in the bundle")
        if not _SHA256.fullmatch(version.artifact_digest.removeprefix("sha256:")):
            raise InvalidArgument(f"bundle.json: versions: the artifact of {version.id} has no digest")
    numbers = {(version.model_id, version.number) for version in manifest.versions}
    if len(numbers) < len(ids):
        raise InvalidArgument("bundle.json: versions: two of one model have the same number")
    if any({edge.source, edge.target} - set(ids) for edge in manifest.lineage):
        raise InvalidArgument("bundle.json: lineage: an edge leads out of the bundle")
    wanted = {path for version in manifest.versions for path in (version.document, version.artifact)}
    if sorted(file.path for file in manifest.documents) != sorted(wanted):
        raise InvalidArgument("bundle.json: files: they are not the documents of its versions, each once")
    if not all(_SHA256.fullmatch(file.sha256) for file in manifest.documents):
        raise InvalidArgument("bundle.json: files: one has no SHA-256")


def _check_ids(field: str, ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids) or not all(map(_ID.fullmatch, ids)):
        raise InvalidArgument(f"bundle.json: {field}: an id is there twice, or is none")


@dataclass(frozen=True)
class BundleSignature:
    """Who vouches for a bundle: the name of the installation, and which of its keys signed, when."""

    bundle: str
    installation: str
    time: datetime
    key_id: str


def bundle_digest(manifest: str) -> str:
    """The digest that stands for a whole bundle."""
    return f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"


def signed_statement(signature: BundleSignature) -> str:
    """What is signed of a bundle."""
    time = signature.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    told = {"bundle": signature.bundle, "installation": signature.installation, "key_id": signature.key_id}
    return line({"format": FORMAT, "time": time} | told)


def parse_statement(text: str) -> BundleSignature:
    """Read what was signed.

    Raises:
        InvalidArgument: it is not about a bundle.
    """
    names = ("format", "bundle", "installation", "time", "key_id")
    told = _object(_json(text, "bundle.sig"), dict.fromkeys(names, str), "bundle.sig: statement")
    try:
        time = datetime.fromisoformat(told["time"])
    except ValueError as error:
        raise InvalidArgument(f"bundle.sig: statement: time is none: {error}") from error
    if told["format"] != FORMAT:
        raise InvalidArgument("bundle.sig: statement: it is about something else than a bundle")
    return BundleSignature(told["bundle"], told["installation"], time, told["key_id"])


def sealed_statement(version: BundledVersion, document_sha256: str, key_id: str) -> bytes:
    """What a seal signs: that a document is about a version with an artifact."""
    return line(
        {
            "format": VERSION_FORMAT,
            "version_id": version.id,
            "model_id": version.model_id,
            "number": version.number,
            "artifact_digest": version.artifact_digest,
            "sha256": document_sha256,
            "key_id": key_id,
        }
    ).encode()


@dataclass(frozen=True)
class VersionDocument:
    """What the document of a version tells, each part as JSON: see docs/sharing.md."""

    version: Mapping[str, Any]
    approval: Mapping[str, Any]
    cards: tuple[Mapping[str, Any], ...]
    audit: tuple[Mapping[str, Any], ...]


def parse_document(content: bytes, version: BundledVersion) -> VersionDocument:
    """Read the document of a version.

    Raises:
        InvalidArgument: it is none, or about something else.
    """
    parts: dict[str, list[Mapping[str, Any]]] = {"version": [], "approval": [], "card": [], "audit": []}
    # Not `splitlines`: canonical JSON has U+2028 and its like in texts, which end a line there.
    lines = _text(content, version.document).removesuffix("\n").split("\n")
    for number, text in enumerate(lines, start=1):
        part = _json(text, f"{version.document}: line {number}")
        if not isinstance(part, dict) or part.get("kind") not in parts:
            raise InvalidArgument(f"{version.document}: line {number} is of no known kind")
        parts[part.pop("kind")].append(part)
    if len(parts["version"]) != 1 or len(parts["approval"]) != 1:
        raise InvalidArgument(f"{version.document}: does not tell of one version and its approval")
    told = parts["version"][0]
    # A number of 64 bits is a text in the JSON of protobuf.
    wanted = {"id": version.id, "number": str(version.number), "artifactDigest": version.artifact_digest}
    if any(told.get(name) != value for name, value in wanted.items()):
        raise InvalidArgument(f"{version.document}: is about another version than the manifest says")
    return VersionDocument(told, parts["approval"][0], tuple(parts["card"]), tuple(parts["audit"]))


def artifact_to_json(files: Sequence[FileEntry]) -> str:
    """The list of the files of an artifact, as it stands in a bundle."""
    ordered = sorted(files, key=lambda file: file.path.encode())
    return line({"files": [{name: getattr(file, name) for name in _FILE} for file in ordered]})


def parse_artifact(content: bytes, version: BundledVersion) -> tuple[FileEntry, ...]:
    """Read the list of the files of an artifact.

    Raises:
        InvalidArgument: it is none, or they do not make up the artifact of the version.
    """
    whole = _object(
        _json(_text(content, version.artifact), version.artifact), {"files": list}, version.artifact
    )
    files = tuple(FileEntry(**each) for each in _objects(whole, "files", _FILE, version.artifact))
    for file in files:
        check_path(file.path)
        if not _SHA256.fullmatch(file.sha256):
            raise InvalidArgument(f"{version.artifact}: {file.path!r} has no SHA-256")
    if len({file.path for file in files}) < len(files) or manifest_digest(files) != version.artifact_digest:
        raise InvalidArgument(
            f"{version.artifact}: the files do not make up the artifact {version.artifact_digest}"
        )
    return files


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{name}: is not UTF-8") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; a name that is there twice could mean two things to two readers."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return made


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name}: is not JSON: {error}") from error


def _object(value: Any, members: Mapping[str, type], name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(members):
        raise InvalidArgument(f"{name}: must have {', '.join(members)}, and nothing else")
    for member, kind in members.items():
        if type(value[member]) is not kind or (kind is int and not 0 <= value[member] < _MOST):
            raise InvalidArgument(f"{name}: {member} is not as it should be")
    return value


def _objects(
    whole: Mapping[str, Any], field: str, members: Mapping[str, type], name: str = "bundle.json"
) -> list[dict[str, Any]]:
    return [_object(each, members, f"{name}: {field}") for each in whole[field]]
