"""Between numpy arrays and the raw tensors of the Open Inference Protocol.

Raw means little-endian, row-major, without padding; each BYTES element follows its length as four bytes. numpy has no
BF16: those tensors are float32 arrays here, which hold every BF16 value exactly.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from modelyard.errors import MissingExtra

try:
    import numpy as np
except ImportError as error:
    raise MissingExtra("numpy", "numpy") from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Array = np.ndarray[Any, Any]

DTYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "uint8",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
"""Data types with a fixed size, and the numpy dtype of each."""
DATATYPES = (*DTYPES, "BF16", "BYTES")
"""Every data type of the protocol."""

_BY_DTYPE = {np.dtype(text).newbyteorder("="): name for name, text in DTYPES.items()}


class TensorError(ValueError):
    """An array and a tensor do not fit together; the message says how."""


def datatype_of(array: Array) -> str:
    """The protocol's data type for an array's dtype.

    Raises:
        TensorError: the protocol has no such type.
    """
    if array.dtype.name == "bfloat16":
        return "BF16"
    if array.dtype.kind in "OUST":
        return "BYTES"
    name = _BY_DTYPE.get(array.dtype.newbyteorder("="))
    if name is None:
        raise TensorError(
            f"dtype {array.dtype} has no tensor type; convert the array to one of {', '.join(DTYPES)}"
        )
    return name


def to_raw(array: Array, datatype: str) -> bytes:
    """The raw bytes of an array that already has the right dtype for `datatype` (see `cast`).

    Raises:
        TensorError: the array does not have that type.
    """
    if datatype == "BYTES":
        return b"".join(_with_length(item) for item in array.ravel())
    if datatype == "BF16":
        return _to_bf16(np.asarray(array, dtype=np.float32))
    if datatype not in DTYPES:
        raise TensorError(f"{datatype!r} is none of {', '.join(DATATYPES)}")
    dtype = np.dtype(DTYPES[datatype])
    if array.dtype != dtype and datatype_of(array) != datatype:
        raise TensorError(f"an array of {array.dtype} is not {datatype}")
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def from_raw(datatype: str, shape: Sequence[int], raw: bytes) -> Array:
    """The array for raw bytes; a read-only view of them where the type allows it, BYTES as objects of `bytes`.

    Raises:
        TensorError: unknown type, a negative dimension, or not the number of bytes that type and shape need.
    """
    if any(size < 0 for size in shape):
        raise TensorError(f"shape {list(shape)} has a negative dimension")
    count = math.prod(shape)
    if datatype == "BYTES":
        return _split(raw, count).reshape(shape)
    dtype = np.dtype("<u2" if datatype == "BF16" else DTYPES.get(datatype, "V"))
    if datatype not in DATATYPES:
        raise TensorError(f"{datatype!r} is none of {', '.join(DATATYPES)}")
    if len(raw) != count * dtype.itemsize:
        raise TensorError(
            f"{datatype} of shape {list(shape)} needs {count * dtype.itemsize} bytes, there are {len(raw)}"
        )
    flat = np.frombuffer(raw, dtype=dtype)
    if datatype == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(shape)


def cast(array: Array, datatype: str, name: str) -> Array:
    """The array in the dtype of a tensor, if that changes no value beyond rounding.

    Raises:
        TensorError: values would be cut off, overflow, or change their meaning; names the tensor.
    """
    if datatype == "BYTES":
        if array.dtype.kind in "OUST":
            return array
        raise TensorError(f"tensor {name!r} takes BYTES (texts), not {array.dtype}")
    target = np.dtype("float32" if datatype == "BF16" else DTYPES.get(datatype, "float64"))
    if array.dtype == object:
        array = _from_objects(array, name, datatype)
    if array.dtype == target:
        return array
    if array.dtype.name != "bfloat16" and not np.can_cast(array.dtype, target, "same_kind"):
        return _between_kinds(array, target, name, datatype)
    with np.errstate(over="ignore"):
        result = array.astype(target)
    if target.kind in "iu" and not np.array_equal(result, array):
        raise TensorError(
            f"tensor {name!r} takes {datatype}, and some of the {array.dtype} values do not fit"
        )
    if target.kind == "f" and array.dtype.kind == "f" and (np.isfinite(array) & ~np.isfinite(result)).any():
        raise TensorError(
            f"tensor {name!r} takes {datatype}, and some of the {array.dtype} values are too large"
        )
    return result


def texts(array: Array) -> Array:
    """The array with its `bytes` decoded as UTF-8; unchanged when one of them is not text."""
    try:
        decoded = [item.decode("utf-8") for item in array.ravel()]
    except UnicodeDecodeError:
        return array
    result = np.empty(len(decoded), dtype=object)
    result[:] = decoded
    return result.reshape(array.shape)


def _between_kinds(array: Array, target: np.dtype[Any], name: str, datatype: str) -> Array:
    """Signed to unsigned is fine while no value changes; the rest (floats to integers, texts to numbers) is not."""
    if array.dtype.kind in "iub" and target.kind in "iu":
        result = array.astype(target)
        if np.array_equal(result, array):
            return result
    raise TensorError(
        f"tensor {name!r} takes {datatype}; {array.dtype} does not become that without loss, convert it"
    )


def _from_objects(array: Array, name: str, datatype: str) -> Array:
    try:
        return np.array(array.tolist())
    except ValueError:
        raise TensorError(f"tensor {name!r} takes {datatype}; the rows have different lengths") from None


def _with_length(item: object) -> bytes:
    if isinstance(item, str):
        data = item.encode("utf-8")
    elif isinstance(item, (bytes, bytearray)):
        data = bytes(item)
    else:
        raise TensorError(f"a BYTES tensor holds texts or bytes, not {type(item).__name__}")
    return struct.pack("<I", len(data)) + data


def _split(raw: bytes, count: int) -> Array:
    items = list(_elements(raw))
    if len(items) != count:
        raise TensorError(f"BYTES needs {count} elements, there are {len(items)}")
    result = np.empty(count, dtype=object)
    result[:] = items
    return result


def _elements(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise TensorError(f"BYTES ends inside the length of an element, at byte {at}")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise TensorError(
                f"BYTES has an element of {length} bytes at byte {at}, and {len(raw) - at} bytes are left"
            )
        yield bytes(raw[at : at + length])
        at += length


def _to_bf16(array: Array) -> bytes:
    """Rounds to nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    result = np.where(np.isnan(array), (bits >> np.uint32(16)) | np.uint32(0x40), rounded)
    return bytes(result.astype("<u2").tobytes())
