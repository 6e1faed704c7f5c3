"""Checks the signatures of an artifact right before it is loaded, from the files as they lie on this machine's disk.

    a signature that does not sign exactly these files      refused, always
    trusted by a trust root                                 loaded: TRUSTED
    trusted once: its root is gone, its certificate ran out refused, unless another signature is trusted
    made with a key that nobody named                       loaded: UNKNOWN_KEY
    none                                                    loaded: UNSIGNED

A deployment or an installation may require a trusted one; then the last two are refused as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from modelyard.errors import MissingExtra
from modelyard.signing import Examined, SignatureProblem, Trust, examine
from modelyard_inference.evidence import Evidence, SignatureState, Verdict
from modelyard_inference.runtimes import LoadError


def verify(directory: Path, evidence: Evidence, *, required: bool) -> Verdict:
    """Return what the signatures of the files in a folder are worth.

    Args:
        directory: the files of the artifact.
        evidence: its signatures, and what is trusted.
        required: whether only a trusted signature will do.

    Raises:
        LoadError: these files must not be loaded; the text says why and what to do.
    """
    verdict = _verdict(directory, evidence) if evidence.bundles else Verdict(SignatureState.UNSIGNED)
    if required and verdict.state is not SignatureState.TRUSTED:
        found = {
            SignatureState.UNSIGNED: "the artifact is not signed",
            SignatureState.UNKNOWN_KEY: f"no trust root vouches for its signer {verdict.signer}",
        }[verdict.state]
        raise LoadError(
            f"a trusted signature is required here, and {found}: sign it with a trusted key, "
            "or add a trust root for the model"
        )
    return verdict


def _verdict(directory: Path, evidence: Evidence) -> Verdict:
    files = _digests(directory)
    unknown, lost = "", ""
    trusted: Examined | None = None
    for bundle in evidence.bundles:
        try:
            found = examine(bundle.text, files, evidence.roots)
        except SignatureProblem as error:
            raise LoadError(
                f"a signature of the artifact {error}. If the copy in {directory} was changed, "
                "delete that folder and it is downloaded again"
            ) from error
        except MissingExtra as error:
            raise LoadError(f"the artifact is signed, and checking that needs more: {error}") from error
        if found.trust is Trust.TRUSTED:
            trusted = trusted or found
        elif found.trust is Trust.EXPIRED:
            lost = f"the certificate of its signer {found.signer}, or of the issuer, ran out"
        elif bundle.trusted_by:
            lost = f"trust root {bundle.trusted_by!r} vouched for its signer {found.signer} and is gone"
        else:
            unknown = unknown or found.signer
    if trusted:
        return Verdict(SignatureState.TRUSTED, trusted.signer, trusted.root)
    if lost:
        raise LoadError(f"the signature of the artifact is no longer trusted: {lost}")
    return Verdict(SignatureState.UNKNOWN_KEY, unknown)


def _digests(directory: Path) -> Mapping[str, str]:
    """Return the SHA-256 of every file in a folder, by path."""
    found = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise LoadError(
                f"{name!r} in {directory} is neither file nor folder, which no artifact has: "
                "delete that folder and it is downloaded again"
            )
        if path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
