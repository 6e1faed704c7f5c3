"""Replicas in environments of their own, built from the ordinary index."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference.commands import UpdateDeployment
from modelyard_inference.environment_policy import OF_ARTIFACT, Environment, EnvironmentSource
from modelyard_inference.environments import uv
from modelyard_inference.environments.cache import EnvironmentCache
from modelyard_inference.launchers import ReplicaSpec
from modelyard_inference.launchers.local import LocalLauncher
from modelyard_inference.models import DeploymentState
from modelyard_inference.runtimes.signature import MethodSignature, Signature, TensorSpec
from tests.conformance.replicas import DEPLOYMENT, iris_config
from tests.framework import conda
from tests.framework.inference import Inference, call, creation, site
from tests.framework.waiting import eventually

# Small, pure Python, and none of ours.
REQUIREMENTS = "humanize==4.9.0\n"
MODEL = """
import importlib.util
import humanize, importlib.metadata

class Model:
    def __init__(self, directory): pass
    def predict(self, inputs):
        hidden = importlib.util.find_spec("sqlalchemy") is None
        texts = [humanize.intcomma(int(n)).encode() for n in inputs["n"]]
        return {"text": texts, "alone": [hidden] * len(texts)}

load = Model
"""
SIGNATURE = Signature(
    (
        MethodSignature(
            "predict",
            (TensorSpec("n", "INT64", (-1,)),),
            (TensorSpec("text", "BYTES", (-1,)), TensorSpec("alone", "BOOL", (-1,))),
        ),
    )
)


@pytest.fixture
async def launcher() -> AsyncIterator[LocalLauncher]:
    folder = Path(tempfile.mkdtemp(prefix="my-", dir="/tmp"))
    made = LocalLauncher(folder, ("python-of-nobody", "-m", "modelyard_inference.replica"))
    made.prepare()
    yield made
    await asyncio.gather(*(made.stop(handle, 5.0) for handle in await made.list()))
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    folder.mkdir()
    (folder / "model.py").write_text(MODEL)
    return folder


async def serves(artifact: Path, tmp_path: Path, launcher: LocalLauncher) -> None:
    """Let a replica of an artifact run in the environment that it asks for, and predict."""
    cache = EnvironmentCache(tmp_path / "environments", enabled=True, allow_code=True)
    cache.prepare()
    python: str | None = None
    while python is None:
        ended = asyncio.Event()
        python = await cache.python(
            OF_ARTIFACT, "sha256:aa", artifact, "python", signed=False, done=ended.set
        )
        if python is None:
            await asyncio.wait_for(ended.wait(), 240)
    address = launcher.address("one")
    config = iris_config(
        artifact, tmp_path, runtime="python", signature=SIGNATURE, listen=address, allow_code=True
    )
    handle = await launcher.start(ReplicaSpec("one", config, python))

    async def ready() -> bool:
        found = await launcher.status(handle)
        assert found.running, found.report
        return found.report == "ready"

    await eventually(ready)
    request = pb.ModelInferRequest(model_name=DEPLOYMENT, raw_input_contents=[np.int64(1234567).tobytes()])
    request.inputs.add(name="n", datatype="INT64", shape=[1])
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert answer.raw_output_contents[0][4:] == b"1,234,567"
    assert answer.raw_output_contents[1] == b"\x01"


async def test_a_model_runs_with_its_own_packages(
    artifact: Path, tmp_path: Path, launcher: LocalLauncher
) -> None:
    (artifact / "requirements.txt").write_text(REQUIREMENTS)
    await serves(artifact, tmp_path, launcher)


async def test_a_model_runs_in_the_conda_environment_that_it_brings(
    artifact: Path, tmp_path: Path, launcher: LocalLauncher
) -> None:
    made = conda.conda_environment(tmp_path)
    into = ("pip", "install", "--python", made / "bin" / "python", REQUIREMENTS.strip())
    await uv.run(*into, folder=tmp_path, seconds=240)
    conda.conda_pack(made, artifact / "env.tar.gz")
    shutil.rmtree(made)
    (artifact / "runtime.yaml").write_text(
        "MODEL_DEPLOYMENT: {INFERENCE_CONDA_ENV: {INFERENCE_ENV_PATH: env.tar.gz}}\n"
    )
    await serves(artifact, tmp_path, launcher)


async def test_a_deployment_changes_its_environment(fresh_database: Callable[[str], str]) -> None:
    """From what its version asks for to the same by itself, which is there already, and to that of the service."""
    async with site(fresh_database("modelyard_inference")) as place:
        place.upstream.requirements["prod.ml.iris/1"] = REQUIREMENTS.encode()
        place.upstream.add(1)
        place.build_environments = True
        async with place.life() as inference:
            await inference.deployments.create(call(), creation(replicas=2))
            await inference.until_state(DeploymentState.ACTIVE)
            (built,) = await pythons(inference)
            assert built.parents[2] == place.folder / "environments"
            first = {handle.process_id for handle in await inference.launcher.list()}
            own = Environment(EnvironmentSource.REQUIREMENTS, (REQUIREMENTS.strip(),))
            for environment, python in (
                (own, built),
                (Environment(EnvironmentSource.DEFAULT), Path(sys.executable)),
            ):
                change = UpdateDeployment("prod.ml.iris", "", environment=environment)
                await inference.deployments.update(call(), change)
                await inference.until_state(DeploymentState.ACTIVE)
                await eventually(partial(run_all_in, inference, python, first))
                first = {handle.process_id for handle in await inference.launcher.list()}


async def pythons(inference: Inference) -> set[Path]:
    return {Path(psutil.Process(h.process_id).cmdline()[0]) for h in await inference.launcher.list()}


async def run_all_in(inference: Inference, python: Path, old: set[int]) -> bool:
    """Return whether all replicas run in a Python, and those of before have ended."""
    there = {handle.process_id for handle in await inference.launcher.list()}
    return old.isdisjoint(there) and await pythons(inference) == {python}
