"""A model that another server runs: where that is, and what the model is called there. Versions of the runtime `remote` hold it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

FILE_NAME: Final = "remote.json"
"""File of an artifact that holds one."""
_URL: Final = re.compile(
    r"grpcs?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):([0-9]{1,5})"
)
_SOCKET: Final = re.compile(r"unix:/[^\s\x00]+")
_MAX_PORT: Final = 65_535
_MAX_LENGTH: Final = 1_000


class InvalidRemote(ValueError):
    """What should say where a model runs does not; the text names the field."""


@dataclass(frozen=True)
class RemoteModel:
    """A model on a server that speaks the Open Inference Protocol over gRPC: Triton, MLServer, KServe.

    Args:
        url: `grpc://host:port` without TLS, `grpcs://host:port` with it, or `unix:/path` of a socket.
        model: what the model is called there.
        version: its version there; empty for the one that the server chooses.

    Raises:
        InvalidRemote: one of them is none.
    """

    url: str
    model: str
    version: str = ""

    def __post_init__(self) -> None:
        check_url(self.url)
        for name in ("model", "version"):
            value = getattr(self, name)
            if not isinstance(value, str) or len(value) > _MAX_LENGTH or not value.isprintable():
                raise InvalidRemote(f"{name}: must be printable text of at most {_MAX_LENGTH} characters")
        if not self.model:
            raise InvalidRemote("model: say what the model is called on that server")

    def to_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> RemoteModel:
        """Read what `to_json` wrote.

        Raises:
            InvalidRemote: it is not JSON, or a field is missing, unknown or malformed.
        """
        try:
            content: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRemote(f"is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise InvalidRemote('must be an object: {"url": ..., "model": ..., "version": ...}')
        if unknown := sorted(content.keys() - {"url", "model", "version"}):
            raise InvalidRemote(f"{unknown[0]}: is no field; there are url, model and version")
        if missing := [name for name in ("url", "model") if name not in content]:
            raise InvalidRemote(f"{missing[0]}: is missing")
        return cls(**content)


def check_url(url: object) -> str:
    """Return the address of a server.

    Raises:
        InvalidRemote: it is none.
    """
    if isinstance(url, str) and len(url) <= _MAX_LENGTH:
        found = _URL.fullmatch(url)
        if _SOCKET.fullmatch(url) or (found and 0 < int(found[1]) <= _MAX_PORT):
            return url
    raise InvalidRemote(f"url: {str(url)[:80]!r} is not grpc://host:port, grpcs://host:port or unix:/path")


def target_of(url: str) -> str:
    """Return what gRPC dials for the address of a server."""
    return url if url.startswith("unix:") else url.partition("://")[2]
