"""Texts, tags, metrics and signatures in requests: every refusal names its field."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.struct_pb2 import Struct, Value

from modelyard.api.catalog.v1 import model_pb2, signature_pb2
from modelyard_catalog.models import (
    DatasetReference,
    InputLayout,
    Json,
    MethodSignature,
    Provenance,
    Signature,
    TensorSpec,
)
from modelyard_kit import limits
from modelyard_kit.errors import InvalidField

# Each level of a JSON value takes up to three levels of messages, of which protobuf reads at most 100.
METRIC_DEPTH = limits.LIMITS["metric_depth"].maximum
NAME_LENGTH = limits.LIMITS["tensor_name_length"].maximum
MAX_RANK = limits.LIMITS["tensor_rank"].maximum
DATATYPES = frozenset(
    [
        "BOOL",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "FP16",
        "BF16",
        "FP32",
        "FP64",
        "BYTES",
    ]
)

_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# A password before the host, or anything at all there in an http(s) address, where it can only be a token.
_CREDENTIALS = re.compile(r"(?i:https?)://[^/@\s]+@|[A-Za-z][A-Za-z0-9+.-]*://[^/@\s]*:[^/@\s]*@")
_SHOWN = 60


def text(field: str, value: str, limit: str) -> str:
    """Return a text that can be stored.

    Args:
        field: its name in the request.
        value: the text.
        limit: name of the limit on its characters.

    Raises:
        InvalidField: it holds U+0000, which PostgreSQL cannot store.
        LimitExceeded: it is too long.
    """
    limits.check(limit, len(value))
    return _storable(field, value)


def tags(field: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return tags.

    Raises:
        InvalidField: a key is empty, or a text cannot be stored.
        LimitExceeded: there are too many, or a text is too long.
    """
    limits.check("tags_per_resource", len(given))
    return {
        key(field, name, "tag_key_length"): text(f"{field}[{shown(name)}]", value, "tag_value_length")
        for name, value in given.items()
    }


def key(field: str, name: str, limit: str) -> str:
    """Return the key of a tag or metric.

    Raises:
        InvalidField: it is empty, or cannot be stored.
        LimitExceeded: it is too long.
    """
    if not name:
        raise InvalidField(field, "has an entry without a name")
    return text(f"{field}[{shown(name)}]", name, limit)


def removals(field: str, names: Iterable[str], written: Mapping[str, object], limit: str) -> tuple[str, ...]:
    """Return the names to remove, each once.

    Raises:
        InvalidField: a name is empty, or is also written.
        LimitExceeded: a name is too long.
    """
    found = []
    for name in dict.fromkeys(names):
        key(field, name, limit)
        if name in written:
            raise InvalidField(field, f"{shown(name)!r} is also in 'set'; write it or remove it")
        found.append(name)
    return tuple(found)


def metrics(field: str, given: Mapping[str, Value]) -> dict[str, Json]:
    """Return metrics as JSON values.

    Raises:
        InvalidField: a name is empty, or a value is unset, not finite, too deep, or cannot be stored.
        LimitExceeded: there are too many, or one is too large.
    """
    limits.check("metrics_per_version", len(given))
    found: dict[str, Json] = {}
    for name, value in given.items():
        key(field, name, "metric_name_length")
        found[name] = _json(f"{field}[{shown(name)}]", value, METRIC_DEPTH)
        limits.check("metric_value_bytes", len(json.dumps(found[name], ensure_ascii=False).encode()))
    return found


def struct(field: str, message: Struct) -> dict[str, Json]:
    """Return a JSON object.

    Raises:
        InvalidField: a value is unset, not finite, too deep, or cannot be stored.
    """
    return {
        _storable(field, name): _json(f"{field}.{shown(name)}", item, METRIC_DEPTH - 1)
        for name, item in message.fields.items()
    }


def address(field: str, value: str, limit: str) -> str:
    """Return an address without credentials.

    Raises:
        InvalidField: it holds some, or cannot be stored.
        LimitExceeded: it is too long.
    """
    if _CREDENTIALS.match(value):
        raise InvalidField(field, "holds credentials; send the address without them")
    return text(field, value, limit)


def _json(field: str, value: Value, depth: int) -> Json:
    if not depth:
        raise InvalidField(field, f"is nested deeper than {METRIC_DEPTH} levels")
    match value.WhichOneof("kind"):
        case "null_value":
            return None
        case "number_value":
            if not math.isfinite(value.number_value):
                raise InvalidField(field, f"is {value.number_value}; only finite numbers can be stored")
            return (
                value.number_value + 0.0
            )  # PostgreSQL does not tell -0.0 from 0.0, so neither does this answer
        case "string_value":
            return _storable(field, value.string_value)
        case "bool_value":
            return value.bool_value
        case "list_value":
            items = enumerate(value.list_value.values)
            return [_json(f"{field}[{position}]", item, depth - 1) for position, item in items]
        case "struct_value":
            fields = value.struct_value.fields.items()
            return {
                _storable(field, name): _json(f"{field}.{shown(name)}", item, depth - 1)
                for name, item in fields
            }
        case _:
            raise InvalidField(field, "has no value; to store nothing, send null_value")


def _storable(field: str, value: str) -> str:
    if "\0" in value:
        raise InvalidField(field, "holds the character U+0000, which cannot be stored")
    return value


