"""A runtime.yaml, with every scalar as it is written: the YAML number 3.10 would become 3.1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelyard.errors import MissingExtra

MAX_BYTES = 64 * 1024
MAX_DEPTH = 20
MAX_ALIASES = 100

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))


class RuntimeInvalid(Exception):
    """It is no YAML mapping that can be read safely."""


@dataclass(frozen=True)
class Runtime:
    """The parsed file; `root` holds dicts, lists, texts and None."""

    root: dict[str, Any]

    def get(self, *path: str) -> Any:
        """What stands at a path of keys; None when a key is missing or null, or something else stands in its way."""
        found: Any = self.root
        for key in path:
            if not isinstance(found, dict):
                return None
            found = found.get(key)
        return found


def parse(source: bytes) -> Runtime:
    """Read the file.

    Raises:
        RuntimeInvalid: not YAML, not one mapping, a key twice, too large or nested too deeply, too many aliases.
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("pyyaml", "oci") from error
    if len(source) > MAX_BYTES:
        raise RuntimeInvalid(f"the file is larger than {MAX_BYTES:,} bytes")
    try:
        text = source.decode("utf-8-sig")
        _check_shape(yaml, text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise RuntimeInvalid(f"it is not UTF-8: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise RuntimeInvalid(" ".join(str(error).split())) from error
    value = _Reader(yaml).value(node) if node is not None else None
    if not isinstance(value, dict):
        raise RuntimeInvalid("it does not hold a mapping of keys to values")
    return Runtime(value)


def _check_shape(yaml: Any, text: str) -> None:
    """Refuse what could cost more than its size, while only looking at one token after the other."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if depth > MAX_DEPTH:
            raise RuntimeInvalid(f"it is nested more than {MAX_DEPTH} levels deep")
        if aliases > MAX_ALIASES:
            raise RuntimeInvalid(f"it has more than {MAX_ALIASES} aliases")


class _Reader:
    """Makes values of nodes, each node once: aliases of aliases cost nothing, and cycles are refused."""

    def __init__(self, yaml: Any) -> None:
        self._yaml = yaml
        self._made: dict[int, Any] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        key = id(node)
        if key in self._made:
            return self._made[key]
        if key in self._open:
            raise RuntimeInvalid("an alias in it refers to what it stands in")
        self._open.add(key)
        made = self._made[key] = self._value(node)
        self._open.discard(key)
        return made

    def _value(self, node: Any) -> Any:
        if isinstance(node, self._yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, self._yaml.SequenceNode):
            return [self.value(item) for item in node.value]
        return None if node.style is None and node.value in _NULLS else node.value

    def _mapping(self, node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, self._yaml.ScalarNode):
                raise RuntimeInvalid(f"line {key.start_mark.line + 1}: a key is not a text")
            if key.value in found:
                raise RuntimeInvalid(f"line {key.start_mark.line + 1}: the key {key.value} is there twice")
            found[key.value] = self.value(item)
        return found
