"""Signatures at load, when files, trust roots and the services that know them come and go: real replicas of a real control plane."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from modelyard.signing import Root, sign
from modelyard_inference.commands import ListReplicas, UpdateDeployment
from modelyard_inference.evidence import Bundle, Evidence, SignatureState
from modelyard_inference.models import Deployment, DeploymentState, Version
from modelyard_kit import faults
from modelyard_kit.filters import Asked
from tests.framework.inference import Inference, Site, call, creation, site, spec
from tests.framework.keys import Key

NAME = "prod.ml.iris"


@pytest.fixture
async def place(fresh_database: Callable[[str], str]) -> AsyncIterator[Site]:
    async with site(fresh_database("modelyard_inference")) as made:
        yield made
    faults.configure("")


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path)


def signed(place: Site, version: Version, key: Key, *roots: Root, trusted_by: str = "") -> None:
    """Let a version be signed and these trust roots count, of which the artifact service names the first."""
    trusted_by = roots[0].name if roots else trusted_by
    bundle = sign(place.upstream.files_of(version), name=version.model, private_key=key.private)
    place.upstream.signed[version.id] = Evidence((Bundle(bundle, trusted_by),), roots)


def team(key: Key) -> Root:
    return Root("team", key.pem, is_certificate=False)


def files(place: Site, version: Version) -> Path:
    """The copy of a version's artifact that replicas load."""
    return place.folder / "cache" / version.artifact_digest.removeprefix("sha256:") / "sub/model.bin"


async def kill_the_replica(inference: Inference) -> None:
    (handle,) = await inference.launcher.list()
    os.kill(handle.process_id, signal.SIGKILL)
    await inference.until(lambda d: not d.ready)


def weak(text: str) -> Callable[[Deployment], bool]:
    return lambda deployment: text in deployment.state_message


async def test_what_a_replica_found_is_told(place: Site, key: Key) -> None:
    version = place.upstream.add(1)
    signed(place, version, key, team(key))
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(require_signature=True, replicas=2))
        active = await inference.until_state(DeploymentState.ACTIVE)
        verdict = active.verdicts[version.name]
        assert (verdict.state, verdict.trust_root) == (SignatureState.TRUSTED, "team")
        listed, _ = await inference.lookups.replicas(
            ListReplicas(NAME, Asked(size=50, filter="signature_state = 'TRUSTED'"))
        )
        assert [(r.signature_state, r.signer, r.trust_root) for _, r, _ in listed] == [
            ("TRUSTED", verdict.signer, "team")
        ] * 2


async def test_a_file_changed_on_disk_is_not_loaded_again(place: Site, key: Key) -> None:
    version = place.upstream.add(1)
    signed(place, version, key, team(key))
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        copy = files(place, version)
        copy.chmod(0o600)
        copy.write_bytes(b"poison")
        (handle,) = await inference.launcher.list()  # what answers already goes on
        assert (await inference.launcher.status(handle)).running
        await kill_the_replica(inference)
        await inference.until(weak("signs another content of 'sub/model.bin'"))
        assert place.gateway.gaps() == []


async def test_a_version_that_may_not_be_loaded_leaves_the_old_answering(place: Site, key: Key) -> None:
    first, second = place.upstream.add(1), place.upstream.add(2)
    signed(place, first, key, team(key))
    signed(place, second, key, trusted_by="team")  # the trust root is gone by now
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        change = UpdateDeployment(NAME, "", targets=(spec(f"{NAME}/2"),))
        await inference.deployments.update(call(), change)
        failed = await inference.until_state(DeploymentState.FAILED)
        assert "prod.ml.iris/2 could not be started" in failed.state_message
        assert "no longer trusted: trust root 'team' vouched for its signer" in failed.state_message
        assert failed.targets[0].serving == f"{NAME}/1"
        assert place.gateway.weights() == {f"{NAME}/1": 1}
        signed(place, second, key, team(key))  # trusted again: it comes by itself
        await inference.until(lambda d: d.targets[0].serving == f"{NAME}/2")


async def test_a_removed_trust_root_stops_the_next_load_but_nothing_that_answers(
    place: Site, key: Key
) -> None:
    version = place.upstream.add(1)
    signed(place, version, key, team(key))
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(replicas=1))
        await inference.until_state(DeploymentState.ACTIVE)
        trusted = place.upstream.signed[version.id]
        forgotten = Evidence(
            (Bundle(trusted.bundles[0].text),)
        )  # nor does the artifact service tell what was
        place.upstream.signed[version.id] = forgotten
        await kill_the_replica(inference)
        await inference.until(weak("trust root 'team' vouched for its signer"))
        place.upstream.signed[version.id] = trusted
        await inference.until(lambda d: bool(d.ready) and not d.state_message)


async def test_a_replica_comes_back_while_nobody_can_be_asked(place: Site, key: Key) -> None:
    version = place.upstream.add(1)
    signed(place, version, key, team(key))
    async with place.life() as inference:
        await inference.deployments.create(call(), creation(require_signature=True))
        await inference.until_state(DeploymentState.ACTIVE)
    place.upstream.signers_down = True
    async with place.life() as inference:
        await kill_the_replica(inference)
        back = await inference.until(lambda d: bool(d.ready))
        assert back.verdicts[version.name].state is SignatureState.TRUSTED


async def test_a_version_that_was_never_asked_about_waits_until_somebody_can_be_asked(place: Site) -> None:
    place.upstream.add(1)
    place.upstream.signers_down = True
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        waiting = await inference.until(weak("the signatures of prod.ml.iris/1 cannot be found out yet"))
        assert waiting.state is DeploymentState.CREATING
        assert not await inference.launcher.list()
        place.upstream.signers_down = False
        await inference.until_state(DeploymentState.ACTIVE)


async def test_a_requirement_that_is_not_met_is_refused_and_the_old_answers_on(place: Site) -> None:
    place.upstream.add(1)
    async with place.life() as inference:
        await inference.deployments.create(call(), creation())
        active = await inference.until_state(DeploymentState.ACTIVE)
        assert active.verdicts[f"{NAME}/1"].state is SignatureState.UNSIGNED
        await inference.deployments.update(call(), UpdateDeployment(NAME, "", require_signature=True))
        failed = await inference.until_state(DeploymentState.FAILED)
        assert "required here, and the artifact is not signed" in failed.state_message
        assert failed.ready == {f"{NAME}/1": 1}
        await inference.deployments.update(call(), UpdateDeployment(NAME, "", require_signature=False))
        await inference.until_state(DeploymentState.ACTIVE)
        await inference.until_quiet()
        assert len(await inference.launcher.list()) == 1
        assert place.gateway.gaps() == []


async def test_evidence_goes_with_the_last_group_of_its_version(place: Site, key: Key) -> None:
    version = place.upstream.add(1)
    signed(place, version, key, team(key))
    async with place.life() as inference:
        faults.configure("inference.evidence.found=error*1")
        await inference.deployments.create(call(), creation())
        await inference.until_state(DeploymentState.ACTIVE)
        known = await inference.db.read(lambda c: inference.store.evidence(c, version.id))
        assert known == place.upstream.signed[version.id]
        await inference.deployments.delete(call(), NAME, "")
        await inference.until_gone()
        assert await inference.db.read(lambda c: inference.store.evidence(c, version.id)) is None
