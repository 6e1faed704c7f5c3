"""Signatures of models in the format of the OpenSSF: made from digests, and checked against digests.

A signature is a Sigstore bundle over an in-toto statement that lists every file with its SHA-256; the format is
`https://model_signing/signature/v1.0`. What `sign` makes, the reference command line (`model_signing verify`) accepts for the
downloaded folder, and what `model_signing sign` makes for a folder, `examine` accepts for the artifact. The digests are those
that uploads are announced with, so no file is read twice. Needs the extra: `pip install "modelyard[signing]"`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from modelyard.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from modelyard.types import FileEntry

SIGNATURE_FILE = "model.sig"
"""Where the reference command line puts the signature of a folder; never part of what is signed."""

# What a signature may leave out without leaving out something of the model; the reference command line does by default.
_IGNORED = frozenset((SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore"))


class SignatureProblem(ValueError):
    """It is not a signature of these files; the message says why."""


class Trust(StrEnum):
    """What a check against trust roots says."""

    TRUSTED = "TRUSTED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True)
class Root:
    """A public key or a certificate that is trusted, as PEM."""

    name: str
    pem: str
    is_certificate: bool


@dataclass(frozen=True)
class Examined:
    """What was found out about a signature of the right files.

    Attributes:
        signer: `sha256:` and the hint of the key that the bundle names, or the subject of the certificate.
        trust: whether a trust root vouches for it.
        root: name of that trust root; "" without one.
    """

    signer: str
    trust: Trust
    root: str = ""


def sign(
    files: Iterable[FileEntry],
    *,
    name: str,
    private_key: str | Path,
    password: str | None = None,
    certificate: str | Path | None = None,
    chain: Sequence[str | Path] = (),
) -> str:
    """Sign files by their digests and return the bundle as JSON.

    Args:
        files: All files of the artifact; a signature among them stays out.
        name: What the statement calls the model.
        private_key: PEM file of an elliptic curve key on P-256, P-384 or P-521.
        password: Of the key file, if it has one.
        certificate: PEM file of a certificate of the key: it goes into the bundle, and trust in its issuer is enough.
        chain: PEM files of certificates between that one and the issuer that others trust.

    Raises:
        MissingExtra: `pip install 'modelyard[signing]'`.
        ValueError: the key cannot sign models, or certificate and key do not belong together.
    """
    library = _Library()
    key = Path(private_key)
    if certificate is None:
        signer = library.keys.Signer(key, password.encode() if password else None)
    else:
        # The library wants a chain; the certificate once more says nothing new.
        paths = [Path(path) for path in chain or (certificate,)]
        signer = library.certificates.Signer(key, Path(certificate), paths)
    items = [
        library.manifest.FileManifestItem(path=PurePosixPath(file.path), digest=library.digest(file.sha256))
        for file in files
        if file.path != SIGNATURE_FILE
    ]
    kind = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
    ignored = {"ignore_paths": sorted(_IGNORED)}
    serialization = library.manifest.SerializationType.from_args(kind | ignored)
    signed = signer.sign(library.signing.Payload(library.manifest.Manifest(name, items, serialization)))
    text: str = signed.bundle.to_json()
    return text


def examine(bundle: str, files: Mapping[str, str], roots: Iterable[Root]) -> Examined:
    """Check that a signature signs exactly these files, and who vouches for its key.

    Args:
        bundle: The signature, JSON.
        files: SHA-256 of every file, by path.
        roots: What is trusted.

    Raises:
        MissingExtra: `pip install 'modelyard[signing]'`.
        SignatureProblem: it is not a signature, not of these files, or not made with the key that it names.
    """
    library = _Library()
    with _problems("is not a signature in the format of model_signing"):
        signature = library.read(bundle)
        material = signature.bundle.verification_material
        payload = json.loads(signature.bundle.dsse_envelope.payload)
        signed = library.signing.dsse_payload_to_manifest(payload)
    _require_same(signed, files)
    if material.x509_certificate_chain is not None:
        return _by_certificate(library, signature, roots)
    if material.public_key is not None:
        return _by_key(library, signature, roots)
    raise SignatureProblem(
        "is made with neither key nor certificate; keyless signatures need a network to be checked"
    )


def _require_same(signed: Any, files: Mapping[str, str]) -> None:
    kind = signed.serialization_type
    if kind.get("method") != "files" or kind.get("hash_type", "sha256") != "sha256":
        raise SignatureProblem(
            "does not list whole files by SHA-256: sign with the defaults of model_signing"
        )
    left_out = [str(path) for path in kind.get("ignore_paths", ()) if str(path) not in _IGNORED]
    if left_out:
        raise SignatureProblem(f"leaves {left_out[0]!r} out, which may be part of the model")
    listed = {each.identifier: each.digest for each in signed.resource_descriptors()}
    if any(digest.algorithm != "sha256" for digest in listed.values()):
        raise SignatureProblem("lists files by another digest than SHA-256")
    actual = {path: sha256 for path, sha256 in files.items() if path.partition("/")[0] not in _IGNORED}
    for path in sorted(listed.keys() | actual.keys()):
        if path not in actual:
            raise SignatureProblem(f"signs {path!r}, which the artifact does not have")
        if path not in listed:
            raise SignatureProblem(f"does not sign {path!r}")
        if listed[path].digest_hex != actual[path]:
            raise SignatureProblem(f"signs another content of {path!r}")


def _by_key(library: _Library, signature: Any, roots: Iterable[Root]) -> Examined:
    hint = signature.bundle.verification_material.public_key.hint or ""
    signer = f"sha256:{hint}" if hint else "unnamed key"
    for root in roots:
        if root.is_certificate or (hint and hint != _hint(root.pem)):
            continue
        if _verifies(library.keys.Verifier, root, signature):
            return Examined(f"sha256:{_hint(root.pem)}", Trust.TRUSTED, root.name)
        if hint:
            raise SignatureProblem(f"was not made with the key that it names ({root.name})")
    return Examined(signer, Trust.UNKNOWN_KEY)


def _by_certificate(library: _Library, signature: Any, roots: Iterable[Root]) -> Examined:
    from cryptography import x509

    chain = signature.bundle.verification_material.x509_certificate_chain.certificates
    with _problems("holds a certificate that cannot be read"):
        leaf = x509.load_der_x509_certificate(chain[0].raw_bytes)
    with _problems("was not made with the key of its certificate"):
        library.verify_with(leaf.public_key(), signature)
    signer = leaf.subject.rfc4514_string()
    for root in roots:
        if root.is_certificate and _verifies(
            lambda path: library.certificates.Verifier([path]), root, signature
        ):
            authority = x509.load_pem_x509_certificate(root.pem.encode())
            ends = min(leaf.not_valid_after_utc, authority.not_valid_after_utc)
            trust = Trust.TRUSTED if datetime.now(UTC) < ends else Trust.EXPIRED
            return Examined(signer, trust, root.name)
    return Examined(signer, Trust.UNKNOWN_KEY)


def _verifies(verifier: Callable[[Path], Any], root: Root, signature: Any) -> bool:
    with tempfile.TemporaryDirectory(prefix="modelyard-trust-") as folder:
        path = Path(folder) / "root.pem"  # the library reads trust roots from files only
        path.write_text(root.pem)
        try:
            verifier(path).verify(signature)
        except Exception:  # noqa: BLE001 - the library raises what its parts raise; all of it means no
            return False
    return True


@contextmanager
def _problems(message: str) -> Iterator[None]:
    """Turn whatever the library's parts raise about a malformed bundle into one kind of error."""
    try:
        yield
    except SignatureProblem:
        raise
    except Exception as error:
        raise SignatureProblem(f"{message}: {error}" if str(error) else message) from error


