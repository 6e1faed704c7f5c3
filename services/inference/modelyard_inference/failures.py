"""Where a model failed, told without what it was given: whoever sees a deployment may read it, predictions may not be."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modelyard_inference.log_files import Level, Line, Wanted

LAST_FAILURES = Wanted(tail=20, min_level=Level.ERROR)
"""Lines of a log to look for failures in."""

_EVENT = "model_failed"
_PLACE = re.compile(
    r'^  File "(?:[^"\n]*[/\\])?([^"\n/\\]{1,100})", line (\d+), in (\S{1,100})$', re.MULTILINE
)
_KIND = re.compile(r"^([A-Za-z_][\w.]{0,99})(?=:|$)", re.MULTILINE)


def last_failure(lines: Iterable[Line]) -> str:
    """Return the kind and the place of the last failure of a model, `ValueError in model.py, line 12, in predict`; empty if none is known.

    Args:
        lines: of a replica's log, oldest first.
    """
    told = ""
    for line in lines:
        exception = line.attributes.get("exception", "")
        if line.message != _EVENT or not exception:
            continue
        places = list(_PLACE.finditer(exception))
        kind = _KIND.search(exception, places[-1].end()) if places else None
        if kind:
            file, number, function = places[-1].groups()
            told = f"{kind[1]} in {file}, line {number}, in {function}"
    return told
