"""Harmful and harmless files, made by hand; nothing here is ever loaded."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile

EVIL = b"cposix\nsystem\n(S'true'\ntR."
"""A pickle of protocol 0 that runs a program when it is loaded."""
CUT_OFF = EVIL[:-1]
"""The same without its end: it runs the program all the same."""
STACK_GLOBAL = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
MEMOISED = b"\x80\x04\x8c\x06system\x940\x8c\x05posix\x94h\x00\x93\x8c\x04true\x85R."
INST = b"(S'true'\niposix\nsystem\n."
EXTENSION = b"\x80\x02\x82\x01."
HARMLESS = b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00}\x94K\x01K\x02s."
ODD = b"\x80\x02cmy_company.tools\nhelper\n)R."
BUILTIN = b"\x80\x02c__builtin__\n__import__\nX\x02\x00\x00\x00os\x85R."
HIDDEN = b"\x80\x04\x8c\x05posix\x94K\x01\x93."


def zipped(**files: bytes) -> bytes:
    """A zip of files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(**files: bytes) -> bytes:
    """A tar of files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def npy(descr: str, content: bytes) -> bytes:
    """A .npy with any type and content."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def safetensors() -> bytes:
    """One tensor of one number."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return struct.pack("<Q", len(header)) + header + bytes(4)


def onnx(location: bytes = b"") -> bytes:
    """The smallest message that is a model; with a place of external data if one is given."""
    graph = b"\x0a\x08location\x12" + bytes([len(location)]) + location if location else b"\x12\x01g"
    return b"\x08\x08" + b"\x3a" + bytes([len(graph)]) + graph + b"\x42\x02\x10\x0d"
