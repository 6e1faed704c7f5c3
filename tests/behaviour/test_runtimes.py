"""Models of other kinds than scikit-learn's, from the client to an answer; and programs, where they are not allowed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xgboost

from modelyard import errors, infer_signature
from tests.framework.deployed import LABELS, ROWS
from tests.framework.stack import Processes


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
