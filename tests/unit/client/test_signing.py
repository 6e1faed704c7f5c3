"""Signatures by digests, and their agreement with the reference command line on the same folder."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.signing import SIGNATURE_FILE, Root, SignatureProblem, Trust, examine, sign
from modelyard.types import FileEntry
from tests.framework.keys import Key, certificate

FILES = {"model.onnx": b"weights", "conf/a.json": b"{}", "ünïcode": b"", "README.md": b"read me"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    for path, data in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path)


def entries() -> list[FileEntry]:
    return [FileEntry(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in FILES.items()]


def digests(**changes: str) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in entries()} | changes


def trusted(key: Key) -> Root:
    return Root("team", key.pem, is_certificate=False)


def reference(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_reference_verifies_what_we_sign(folder: Path, key: Key) -> None:
    (folder / SIGNATURE_FILE).write_text(sign(entries(), name="iris", private_key=key.private))
    verify = ("verify", "key", folder, "--signature", folder / SIGNATURE_FILE, "--public_key", key.public)
    result = reference(*verify)
    assert result.returncode == 0, result.stderr
    (folder / "model.onnx").write_bytes(b"others")
    assert reference(*verify).returncode != 0


def test_we_verify_what_the_reference_signs(folder: Path, key: Key) -> None:
    signature = folder / SIGNATURE_FILE
    result = reference("sign", "key", folder, "--signature", signature, "--private_key", key.private)
    assert result.returncode == 0, result.stderr
    bundle = signature.read_text()
    files = digests(**{SIGNATURE_FILE: hashlib.sha256(bundle.encode()).hexdigest()})
    found = examine(bundle, files, [trusted(key)])
    assert (found.trust, found.root) == (Trust.TRUSTED, "team")


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_each_curve(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    key = Key(tmp_path, curve=curve)
    bundle = sign(entries(), name="iris", private_key=key.private)
    assert examine(bundle, digests(), [trusted(key)]).trust is Trust.TRUSTED


def test_a_key_that_nobody_trusts(tmp_path: Path, key: Key) -> None:
    bundle = sign(entries(), name="iris", private_key=key.private)
    other = Key(tmp_path, "other")
    hint = hashlib.sha256(key.pem.encode()).hexdigest()
    found = examine(bundle, digests(), [trusted(other)])
    assert (found.signer, found.trust, found.root) == (f"sha256:{hint}", Trust.UNKNOWN_KEY, "")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (digests(**{"model.onnx": "0" * 64}), "another content of 'model.onnx'"),
        (digests(extra="0" * 64), "does not sign 'extra'"),
        ({"model.onnx": digests()["model.onnx"]}, "signs 'README.md', which the artifact does not have"),
    ],
    ids=["changed", "added", "removed"],
)
def test_other_files(key: Key, files: dict[str, str], problem: str) -> None:
    bundle = sign(entries(), name="iris", private_key=key.private)
    with pytest.raises(SignatureProblem, match=problem):
        examine(bundle, files, [trusted(key)])


def test_a_signature_of_somebody_else_under_a_trusted_name(tmp_path: Path, key: Key) -> None:
    forger = Key(tmp_path, "forger")
    document = json.loads(sign(entries(), name="iris", private_key=forger.private))
    document["verificationMaterial"]["publicKey"]["hint"] = hashlib.sha256(key.pem.encode()).hexdigest()
    with pytest.raises(SignatureProblem, match="not made with the key"):
        examine(json.dumps(document), digests(), [trusted(key)])


def test_what_is_left_out_cannot_be_a_part_of_the_model(folder: Path, key: Key, tmp_path: Path) -> None:
    signature = tmp_path / "out.sig"
    ignored = ("--ignore-paths", folder / "model.onnx")
    result = reference(
        "sign", "key", folder, "--signature", signature, "--private_key", key.private, *ignored
    )
    assert result.returncode == 0, result.stderr
    with pytest.raises(SignatureProblem, match="leaves 'model.onnx' out"):
        examine(signature.read_text(), digests(), [trusted(key)])


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "not json", '{"verificationMaterial": {}}', "[" * 100_000], ids=range(7)
)
def test_no_signature_at_all(text: str) -> None:
    with pytest.raises(SignatureProblem):
        examine(text, digests(), [])


def test_certificates(tmp_path: Path, key: Key) -> None:
    authority = Key(tmp_path, "authority")
    root = certificate(tmp_path, authority, "root")
    leaf = certificate(tmp_path, key, "ada", issuer=(authority, root))
    bundle = sign(entries(), name="iris", private_key=key.private, certificate=leaf)
    found = examine(bundle, digests(), [Root("company", root.read_text(), is_certificate=True)])
    assert (found.signer, found.trust, found.root) == ("CN=ada", Trust.TRUSTED, "company")
    stranger = certificate(tmp_path, Key(tmp_path, "stranger"), "stranger")
    found = examine(bundle, digests(), [Root("stranger", stranger.read_text(), is_certificate=True)])
    assert (found.trust, found.root) == (Trust.UNKNOWN_KEY, "")


def test_a_certificate_that_ran_out(tmp_path: Path, key: Key) -> None:
    authority = Key(tmp_path, "authority")
    root = certificate(tmp_path, authority, "root")
    leaf = certificate(tmp_path, key, "ada", issuer=(authority, root), lifetime=-timedelta(days=1))
    bundle = sign(entries(), name="iris", private_key=key.private, certificate=leaf)
    found = examine(bundle, digests(), [Root("company", root.read_text(), is_certificate=True)])
    assert found.trust is Trust.EXPIRED
