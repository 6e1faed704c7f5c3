"""Data types of the Open Inference Protocol and their bytes.

Bytes are little-endian, row-major, without padding. BYTES elements follow their length (four bytes); as arrays they are
object arrays of `bytes`. BF16, which numpy lacks, is a float32 array in Python and the upper half of each value on the wire.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class DataType:
    """One data type: bytes per element on the wire (0: variable) and the array type it has in Python."""

    name: str
    size: int
    dtype: np.dtype[Any]


DATATYPES: Final[dict[str, DataType]] = {
    name: DataType(name, size, np.dtype(dtype))
    for name, size, dtype in (
        ("BOOL", 1, "?"),
        ("INT8", 1, "i1"),
        ("INT16", 2, "<i2"),
        ("INT32", 4, "<i4"),
        ("INT64", 8, "<i8"),
        ("UINT8", 1, "u1"),
        ("UINT16", 2, "<u2"),
        ("UINT32", 4, "<u4"),
        ("UINT64", 8, "<u8"),
        ("FP16", 2, "<f2"),
        ("BF16", 2, "<f4"),
        ("FP32", 4, "<f4"),
        ("FP64", 8, "<f8"),
        ("BYTES", 0, "O"),
    )
}


class BytesError(ValueError):
    """The bytes of a BYTES tensor do not hold what its shape says; the text leaves out the tensor's name."""

    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"{before}…{after}")
        self.before = before
        self.after = after


def from_raw(datatype: str, raw: bytes, shape: Sequence[int]) -> Array:
    """Return the array that `raw` holds; fixed-size types are views and so read-only.

    The caller has checked the length of fixed-size types.

    Raises:
        BytesError: if BYTES elements are cut off or their number is not that of the shape.
    """
    if datatype == "BYTES":
        return _bytes_from_raw(raw, shape)
    array: Array
    if datatype == "BF16":
        array = np.left_shift(np.frombuffer(raw, "<u2").astype("<u4"), 16).view("<f4")
    elif datatype == "BOOL":
        array = np.not_equal(np.frombuffer(raw, "u1"), 0)
    else:
        array = np.frombuffer(raw, DATATYPES[datatype].dtype)
    return array.reshape(shape)


def to_raw(datatype: str, array: Array) -> bytes:
    """Return the bytes of an array that `cast` made."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())
    if datatype == "BF16":
        return _bfloat16(array).tobytes()
    return array.tobytes()


def cast(datatype: str, value: Any) -> Array:
    """Return a model's output as an array of a data type.

    Raises:
        TypeError: if that would need more than a change of width, such as a float to an integer.
    """
    array = np.asarray(value)
    wanted = DATATYPES[datatype].dtype
    if datatype == "BYTES":
        return _bytes_array(array)
    if array.dtype == wanted:
        return array
    if array.dtype.kind == "O":
        return array.astype(wanted)
    if not np.can_cast(array.dtype, wanted, casting="same_kind"):
        raise TypeError(f"the model gives {array.dtype}, the signature says {datatype}")
    with np.errstate(over="ignore"):  # a float too large for the type becomes infinite, as everywhere
        return array.astype(wanted)


def _bfloat16(array: Array) -> Array:
    """Return the upper halves of float32 values, rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view("<u4")
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(array), (bits >> 16) | 0x40, rounded).astype("<u2")


def zeros(datatype: str, shape: Sequence[int]) -> Array:
    """Return an array of zeros (of empty texts for BYTES)."""
    if datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return np.zeros(shape, DATATYPES[datatype].dtype)


def texts(array: Array) -> Array:
    """Return an object array of `bytes` as one of `str`.

    Raises:
        UnicodeDecodeError: if an element is not UTF-8.
    """
    flat = np.empty(array.size, dtype=object)
    flat[:] = [item.decode("utf-8") for item in array.ravel()]
    return flat.reshape(array.shape)


def _bytes_from_raw(raw: bytes, shape: Sequence[int]) -> Array:
    count = 1
    for size in shape:
        count *= size
    items: list[bytes] = []
    position, end = 0, len(raw)
    while position < end:
        if len(items) == count:
            raise BytesError(f"unexpected number of string elements {count + 1}", f"expecting {count}")
        if end - position < 4:
            raise BytesError(
                "incomplete string length indicator",
                f"expecting 4 bytes but only {end - position} bytes available",
            )
        (length,) = struct.unpack_from("<I", raw, position)
        position += 4
        if length > end - position:
            raise BytesError(
                "incomplete string data",
                f"expecting string of length {length} but only {end - position} bytes available",
            )
        items.append(raw[position : position + length])
        position += length
    if len(items) != count:
        raise BytesError(f"expected {count} string elements", f"got {len(items)}")
    return object_array(items, shape)


def object_array(items: Sequence[Any], shape: Sequence[int]) -> Array:
    """Return an object array of these items (numpy's own constructor would look inside them)."""
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array.reshape(shape)


def _bytes_array(array: Array) -> Array:
    if array.dtype.kind not in "OSU":
        raise TypeError(f"the model gives {array.dtype}, the signature says BYTES")
    return object_array([_as_bytes(item) for item in array.ravel().tolist()], array.shape)


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    return str(item).encode("utf-8")
