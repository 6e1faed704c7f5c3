"""Signatures, and whose count."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from modelyard.types._common import Resource


class TrustRootKind(StrEnum):
    """What a trust root is."""

    PUBLIC_KEY = "PUBLIC_KEY"
    CERTIFICATE = "CERTIFICATE"


@dataclass(frozen=True, kw_only=True)
class TrustRoot:
    """A key or certificate whose model signatures count on everything inside `resource`.

    `fingerprint` is `sha256:` and the SHA-256 of its DER form; only certificates have an `expire_time`.
    """

    id: str = ""
    resource: Resource | None = None
    name: str
    kind: TrustRootKind | None = None
    pem: str = ""
    fingerprint: str = ""
    expire_time: datetime | None = None
    create_time: datetime | None = None


class SignatureTrust(StrEnum):
    """Whether a trust root vouches for a signature."""

    TRUSTED = "TRUSTED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    NO_LONGER = "NO_LONGER"


@dataclass(frozen=True, kw_only=True)
class ArtifactSignature:
    """An OpenSSF model signature of an artifact.

    `signer` is `sha256:` and the SHA-256 of the PEM of the key, or the subject of the certificate; `trust_root` vouches for
    it, or did; `bundle` is the JSON that `model_signing verify` reads, empty for who may not read the files.
    """

    id: str = ""
    artifact_digest: str = ""
    signer: str = ""
    trust: SignatureTrust | None = None
    trust_root: str = ""
    bundle: str = ""
    create_time: datetime | None = None
