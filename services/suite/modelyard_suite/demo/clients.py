"""The same prediction by four kinds of client. Each returns the labels, the version number and the artifact's digest."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton

from modelyard import Client
from modelyard.api.oip.v2 import grpc_inference_pb2 as oip
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub

INPUT, OUTPUT = "input", "output"
DIGEST_PARAMETER = "modelyard_artifact"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    labels: np.ndarray[Any, Any]
    version: str
    digest: str


def by_python_client(client: Client, deployment: str, rows: np.ndarray[Any, Any]) -> Answer:
    """Predict with the Python package of Modelyard."""
    prediction = client.predict(deployment, rows, outputs=[OUTPUT])
    return Answer(prediction.output, str(prediction.model_version), prediction.artifact_digest)


def by_grpc_stub(target: str, token: str, deployment: str, rows: np.ndarray[Any, Any]) -> Answer:
    """Predict with nothing but the generated stub."""
    request = oip.ModelInferRequest(model_name=deployment)
    request.inputs.add(name=INPUT, datatype="FP64", shape=rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    request.outputs.add(name=OUTPUT)
    with grpc.insecure_channel(target) as channel:
        metadata = (("authorization", f"Bearer {token}"),)
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata, timeout=10)
    labels = np.frombuffer(answer.raw_output_contents[0], dtype=np.int64)
    return Answer(labels, answer.model_version, answer.parameters[DIGEST_PARAMETER].string_param)


def by_tritonclient(target: str, token: str, deployment: str, rows: np.ndarray[Any, Any]) -> Answer:
    """Predict with NVIDIA's unmodified client."""
    tensor = triton.InferInput(INPUT, list(rows.shape), "FP64")
    tensor.set_data_from_numpy(rows)
    with triton.InferenceServerClient(target) as client:
        result = client.infer(
            deployment,
            [tensor],
            outputs=[triton.InferRequestedOutput(OUTPUT)],
            headers={"authorization": f"Bearer {token}"},
        )
    answer = result.get_response()
    return Answer(
        result.as_numpy(OUTPUT), answer.model_version, answer.parameters[DIGEST_PARAMETER].string_param
    )


def by_curl(target: str, token: str, deployment: str, rows: np.ndarray[Any, Any]) -> Answer:
    """Predict by REST.

    Raises:
        RuntimeError: curl is not installed, or the answer was no prediction.
    """
    curl = shutil.which("curl")
    if curl is None:
        raise RuntimeError("this step needs curl: install it with your system's package manager")
    body = {
        "inputs": [
            {"name": INPUT, "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        ],
        "outputs": [{"name": OUTPUT}],
    }
    # The token goes by standard input: arguments can be seen by every user of the machine.
    options = f'header = "authorization: Bearer {token}"\nheader = "content-type: application/json"\n'
    options += (
        f'url = "http://{target}/v2/models/{deployment}/infer"\ndata = {json.dumps(json.dumps(body))}\n'
    )
    command = [curl, "--silent", "--show-error", "--max-time", "10", "--config", "-"]
    completed = subprocess.run(command, input=options, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        answer = json.loads(completed.stdout)
        labels = np.array(answer["outputs"][0]["data"])
    except (ValueError, KeyError) as error:
        raise RuntimeError(f"curl got no prediction: {completed.stdout}{completed.stderr}") from error
    return Answer(labels, answer["model_version"], answer["parameters"][DIGEST_PARAMETER])