def runtime(field: str, value: str) -> str:
    """Return the name of a runtime, or an empty text.

    Raises:
        InvalidField: it is not a name.
    """
    if value and not _RUNTIME.fullmatch(value):
        raise InvalidField(
            field, "is not the name of a runtime: use letters, digits, '.', '_', '-', at most 63"
        )
    return value


def signature(field: str, message: signature_pb2.Signature) -> Signature:
    """Return a signature.

    Raises:
        InvalidField: something in it is missing, malformed or there twice.
        LimitExceeded: it has too many methods or tensors.
    """
    if not message.methods:
        raise InvalidField(f"{field}.methods", "needs at least one method")
    limits.check("signature_methods", len(message.methods))
    methods = [_method(f"{field}.methods[{position}]", item) for position, item in enumerate(message.methods)]
    _unique(f"{field}.methods", (method.name for method in methods))
    return Signature(tuple(methods))


def _method(field: str, message: signature_pb2.MethodSignature) -> MethodSignature:
    layouts = {
        signature_pb2.INPUT_LAYOUT_UNSPECIFIED: InputLayout.TENSORS,
        signature_pb2.INPUT_LAYOUT_TENSORS: InputLayout.TENSORS,
        signature_pb2.INPUT_LAYOUT_COLUMNS: InputLayout.COLUMNS,
    }
    if message.input_layout not in layouts:
        raise InvalidField(f"{field}.input_layout", f"{message.input_layout} is neither TENSORS nor COLUMNS")
    layout = layouts[message.input_layout]
    inputs = _tensors(f"{field}.inputs", message.inputs)
    if layout is InputLayout.COLUMNS:
        for position, tensor in enumerate(inputs):
            if tensor.shape != (-1,):
                raise InvalidField(
                    f"{field}.inputs[{position}].shape", "must be [-1]: the inputs are columns of a table"
                )
    return MethodSignature(
        name=_name(f"{field}.name", message.name),
        inputs=inputs,
        outputs=_tensors(f"{field}.outputs", message.outputs),
        input_layout=layout,
    )


def _tensors(field: str, messages: Iterable[signature_pb2.TensorSpec]) -> tuple[TensorSpec, ...]:
    found = tuple(_tensor(f"{field}[{position}]", message) for position, message in enumerate(messages))
    if not found:
        raise InvalidField(field, "needs at least one tensor")
    limits.check("signature_tensors", len(found))
    _unique(field, (tensor.name for tensor in found))
    return found


def _tensor(field: str, message: signature_pb2.TensorSpec) -> TensorSpec:
    if message.datatype not in DATATYPES:
        raise InvalidField(
            f"{field}.datatype", f"{shown(message.datatype)!r} is none of {', '.join(sorted(DATATYPES))}"
        )
    if not message.shape:
        raise InvalidField(f"{field}.shape", "needs at least the dimension that counts rows")
    if len(message.shape) > MAX_RANK:
        raise InvalidField(f"{field}.shape", f"has more than {MAX_RANK} dimensions")
    if any(size < -1 for size in message.shape):
        raise InvalidField(f"{field}.shape", "has a negative dimension; -1 stands for any size")
    return TensorSpec(_name(f"{field}.name", message.name), message.datatype, tuple(message.shape))


def _name(field: str, value: str) -> str:
    if not value:
        raise InvalidField(field, "is required")
    if len(value) > NAME_LENGTH:
        raise InvalidField(field, f"is longer than {NAME_LENGTH} characters")
    return _storable(field, value)


def _unique(field: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidField(field, f"{shown(name)!r} is there twice")
        seen.add(name)


def provenance(field: str, message: model_pb2.Provenance) -> Provenance:
    """Return a provenance.

    Raises:
        InvalidField: a text cannot be stored, or the address holds a password.
        LimitExceeded: a text is too long, or there are too many packages.
    """
    limits.check("provenance_packages", len(message.packages))

    def short(name: str, value: str) -> str:
        return text(f"{field}.{name}", value, "provenance_field_length")

    packages = {}
    for name, release in message.packages.items():
        key(f"{field}.packages", name, "provenance_field_length")
        packages[name] = short(f"packages[{shown(name)}]", release)
    return Provenance(
        git_repository=address(f"{field}.git_repository", message.git_repository, "provenance_field_length"),
        git_branch=short("git_branch", message.git_branch),
        git_commit=short("git_commit", message.git_commit),
        git_dirty=message.git_dirty,
        source=short("source", message.source),
        python_version=short("python_version", message.python_version),
        packages=packages,
        datasets=datasets(f"{field}.datasets", message.datasets),
    )


def datasets(field: str, messages: Sequence[model_pb2.DatasetReference]) -> tuple[DatasetReference, ...]:
    """Return references to data sets.

    Raises:
        InvalidField: a name is missing or holds a password, or a text cannot be stored.
        LimitExceeded: a text is too long, or there are too many.
    """
    limits.check("datasets_per_version", len(messages))
    return tuple(_dataset(f"{field}[{position}]", message) for position, message in enumerate(messages))


def _dataset(field: str, message: model_pb2.DatasetReference) -> DatasetReference:
    if not message.name:
        raise InvalidField(f"{field}.name", "is required")
    return DatasetReference(
        name=address(f"{field}.name", message.name, "lineage_name_length"),
        version=text(f"{field}.version", message.version, "lineage_name_length"),
        digest=text(f"{field}.digest", message.digest, "lineage_name_length"),
        role=text(f"{field}.role", message.role, "lineage_relation_length"),
    )


def shown(name: str) -> str:
    """Return a name as messages show it: cut when it is long."""
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN - 1]}…"
