"""Which file of an artifact a runtime loads."""

from __future__ import annotations

from pathlib import Path

from modelyard_inference.runtimes import LoadError


def find_file(directory: Path, *names: str, suffix: str, runtime: str) -> Path:
    """Return the file at the root of an artifact that has one of the names, else the only one with the suffix.

    People log `iris.onnx`: a suffix that no other files have tells enough, as it told `log_model`.

    Args:
        directory: of the artifact.
        names: in order of preference.
        suffix: with its dot.
        runtime: how messages call it.

    Raises:
        LoadError: there is none, or there are several.
    """
    for name in names:
        if (directory / name).is_file():
            return directory / name
    found = sorted(path for path in directory.glob(f"*{suffix}") if path.is_file())
    if len(found) == 1:
        return found[0]
    wanted = " or ".join(names)
    if not found:
        raise LoadError(f"the artifact has no {wanted}, which the {runtime} runtime loads")
    raise LoadError(
        f"the artifact has {', '.join(path.name for path in found)}: call the one that the {runtime} runtime loads {names[0]}"
    )
