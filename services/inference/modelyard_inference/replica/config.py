"""What the launcher tells a replica: a JSON file, mode 0600, and what the replica answers beside it: a status file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from modelyard_inference.evidence import Evidence, SignatureState, Verdict
from modelyard_inference.log_policy import SILENT, LogPolicy
from modelyard_inference.runtimes.signature import Signature

WAITING: Final = "waiting"
"""State in the status file of a replica that does not answer because the server which runs its model does not."""
_SOCKET_PATH_BYTES: Final = 103  # sun_path of macOS; Linux allows four more
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_LOG_FORMATS: Final = ("json", "console")


@dataclass(frozen=True)
class ReplicaConfig:
    """Everything one replica needs to know."""

    deployment: str
    """Name of the deployment, the `model_name` of predictions."""
    model: str
    """Full name of the model, `prod.ml.iris`."""
    version: int
    """Number of the version."""
    artifact_digest: str
    """Digest of the artifact that was unpacked into `model_directory`."""
    model_directory: Path
    """Local folder with the artifact's files."""
    runtime: str
    """Name of the runtime; see `runtimes.RUNTIMES`."""
    signature: Signature
    """The methods of the version."""
    listen: str
    """`unix:/path` of the socket; its folder is made with mode 0700."""
    evidence: Evidence = field(default_factory=Evidence)
    """What the signatures of the artifact are checked by."""
    require_signature: bool = False
    """Whether only an artifact with a trusted signature is loaded."""
    allow_code: bool = False
    """Whether code that the artifact brings may run; see `runtimes.RUN_CODE`."""
    backends_file: str = ""
    """File of the servers that predictions may be passed on to; see `replica.backends`."""
    max_request_bytes: int = 64 * 1024 * 1024
    """Largest request body."""
    max_queue_rows: int = 10_000
    """Rows that may wait for the model."""
    max_batch_rows: int = 1024
    """Rows of one run of the model; a larger request runs alone."""
    batch_delay_seconds: float = 0.0
    """How long an idle replica waits for company for a request; 0 batches what waited while the model ran."""
    threads: int = 1
    """Threads one prediction may use, where the runtime can tell."""
    instances: int = 1
    """Copies of the model, which predict at the same time, each in a thread."""
    cpus: int = 0
    """Cores it may use; the launcher sees to it. 0 for any."""
    memory_bytes: int = 0
    """Memory it may use; the launcher sees to it. 0 for no bound."""
    drain_seconds: float = 30.0
    """Longest time to finish predictions when stopping."""
    server_name: str = "modelyard"
    """Name that ServerMetadata answers."""
    log_level: str = "info"
    """Least level that is logged."""
    log_format: str = "json"
    """`json` or `console`; a log file is always JSON."""
    log_file: str = ""
    """File that standard output and error are open as, if it is to be kept small and to hold what is printed as lines."""
    log_policy: LogPolicy = SILENT
    """What is written down about predictions, beside the log file; can be changed while it runs."""
    otlp_endpoint: str = ""
    """OTLP/gRPC collector; if set, predictions that carry a `traceparent` become spans."""

    def __post_init__(self) -> None:
        problems = [f"{name}: must not be empty" for name in _TEXTS if not getattr(self, name)]
        problems += [f"{name}: must be at least 1" for name in _COUNTS if getattr(self, name) < 1]
        at_least_0 = (*_SECONDS, *_BOUNDS)
        problems += [f"{name}: must not be negative" for name in at_least_0 if getattr(self, name) < 0]
        if not self.listen.startswith("unix:/"):
            problems.append(f"listen: must be unix:/path, not {self.listen!r}")
        elif len(os.fsencode(self.socket)) > _SOCKET_PATH_BYTES:
            problems.append(
                f"listen: the path of a socket has at most {_SOCKET_PATH_BYTES} bytes: {self.socket}"
            )
        if self.log_level not in _LOG_LEVELS:
            problems.append(f"log_level: must be one of {', '.join(_LOG_LEVELS)}")
        if self.log_format not in _LOG_FORMATS:
            problems.append(f"log_format: must be one of {', '.join(_LOG_FORMATS)}")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def socket(self) -> Path:
        """Path of the socket."""
        return Path(self.listen.removeprefix("unix:"))

    def to_json(self) -> dict[str, Any]:
        """Return the content of the configuration file."""
        value = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **value,
            "model_directory": str(self.model_directory),
            "signature": self.signature.to_json(),
            "evidence": self.evidence.to_json(),
            "log_policy": asdict(self.log_policy),
        }

    @classmethod
    def from_json(cls, value: Any) -> ReplicaConfig:
        """Read what `to_json` returns.

        Raises:
            ValueError: naming every field that is missing, unknown or of the wrong type.
        """
        if not isinstance(value, Mapping):
            raise ValueError("the configuration must be a JSON object")  # noqa: TRY004
        known = {each.name for each in fields(cls)}
        problems = [f"{name}: is no setting of a replica" for name in value if name not in known]
        problems += [f"{name}: is missing" for name in _REQUIRED if name not in value]
        problems += [
            f"{name}: must be {_article(wanted)}"
            for name, wanted in _TYPES.items()
            if name in value and type(value[name]) not in wanted
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return cls(
            **{
                **value,
                "model_directory": Path(value["model_directory"]),
                "signature": Signature.from_json(value["signature"]),
                "evidence": Evidence.from_json(value["evidence"]) if "evidence" in value else Evidence(),
                "log_policy": LogPolicy.from_json(value.get("log_policy", {})),
            }
        )

    @classmethod
    def load(cls, path: Path) -> ReplicaConfig:
        """Read the file at `path`.

        Raises:
            OSError: if it cannot be read.
            ValueError: as `from_json`, or if it is not JSON.
        """
        return cls.from_json(json.loads(path.read_text("utf-8")))

    def dump(self, path: Path) -> None:
        """Write the file at `path`, mode 0600, all at once."""
        write_private(path, json.dumps(self.to_json(), indent=2) + "\n")


_TEXTS: Final = ("deployment", "model", "artifact_digest", "runtime", "server_name")
_COUNTS: Final = ("version", "max_request_bytes", "max_queue_rows", "max_batch_rows", "threads", "instances")
_SECONDS: Final = ("batch_delay_seconds", "drain_seconds")
_BOUNDS: Final = ("cpus", "memory_bytes")
_REQUIRED: Final = (
    "deployment", "model", "version", "artifact_digest", "model_directory", "runtime", "signature", "listen",
)  # fmt: skip
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(
        (
            *_TEXTS,
            "model_directory",
            "listen",
            "log_level",
            "log_format",
            "log_file",
            "otlp_endpoint",
            "backends_file",
        ),
        (str,),
    ),
    **dict.fromkeys((*_COUNTS, *_BOUNDS), (int,)),
    **dict.fromkeys(_SECONDS, (int, float)),
    **dict.fromkeys(("signature", "evidence", "log_policy"), (dict,)),
    **dict.fromkeys(("require_signature", "allow_code"), (bool,)),
}


