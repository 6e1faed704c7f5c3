"""Models of other kinds than scikit-learn's, from the client to an answer; and programs, where they are not allowed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xgboost

from modelyard import RemoteModel, TrafficTarget, errors, infer_signature
from modelyard.types import DeploymentState
from tests.framework.deployed import LABELS, ROWS, deployed
from tests.framework.stack import Processes
from tests.framework.waiting import eventually


async def test_a_model_of_xgboost_and_a_program(processes: Processes, tmp_path: Path) -> None:
    model = xgboost.XGBClassifier(n_estimators=3).fit(ROWS, LABELS)
    (tmp_path / "model.py").write_text("load = print\n")
    async with processes.admin() as admin:
        await admin.catalogs.create("runtimes")
        await admin.schemas.create("runtimes.ml")
        await admin.log_model(model, "runtimes.ml.trees", example=ROWS[:3], progress=False)
        signature = infer_signature(ROWS, LABELS)
        await admin.log_model(tmp_path, "runtimes.ml.program", signature=signature, progress=False)
        for name in ("runtimes.ml.trees", "runtimes.ml.program"):
            await admin.deployments.create(name, f"{name}/1", replicas=1)
        await admin.deployments.wait("runtimes.ml.trees", timeout=120)
        labels = await admin.predict("runtimes.ml.trees", ROWS)
        assert labels.output.tolist() == model.predict(ROWS).tolist()
        scores = await admin.predict("runtimes.ml.trees", ROWS, method="predict_proba")
        np.testing.assert_array_equal(scores.output, model.predict_proba(ROWS))
        with pytest.raises(errors.ModelyardError, match="MODELYARD_ALLOW_MODEL_CODE"):
            await admin.deployments.wait("runtimes.ml.program", timeout=120)
        for name in ("runtimes.ml.trees", "runtimes.ml.program"):
            await admin.deployments.delete(name)
            await admin.deployments.wait_deleted(name)


async def test_a_model_on_another_server_answers_beside_ours(processes: Processes) -> None:
    """The other server is a replica of another deployment, called as any server of the Open Inference Protocol is."""
    async with deployed(processes) as there, processes.admin() as admin:
        (replica,) = await admin.deployments.replicas(there.name)
        model = RemoteModel(replica.address, there.name)
        name = f"{there.name.removesuffix('.iris')}.shared"
        await admin.log_model(there.models[0].in_onnx(name), name, progress=False)
        await admin.log_model(model, name, progress=False)
        targets = [TrafficTarget(f"{name}/1"), TrafficTarget(f"{name}/2")]
        await admin.deployments.create(name, targets)
        with pytest.raises(errors.ModelyardError, match="no server that predictions may be passed on to"):
            await admin.deployments.wait(name, timeout=120)
        allowed = processes.home.secrets / "backends.json"
        allowed.touch(0o600)
        allowed.write_text(json.dumps({model.url: {}}))

        async def answers() -> bool:
            return (await admin.deployments.get(name)).state is DeploymentState.ACTIVE

        await eventually(answers)  # its replica is started again by itself
        for version in (1, 2):
            answer = await admin.predict(name, ROWS, version=version)
            assert answer.model_version == version
            assert answer.output.tolist() == there.expected(1, ROWS)
        await admin.deployments.deactivate(there.name)

        async def told() -> bool:
            deployment = await admin.deployments.get(name)
            return any(condition.reason == "BACKEND_NOT_READY" for condition in deployment.conditions)

        await eventually(told)
        await admin.deployments.delete(name)
        await admin.deployments.wait_deleted(name)
