"""Named installations and the tokens for them, kept in the home directory.

`~/.modelyard` (or MODELYARD_HOME) is a folder of mode 0700, `contexts.json` in it a file of mode 0600, replaced in one step.
MODELYARD_TARGET and MODELYARD_TOKEN override the context, and so do MODELYARD_CA_CERTIFICATE, and MODELYARD_CLIENT_CERTIFICATE
with MODELYARD_CLIENT_KEY; MODELYARD_CONTEXT chooses one.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard._channel import DEFAULT_TARGET
from modelyard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE_NAME = "contexts.json"


@dataclass(frozen=True)
class Context:
    """How to reach one installation, as whom."""

    target: str = DEFAULT_TARGET
    token: str = field(default="", repr=False)
    ca_certificate: str = ""
    insecure: bool = False
    client_certificate: str = ""
    client_key: str = ""

    def connection(self) -> dict[str, Any]:
        """The arguments for a client."""
        return asdict(self)


@dataclass(frozen=True)
class Contexts:
    """All saved contexts and the name of the current one (empty when there is none)."""

    current: str = ""
    by_name: Mapping[str, Context] = field(default_factory=dict)


def home() -> Path:
    """The home directory of Modelyard; not made by this."""
    return Path(os.environ.get("MODELYARD_HOME") or "~/.modelyard").expanduser()


def read() -> Contexts:
    """The saved contexts.

    Raises:
        ConfigurationError: others may read the file, or it is damaged.
    """
    path = home() / FILE_NAME
    try:
        with path.open(encoding="utf-8") as file:
            _refuse_if_shared(path, os.fstat(file.fileno()))
            data = json.load(file)
        contexts = {name: _parse(name, saved) for name, saved in data["contexts"].items()}
        current = data.get("current", "")
        return Contexts(current if current in contexts else "", contexts)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"{path} is damaged ({error}); remove it and run `modelyard login` again"
        ) from error


def save(name: str, context: Context, *, make_current: bool = True) -> Path:
    """Add or replace a context; returns the file."""
    if not name or not name.replace("-", "").replace("_", "").isalnum():
        raise ConfigurationError(f"context name {name!r}: use letters, digits, '-' and '_'")
    contexts = read()
    current = name if make_current or not contexts.current else contexts.current
    return _write(Contexts(current, {**contexts.by_name, name: context}))


def remove(name: str) -> None:
    """Forget a context.

    Raises:
        ConfigurationError: there is none of that name.
    """
    contexts = read()
    _get(contexts, name)
    left = {key: value for key, value in contexts.by_name.items() if key != name}
    current = contexts.current if contexts.current != name else next(iter(left), "")
    _write(Contexts(current, left))


def use(name: str) -> Context:
    """Make a context the current one.

    Raises:
        ConfigurationError: there is none of that name.
    """
    contexts = read()
    context = _get(contexts, name)
    _write(Contexts(name, contexts.by_name))
    return context


def resolve(name: str | None = None) -> Context:
    """The context to use: `name`, else MODELYARD_CONTEXT, else the current one; then the environment's overrides.

    Raises:
        ConfigurationError: there is none, or the environment names a client certificate without its key.
    """
    environment = os.environ
    target, token = environment.get("MODELYARD_TARGET", ""), environment.get("MODELYARD_TOKEN", "")
    name = name or environment.get("MODELYARD_CONTEXT")
    if target and token and not name:
        return _with_files(Context(target, token))
    contexts = read()
    name = name or contexts.current
    if not name:
        if target or token:
            return _with_files(Context(target or DEFAULT_TARGET, token))
        raise ConfigurationError(
            "no context is saved; start an installation with `modelyard up`, or connect to one with `modelyard login`"
        )
    saved = _get(contexts, name)
    if target and target != saved.target:
        # The saved token is for the saved target and must not reach another one.
        return _with_files(Context(target, token))
    return _with_files(replace(saved, token=token or saved.token))


def read_secret(path: Path) -> str:
    """The text of a file that only its owner may read.

    Raises:
        ConfigurationError: others may read it, or it cannot be read at all.
    """
    try:
        with path.expanduser().open(encoding="utf-8") as file:
            _refuse_if_shared(path, os.fstat(file.fileno()))
            return file.read().strip()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error


def _with_files(context: Context) -> Context:
    """The context with the certificates that the environment names."""
    ca, certificate, key = (
        os.environ.get(f"MODELYARD_{name}", "")
        for name in ("CA_CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
    )
    if bool(certificate) != bool(key):
        raise ConfigurationError(
            "MODELYARD_CLIENT_CERTIFICATE and MODELYARD_CLIENT_KEY belong together: set both or neither"
        )
    return replace(
        context,
        ca_certificate=ca or context.ca_certificate,
        client_certificate=certificate or context.client_certificate,
        client_key=key or context.client_key,
    )


def _get(contexts: Contexts, name: str) -> Context:
    try:
        return contexts.by_name[name]
    except KeyError:
        known = ", ".join(sorted(contexts.by_name)) or "none is saved"
        raise ConfigurationError(f"context {name!r} is not known ({known})") from None


def _parse(name: str, saved: dict[str, Any]) -> Context:
    """One saved context; fields of newer versions are passed over."""
    known = {f.name: type(f.default) for f in fields(Context)}
    values = {key: value for key, value in saved.items() if key in known}
    for key, value in values.items():
        if not isinstance(value, known[key]):
            raise TypeError(f"{name}.{key} is no {known[key].__name__}")
    return Context(**values)


def _write(contexts: Contexts) -> Path:
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "current": contexts.current,
        "contexts": {name: asdict(context) for name, context in contexts.by_name.items()},
    }
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{FILE_NAME}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        path = folder / FILE_NAME
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def _refuse_if_shared(path: Path, status: os.stat_result) -> None:
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"{path} holds a secret and others may read it; run: chmod 600 {path}")
