"""The files of TLS: whom to trust and what to show; and why a server is not content with them."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, NoReturn

from modelyard.errors import ConfigurationError

HOW_TO_SHOW = (
    "client_certificate=… and client_key=… (`modelyard login --client-certificate FILE --client-key FILE`, or "
    "MODELYARD_CLIENT_CERTIFICATE and MODELYARD_CLIENT_KEY)"
)
HOW_TO_TRUST = "ca_certificate=… (`modelyard login --ca-certificate FILE`, or MODELYARD_CA_CERTIFICATE)"
_MARKS = {
    "ca_certificate": (b"CERTIFICATE-----", "certificate"),
    "client_certificate": (b"CERTIFICATE-----", "certificate"),
    "client_key": (b"PRIVATE KEY-----", "private key"),
}
_CONNECT_SECONDS = 3.0
# A server that refuses what it was shown says so at once; one that is content may say nothing.
_ALERT_SECONDS = 1.0
# What OpenSSL says of certificates that nobody who is trusted has issued.
_UNKNOWN_ISSUER = {18, 19, 20, 21}
_ALERTS = {"UNKNOWN_CA", "ACCESS_DENIED", "DECRYPT_ERROR"}


class Pem(NamedTuple):
    """What the files hold, in the order in which gRPC takes it."""

    roots: bytes | None
    key: bytes | None
    chain: bytes | None


@dataclass(frozen=True)
class TlsFiles:
    """Files (PEM) of a connection; without any the usual authorities are trusted, and nothing is shown."""

    ca_certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    @property
    def given(self) -> dict[str, Path]:
        """Those that there are, by the name of their argument."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in found.items() if path}

    def stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What is different after a file was replaced or written to, found without reading any."""
        return tuple(map(_stamp, self.given.values()))

    def read(self) -> Pem:
        """Read them, and prove that they can be used together.

        Raises:
            ConfigurationError: one is missing, unreadable or holds something else, or the key belongs to another certificate.
        """
        content = {name: _read(name, path) for name, path in self.given.items()}
        self.context()
        return Pem(*map(content.get, ("ca_certificate", "client_key", "client_certificate")))

    def context(self) -> ssl.SSLContext:
        """The same for Python's own TLS.

        Raises:
            ConfigurationError: as `read`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        try:
            if self.ca_certificate:
                context.load_verify_locations(self.ca_certificate)
            if self.client_certificate:
                context.load_cert_chain(self.client_certificate, self.client_key, self._password)
        except OSError as error:  # that of OpenSSL is one
            raise ConfigurationError(self._problem(error)) from error
        return context

    def _password(self) -> NoReturn:
        raise ConfigurationError(
            f"client_key {self.client_key} is encrypted; give a file without a password that only you may read"
        )

    def _problem(self, error: OSError) -> str:
        reason = str(getattr(error, "reason", "") or error.strerror or error)
        if reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            return f"client_key {self.client_key} does not fit client_certificate {self.client_certificate}"
        named = " and ".join(f"{name} {path}" for name, path in self.given.items())
        return f"{named} cannot be used: {reason}"


NO_FILES = TlsFiles()


def tls_files(
    ca_certificate: str | Path | None, client_certificate: str | Path | None, client_key: str | Path | None
) -> TlsFiles:
    """The files that a user named.

    Raises:
        ConfigurationError: of certificate and key only one is there.
    """
    if bool(client_certificate) != bool(client_key):
        alone, other = ("certificate", "key") if client_certificate else ("key", "certificate")
        raise ConfigurationError(f"client_{alone} needs client_{other}: give both or neither")
    paths = (ca_certificate, client_certificate, client_key)
    return TlsFiles(*(Path(path).expanduser().absolute() if path else None for path in paths))


def explain(address: str, files: TlsFiles) -> str:
    """Why TLS with `host:port` fails, found by trying it; empty if it does not, or the reason is another one.

    gRPC does not tell: under TLS 1.3 a server refuses what it was shown when the client is done, and all that gRPC sees is a
    connection that was closed.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        context = files.context()
        if not files.ca_certificate:
            context.load_default_certs()
        with (
            socket.create_connection((host, int(port)), _CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            wrapped.settimeout(_ALERT_SECONDS)
            closed = not wrapped.recv(1)
    except ConfigurationError as error:
        return str(error)
    except ssl.SSLError as error:
        return _explanation(f"https://{address}", files, error)
    except OSError:
        return ""  # nobody is there, or the server has nothing to say before it is asked
    # gRPC's own servers say nothing when they refuse.
    return f"https://{address} closes the connection; {_remedy(files, 'probably ')}" if closed else ""


def _explanation(target: str, files: TlsFiles, error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = f"; give the authority that issued it: {HOW_TO_TRUST}"
        known = error.verify_code not in _UNKNOWN_ISSUER
        return f"{target}: its certificate is not accepted: {error.verify_message}{'' if known else remedy}"
    if reason == "WRONG_VERSION_NUMBER":
        return f"{target} answers without TLS; write http://… and give no certificates"
    alert = reason.partition("_ALERT_")[2]
    if alert == "CERTIFICATE_REQUIRED":
        return f"{target}: {_remedy(TlsFiles())}"
    if files.client_certificate and ("CERTIFICATE" in alert or alert in _ALERTS):
        return f"{target}: {_remedy(files)} (it says: {alert.lower().replace('_', ' ')})"
    return ""


def _remedy(files: TlsFiles, surely: str = "") -> str:
    if not files.client_certificate:
        return f"it {surely}wants to see a certificate of its clients: give {HOW_TO_SHOW}"
    return (
        f"it {surely}refuses client_certificate {files.client_certificate}, which must be valid today and issued by an "
        f"authority that this gateway trusts: give another {HOW_TO_SHOW}"
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def _read(name: str, path: Path) -> bytes:
    mark, what = _MARKS[name]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name} {path} cannot be read: {error.strerror}") from error
    if mark not in content:
        raise ConfigurationError(f"{name} {path} holds no {what} in PEM form")
    return content
