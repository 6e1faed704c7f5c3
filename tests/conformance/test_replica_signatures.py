"""What a replica says of the signatures of the files on its disk before it loads them: the real check, on real signatures."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard.signing import Root, sign
from modelyard.types import FileEntry
from modelyard_inference.evidence import Bundle, Evidence, SignatureState, Verdict
from modelyard_inference.replica.verification import verify
from modelyard_inference.runtimes import LoadError
from tests.framework.keys import Key, certificate

FILES = {"model.onnx": b"weights", "conf/a.json": b"{}"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path)


def signed(key: Key, **options: Any) -> str:
    entries = [FileEntry(p, len(data), hashlib.sha256(data).hexdigest()) for p, data in FILES.items()]
    return sign(entries, name="prod.ml.iris", private_key=key.private, **options)


def root(key: Key, name: str = "team") -> Root:
    return Root(name, key.pem, is_certificate=False)


def by_authority(tmp_path: Path, key: Key, **options: Any) -> tuple[str, Root]:
    """Return a signature by a certificate, and the trust root of its issuer."""
    authority = Key(tmp_path, "authority")
    issuer = certificate(tmp_path, authority, "authority")
    leaf = certificate(tmp_path, key, "ada", issuer=(authority, issuer), **options)
    bundle = signed(key, certificate=leaf, chain=[issuer])
    return bundle, Root("house", issuer.read_text(), is_certificate=True)


def test_a_trusted_signature(model: Path, key: Key) -> None:
    found = verify(model, Evidence((Bundle(signed(key)),), (root(key),)), required=True)
    fingerprint = f"sha256:{hashlib.sha256(key.pem.encode()).hexdigest()}"
    assert found == Verdict(SignatureState.TRUSTED, fingerprint, "team")


def test_a_signature_by_a_trusted_certificate(model: Path, key: Key, tmp_path: Path) -> None:
    bundle, house = by_authority(tmp_path, key)
    found = verify(model, Evidence((Bundle(bundle),), (house,)), required=True)
    assert found == Verdict(SignatureState.TRUSTED, "CN=ada", "house")


def test_an_unsigned_artifact_is_loaded_unless_a_signature_is_required(model: Path) -> None:
    assert verify(model, Evidence(), required=False) == Verdict(SignatureState.UNSIGNED)
    with pytest.raises(LoadError, match="required here, and the artifact is not signed: sign it"):
        verify(model, Evidence(), required=True)


def test_an_unknown_signer_is_loaded_unless_a_trusted_one_is_required(model: Path, key: Key) -> None:
    evidence = Evidence((Bundle(signed(key)),))
    found = verify(model, evidence, required=False)
    assert (found.state, found.trust_root) == (SignatureState.UNKNOWN_KEY, "")
    with pytest.raises(LoadError, match=f"no trust root vouches for its signer {found.signer}"):
        verify(model, evidence, required=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda model: (model / "model.onnx").write_bytes(b"poison!"),
            "signs another content of 'model.onnx'",
        ),
        (lambda model: (model / "conf/a.json").unlink(), "signs 'conf/a.json', which the artifact does not"),
        (lambda model: (model / "more.py").write_bytes(b""), "does not sign 'more.py'"),
        (lambda model: (model / "way").symlink_to("/etc"), "'way' in .* is neither file nor folder"),
    ],
)
@pytest.mark.parametrize("trusted", [True, False])
def test_a_changed_copy_is_never_loaded(
    model: Path, key: Key, change: Any, message: str, *, trusted: bool
) -> None:
    evidence = Evidence((Bundle(signed(key)),), (root(key),) if trusted else ())
    change(model)
    with pytest.raises(LoadError, match=message) as refused:
        verify(model, evidence, required=False)
    assert f"{model}" in str(refused.value)


def test_what_was_trusted_once_is_not_loaded(model: Path, key: Key) -> None:
    evidence = Evidence((Bundle(signed(key), trusted_by="team"),))
    with pytest.raises(
        LoadError, match="no longer trusted: trust root 'team' vouched for its signer sha256:"
    ):
        verify(model, evidence, required=False)


def test_an_expired_certificate_is_not_loaded(model: Path, key: Key, tmp_path: Path) -> None:
    bundle, house = by_authority(tmp_path, key, lifetime=timedelta(days=-1))
    with pytest.raises(LoadError, match="no longer trusted: the certificate of its signer CN=ada"):
        verify(model, Evidence((Bundle(bundle, "house"),), (house,)), required=False)


def test_one_trusted_signature_makes_up_for_one_that_lost_trust(
    model: Path, key: Key, tmp_path: Path
) -> None:
    new = Key(tmp_path, "new")
    bundles = (Bundle(signed(key), trusted_by="old team"), Bundle(signed(new)))
    found = verify(model, Evidence(bundles, (root(new),)), required=True)
    assert (found.state, found.trust_root) == (SignatureState.TRUSTED, "team")


def test_a_signature_by_another_key_than_it_names_is_not_loaded(
    model: Path, key: Key, tmp_path: Path
) -> None:
    other = Key(tmp_path, "other")
    forged = signed(other).replace(_hint(other), _hint(key))
    with pytest.raises(LoadError, match="was not made with the key that it names"):
        verify(model, Evidence((Bundle(forged),), (root(key),)), required=False)


def test_trust_that_was_lost_is_remembered() -> None:
    known = Evidence((Bundle("a", "team"), Bundle("b")), (Root("team", "pem", is_certificate=False),))
    now = Evidence((Bundle("a"), Bundle("b"), Bundle("c", "other")))
    assert now.remembering(known) == Evidence((Bundle("a", "team"), Bundle("b"), Bundle("c", "other")))


def test_evidence_keeps_its_form_on_the_way() -> None:
    evidence = Evidence((Bundle("a", "team"),), (Root("team", "pem", is_certificate=True),))
    assert Evidence.from_json(evidence.to_json()) == evidence
    with pytest.raises(ValueError, match="another form"):
        Evidence.from_json({"bundles": []})


def _hint(key: Key) -> str:
    return hashlib.sha256(key.pem.encode()).hexdigest()
