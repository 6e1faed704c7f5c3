"""How bad it is that a pickle imports something."""

from __future__ import annotations

import re
from typing import NamedTuple

CRITICAL, HIGH, MEDIUM, LOW = "CRITICAL", "HIGH", "MEDIUM", "LOW"

_MODEL_PACKAGES = frozenset(
    (
        "catboost", "collections", "copy_reg", "copyreg", "datetime", "decimal", "joblib", "keras", "lightgbm", "mlxtend",
        "numpy", "pandas", "pathlib", "scipy", "sklearn", "statsmodels", "tensorflow", "torch", "torchvision", "transformers",
        "xgboost",
    )
)  # fmt: skip
_HARMLESS_BUILTINS = frozenset(
    (
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set", "slice",
        "str", "tuple", "unicode", "long", "xrange",
    )
)  # fmt: skip
_BUILTINS = frozenset(("builtins", "__builtin__"))
_REBUILDS = re.compile(
    r"(_+)?(pyx_unpickle\w*|re(build|construct)\w*|unpickle\w*|un?reduce\w*|new\w*|frombuffer|scalar|dtype|ndarray|random\w*"
    r"|\w*ctor|bool_?|bytes_|str_|void|(u?int|float|complex)(\d+|_)?|c?longdouble|datetime64|timedelta64|date|time|timedelta"
    r"|defaultdict|deque|OrderedDict|Counter)(_v\d+)?"
)


class Verdict(NamedTuple):
    """Severity and what it means."""

    severity: str
    description: str


HIDDEN = Verdict(CRITICAL, "the pickle imports something by a name that it makes up when it is loaded")


def judge(module: str, name: str, *, dangerous: bool) -> Verdict:
    """What an import in a pickle means; `dangerous` is what picklescan says."""
    if dangerous:
        return Verdict(CRITICAL, "loading the pickle calls this, which can run any code")
    package = module.partition(".")[0]
    if module in _BUILTINS:
        if name in _HARMLESS_BUILTINS:
            return Verdict(LOW, "a type of Python itself")
        return Verdict(HIGH, "loading the pickle can call this function of Python itself")
    if package in _MODEL_PACKAGES:
        if _is_a_class(name) or _REBUILDS.fullmatch(name):
            return Verdict(LOW, "a type or constructor of a package that models are made with")
        return Verdict(
            MEDIUM, "a function of a package that models are made with; pickles of models rarely call it"
        )
    return Verdict(MEDIUM, "comes from a package that is not known for models: loading the pickle imports it")


def _is_a_class(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.lstrip("_")[:1].isupper()