def _hint(pem: str) -> str:
    """How bundles of model_signing name a public key: by the SHA-256 of its PEM."""
    return hashlib.sha256(pem.encode()).hexdigest()


class _Library:
    """What is used of model_signing, which is not all public: its own interface reads files again that are hashed already."""

    def __init__(self) -> None:
        try:
            from model_signing import manifest
            from model_signing._hashing import hashing
            from model_signing._signing import sign_certificate, sign_ec_key, sign_sigstore_pb, signing
        except ImportError as error:
            raise MissingExtra("model-signing", "signing") from error
        self.manifest: Any = manifest
        self.signing: Any = signing
        self.keys: Any = sign_ec_key
        self.certificates: Any = sign_certificate
        self._bundles: Any = sign_sigstore_pb
        self._hashing: Any = hashing

    def digest(self, sha256: str) -> Any:
        """Return a digest as the library has it."""
        return self._hashing.Digest("sha256", bytes.fromhex(sha256))

    def read(self, bundle: str) -> Any:
        """Return a signature as the library has it."""
        with tempfile.TemporaryDirectory(prefix="modelyard-signature-") as folder:
            path = Path(folder) / SIGNATURE_FILE  # the library reads signatures from files only
            path.write_text(bundle)
            return self._bundles.Signature.read(path)

    def verify_with(self, key: Any, signature: Any) -> None:
        """Raise unless a public key made a signature."""
        from cryptography.hazmat.primitives.asymmetric import ec

        envelope = signature.bundle.dsse_envelope
        scheme = ec.ECDSA(self.keys.get_ec_key_hash(key))
        key.verify(envelope.signatures[0].sig, self._bundles.pae(envelope.payload), scheme)