def status_path(config_path: Path) -> Path:
    """Return where the replica of a configuration file writes its status."""
    return config_path.with_name(config_path.name + ".status")


def write_status(config_path: Path, state: str, message: str = "", *, verdict: Verdict | None = None) -> None:
    """Write `{"state", "message", "process_id", "verdict"}`; the state is loading, ready, waiting, draining or failed."""
    content = {
        "state": state,
        "message": message,
        "process_id": os.getpid(),
        "verdict": asdict(verdict) if verdict else None,
    }
    write_private(status_path(config_path), json.dumps(content) + "\n")


def read_status(config_path: Path) -> dict[str, Any]:
    """Return the status, or `{}` while there is none."""
    try:
        value: dict[str, Any] = json.loads(status_path(config_path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value


def read_verdict(config_path: Path) -> Verdict | None:
    """Return what a replica says about the signatures of its artifact, or None as long as it does not."""
    given = read_status(config_path).get("verdict")
    if not given:
        return None
    return Verdict(SignatureState(given["state"]), given["signer"], given["trust_root"])


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 by renaming, so that readers see the old or the new content."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)


def _article(types: tuple[type, ...]) -> str:
    return {str: "text", int: "a whole number", float: "a number", dict: "an object", bool: "true or false"}[
        types[-1]
    ]
