"""The key that signs checkpoints and exports of the audit chain, and bundles (Ed25519)."""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from modelyard import auditing
from modelyard.errors import InvalidArgument
from modelyard.types import AuditCheckpoint, CheckpointPurpose
from modelyard_governance.secret_files import UnusableSecretError, create_once
from modelyard_governance.signing import warn_if_exposed

_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n?", re.DOTALL)


class AuditKey:
    """Signs with one private key, and knows the public ones that it replaced.

    Args:
        private: signs.
        replaced: PEMs of public keys whose checkpoints still count.
    """

    def __init__(self, private: Ed25519PrivateKey, replaced: Sequence[str] = ()) -> None:
        self._private = private
        public = private.public_key()
        self.key_id = auditing.key_id(public.public_bytes_raw())
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.pems = (pem.decode(), *replaced)
        self._keys = auditing.AuditKeys(self.pems)

    def sign(
        self, purpose: CheckpointPurpose, anchor: tuple[int, bytes], head: tuple[int, bytes], *, now: datetime
    ) -> AuditCheckpoint:
        """Return a signed statement that the chain goes from an anchor to a head, each a sequence and a hash."""
        unsigned = AuditCheckpoint(
            purpose=purpose,
            anchor_sequence=anchor[0],
            anchor_hash=anchor[1].hex(),
            sequence=head[0],
            hash=head[1].hex(),
            time=now,
            key_id=self.key_id,
        )
        return dataclasses.replace(unsigned, signature=self.sign_content(auditing.statement(unsigned)))

    def sign_content(self, content: bytes) -> str:
        """Return a signature in base64. The content says what it is for, so that it cannot stand for anything else."""
        return base64.b64encode(self._private.sign(content)).decode()

    def problem(self, checkpoint: AuditCheckpoint) -> str:
        """Return why the signature of a checkpoint does not count; empty when it does."""
        return self._keys.problem(checkpoint)

    def refuse(self, what: str, key_id: str, signature: str, signed: bytes) -> str:
        """Return why a signature does not count, calling what it is on `what`; empty when it does."""
        return self._keys.refuse(what, key_id, signature, signed)


def load_or_create_audit_key(path: Path) -> AuditKey:
    """Read the key file: the private key, then the public keys that it replaced; make one if there is none.

    Raises:
        UnusableSecretError: the file holds something else.
    """
    if not path.exists():
        private = Ed25519PrivateKey.generate()
        encoding = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        create_once(path, private.private_bytes(*encoding, serialization.NoEncryption()))
    blocks = [block.group() for block in _BLOCK.finditer(path.read_text())]
    try:
        key = serialization.load_pem_private_key("".join(blocks[:1]).encode(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableSecretError(f"{path}: the first key must be an Ed25519 private key")
        made = AuditKey(key, blocks[1:])
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidArgument) as error:
        raise UnusableSecretError(
            f"{path}: must hold an unencrypted Ed25519 private key in PEM, then public keys ({error})"
        ) from error
    warn_if_exposed(path)
    return made
