"""A model that is signed, deployed where a trusted signature is required, and what a replica says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modelyard import errors
from modelyard.types import SignatureState, SignatureTrust, TrustRootKind
from tests.framework.deployed import ROWS, deployed
from tests.framework.keys import Key
from tests.framework.stack import Processes


async def test_only_what_a_trust_root_vouches_for_is_loaded_where_it_is_required(
    processes: Processes, tmp_path: Path
) -> None:
    key = Key(tmp_path)
    async with processes.admin() as admin, deployed(processes) as endpoint:
        (plain,) = await admin.deployments.replicas(endpoint.name)
        assert (plain.signature_state, plain.signer) == (SignatureState.UNSIGNED, "")

        await admin.deployments.update(endpoint.name, require_signature=True)
        with pytest.raises(errors.DeploymentFailed, match="required here, and the artifact is not signed"):
            await admin.deployments.wait(endpoint.name, timeout=120)
        answer = await admin.predict(endpoint.name, {"input": ROWS[:1]})  # what answered before goes on
        assert np.array_equal(answer.output, endpoint.expected(1, ROWS[:1]))

        root = await admin.trust_roots.create("team", key.public, endpoint.name)
        assert [each.id for each in await admin.trust_roots.list(endpoint.name)] == [root.id]
        signature = await admin.signatures.sign(f"{endpoint.name}/1", key.private)
        assert (root.kind, signature.trust) == (TrustRootKind.PUBLIC_KEY, SignatureTrust.TRUSTED)
        await admin.deployments.update(endpoint.name, targets=f"{endpoint.name}/1")
        active = await admin.deployments.wait(endpoint.name, timeout=120)
        (status,) = active.target_statuses
        assert (status.signature_state, status.signer[:7]) == (SignatureState.TRUSTED, "sha256:")
        trusted = await admin.deployments.replicas(endpoint.name, filter="signature_state = 'TRUSTED'")
        assert [(each.trust_root, each.signer) for each in trusted] == [("team", status.signer)]
        assert active.require_signature
        listed = await admin.deployments.list(filter="require_signature = TRUE").collect()
        assert [each.name for each in listed] == [endpoint.name]
