"""What the contracts declare: services with their RPCs, and the catalogue of error reasons."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

ROOT = Path(__file__).parents[2]
PROTOS = ROOT / "protos"
API = ROOT / "clients" / "python" / "modelyard" / "api"
SERVICE_NAMES = ("catalog", "artifact", "governance", "inference")


@dataclass(frozen=True)
class Rpc:
    """One method of a public service, with the comment that documents it."""

    service: str
    method: MethodDescriptor
    comment: str

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def errors(self) -> tuple[str, ...]:
        """Reasons that the comment lists."""
        listed = re.search(r"Errors: ([A-Z_, ]+)\.", self.comment)
        return tuple(re.findall(r"[A-Z_]+", listed[1])) if listed else ()

    @property
    def privilege(self) -> str:
        """The privilege that the comment asks for first; empty when it asks for none."""
        needed = re.search(r"[Nn]eeds? ([A-Z]+(?:_[A-Z]+)*)\b(?! JWT)", self.comment)
        return needed[1] if needed and len(needed[1]) > 1 else ""

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"


@dataclass(frozen=True)
class Reason:
    """One value of `ErrorReason` with what its comment promises."""

    name: str
    code: str
    metadata: frozenset[str]
    example: dict[str, Any]


def service_module(service: str) -> Any:
    """The generated messages and service descriptor of a service."""
    return importlib.import_module(f"modelyard.api.{service}.v1.{service}_service_pb2")


@cache
def rpcs() -> tuple[Rpc, ...]:
    """Every RPC of the four services, in the order of the contracts."""
    found: list[Rpc] = []
    for service in SERVICE_NAMES:
        comments = _rpc_comments(PROTOS / f"modelyard/api/{service}/v1/{service}_service.proto")
        for descriptor in service_module(service).DESCRIPTOR.services_by_name.values():
            found += [Rpc(service, method, comments[method.name]) for method in descriptor.methods]
    return tuple(found)


def _rpc_comments(proto: Path) -> dict[str, str]:
    blocks = re.findall(r"((?:^ *//.*\n)+) *rpc (\w+)\(", proto.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: _text(block) for block, name in blocks}


@cache
def reasons() -> tuple[Reason, ...]:
    """Every error reason but the unspecified one, in the order of the contract."""
    text = (PROTOS / "modelyard/api/common/v1/errors.proto").read_text(encoding="utf-8")
    blocks = re.findall(r"((?:^ +//.*\n)+) +ERROR_REASON_(\w+) = \d+;", text, re.MULTILINE)
    return tuple(_reason(name, _text(block)) for block, name in blocks if name != "UNSPECIFIED")


def _reason(name: str, comment: str) -> Reason:
    code = re.match(r"([A-Z_]+)\. ", comment)
    metadata = re.search(r"Metadata: ([a-z_, ]+)\.", comment)
    example = re.search(r"Example: (\{.*\})$", comment)
    assert code, f"the comment of {name} does not start with its canonical code: {comment!r}"
    assert example, f"the comment of {name} does not end with an example: {comment!r}"
    keys = frozenset(metadata[1].split(", ")) if metadata else frozenset()
    return Reason(name, code[1], keys, json.loads(example[1]))


def _text(block: str) -> str:
    return " ".join(line.strip().removeprefix("//").strip() for line in block.splitlines())


def source_files(package: str) -> list[Path]:
    """Every Python file of an import package, without its migrations."""
    file = importlib.import_module(package).__file__
    assert file, f"{package} has no __init__.py"
    folder = Path(file).parent
    return [path for path in sorted(folder.rglob("*.py")) if "migrations" not in path.parts]
