"""Keys and certificates for tests, made on the spot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Key:
    """An elliptic curve key in files: `private` and `public`, and as PEM text."""

    def __init__(self, folder: Path, name: str = "key", curve: ec.EllipticCurve | None = None) -> None:
        self.secret = ec.generate_private_key(curve or ec.SECP256R1())
        self.pem = (
            self.secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        )
        self.private = folder / f"{name}.pem"
        self.private.write_bytes(self.secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.public = folder / f"{name}.pub"
        self.public.write_text(self.pem)


def certificate(
    folder: Path,
    key: Key,
    name: str,
    *,
    issuer: tuple[Key, Path] | None = None,
    lifetime: timedelta = timedelta(days=30),
) -> Path:
    """Write a certificate of a key: of an authority without `issuer`, else one that may sign code, issued by that authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority = x509.load_pem_x509_certificate(issuer[1].read_bytes()).subject if issuer else subject
    begin = datetime.now(UTC) - timedelta(days=60)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority)
        .public_key(key.secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(datetime.now(UTC) + lifetime)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        usage = x509.KeyUsage(True, *[False] * 8)
        builder = builder.add_extension(usage, critical=True)
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
        builder = builder.add_extension(purposes, critical=False)
    signed = builder.sign(issuer[0].secret if issuer else key.secret, hashes.SHA256())
    path = folder / f"{name}.crt"
    path.write_bytes(signed.public_bytes(Encoding.PEM))
    return path
