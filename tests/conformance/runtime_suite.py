"""What every runtime must do. A runtime's test class derives from `RuntimeSuite` and says how its artifacts are written."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference import runtimes
from modelyard_inference.replica.app import Replica
from modelyard_inference.runtimes import LoadError, RejectedInput
from modelyard_inference.runtimes.datatypes import cast, from_raw
from modelyard_inference.runtimes.signature import InputLayout, MethodSignature, Signature, TensorSpec
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_model, iris_rows

COLOURS = np.array([["red", "s"], ["blue", "m"], ["red", "l"], ["green", "s"]], dtype=object)


class RuntimeSuite(abc.ABC):
    """Derive, set `name` and `file`, implement the writer; `TextSuite` is for runtimes that take texts too."""

    name: str
    file: str

    @pytest.fixture(autouse=True)
    def _process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Undo what runtimes change in the process, which is the replica's own else."""
        monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
        monkeypatch.setattr(sys, "path", list(sys.path))

    @abc.abstractmethod
    def write_iris(self, directory: Path) -> Signature:
        """Write a classifier of irises; its first method takes FP32 [-1, 4] and gives INT64 labels."""

    any_name: bool = False
    """Whether the suffix of the file tells enough, so that a file of any name is loaded if there is no second."""

    def labels(self, rows: Any) -> list[int]:
        """Return what the library itself, called directly, says about rows."""
        return [int(label) for label in iris_model().predict(rows)]

    def load(self, directory: Path, signature: Signature) -> runtimes.Runtime:
        return runtimes.find(self.name, allow_code=True)(directory, signature)

    @pytest.fixture
    async def replica(self, tmp_path: Path) -> AsyncIterator[Replica]:
        signature = self.write_iris(tmp_path)
        # Paths of sockets are short, those of pytest are not.
        with tempfile.TemporaryDirectory(prefix="my") as sockets:
            config = iris_config(
                tmp_path, Path(sockets), runtime=self.name, signature=signature, allow_code=True
            )
            replica = Replica(config)
            await replica.start()
            yield replica
            await replica.stop()

    async def test_behind_the_protocol(self, replica: Replica) -> None:
        """Facts, answers one by one and all at once, and what is refused."""
        async with grpc.aio.insecure_channel(replica.config.listen) as channel:
            stub = GRPCInferenceServiceStub(channel)
            facts = await stub.ModelMetadata(pb.ModelMetadataRequest(name=DEPLOYMENT))
            assert facts.platform == self.name
            assert [(item.datatype, list(item.shape)) for item in facts.inputs] == [("FP32", [-1, 4])]
            method = replica.config.signature.methods[0]
            name, rows = method.inputs[0].name, iris_rows()[::10]
            together = labels_of(await stub.ModelInfer(request_of(name, rows)))
            assert together == self.labels(rows)
            singles = await asyncio.gather(
                *(stub.ModelInfer(request_of(name, rows[i : i + 1])) for i in range(len(rows)))
            )
            assert [labels_of(single)[0] for single in singles] == together
            for request, text in (
                (request_of("nothing", rows), "unexpected inference input 'nothing'"),
                (request_of(name, rows[:, :3]), f"unexpected shape for input '{name}'"),
                (request_of(name, rows.astype(np.float64), "FP64"), f"input '{name}' data-type is 'FP64'"),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
                    await stub.ModelInfer(request)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    def test_code_runs_only_where_it_is_allowed(self, tmp_path: Path) -> None:
        if self.name in runtimes.RUN_CODE:
            with pytest.raises(LoadError, match="MODELYARD_ALLOW_MODEL_CODE"):
                runtimes.find(self.name)
        else:
            signature = self.write_iris(tmp_path)
            runtimes.find(self.name)(tmp_path, signature).unload()

    def test_a_file_of_another_name_is_loaded_if_its_suffix_tells_enough(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        if not self.any_name:
            return
        suffix = Path(self.file).suffix
        (tmp_path / self.file).rename(tmp_path / f"iris{suffix}")
        self.load(tmp_path, signature).unload()
        (tmp_path / f"second{suffix}").write_bytes(b"")
        with pytest.raises(
            LoadError, match=rf"iris\{suffix}, second\{suffix}: call the one .* loads {self.file}"
        ):
            self.load(tmp_path, signature)

    @pytest.mark.parametrize("rows", [1, 2, 150])
    def test_predicts_what_the_model_predicts(self, tmp_path: Path, rows: int) -> None:
        signature = self.write_iris(tmp_path)
        method = signature.methods[0]
        runtime = self.load(tmp_path, signature)
        answers = runtime.predict(method.name, {method.inputs[0].name: iris_rows()[:rows]})
        labels = cast("INT64", answers[method.outputs[0].name])
        assert labels.tolist() == self.labels(iris_rows()[:rows])

    def test_takes_read_only_inputs(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        method = signature.methods[0]
        rows = np.frombuffer(iris_rows()[:3].tobytes(), np.float32).reshape(3, 4)
        assert not rows.flags.writeable
        answers = self.load(tmp_path, signature).predict(method.name, {method.inputs[0].name: rows})
        assert len(np.asarray(answers[method.outputs[0].name])) == 3

    def test_every_method_gives_its_outputs(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        runtime = self.load(tmp_path, signature)
        for method in signature.methods:
            answers = runtime.predict(method.name, {method.inputs[0].name: iris_rows()[:5]})
            assert set(answers) == {spec.name for spec in method.outputs}
            for spec in method.outputs:
                assert spec.fits(cast(spec.datatype, answers[spec.name]).shape)

    def test_missing_file(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        (tmp_path / self.file).unlink()
        with pytest.raises(LoadError, match=f"no {self.file}"):
            self.load(tmp_path, signature)

    @pytest.mark.parametrize("content", [b"", b"no model", b"PK\x03\x04" + b"\0" * 40])
    def test_broken_file(self, tmp_path: Path, content: bytes) -> None:
        signature = self.write_iris(tmp_path)
        (tmp_path / self.file).write_bytes(content)
        with pytest.raises(LoadError, match=self.file):
            self.load(tmp_path, signature)

    def test_cut_file(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        whole = (tmp_path / self.file).read_bytes()
        (tmp_path / self.file).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(LoadError, match=self.file):
            self.load(tmp_path, signature)

    def test_signature_of_another_model(self, tmp_path: Path) -> None:
        signature = self.wrong_signature(self.write_iris(tmp_path))
        with pytest.raises(LoadError):
            self.load(tmp_path, signature)

    def wrong_signature(self, signature: Signature) -> Signature:
        """Return one that the model cannot keep and that is seen without running it."""
        method = dataclasses.replace(
            signature.methods[0],
            name="predict_the_weather",
            inputs=(TensorSpec("clouds", "FP64", (-1, 9)),),
        )
        return Signature((method,))

    def test_unload(self, tmp_path: Path) -> None:
        signature = self.write_iris(tmp_path)
        self.load(tmp_path, signature).unload()


class TextSuite(RuntimeSuite):
    """For runtimes whose models take texts."""

    @abc.abstractmethod
    def write_colours(self, directory: Path) -> Signature:
        """Write a model of two BYTES columns `colour`, `size` that gives one row of numbers for each of `COLOURS`."""

    def test_takes_text_columns(self, tmp_path: Path) -> None:
        signature = self.write_colours(tmp_path)
        method = signature.methods[0]
        runtime = self.load(tmp_path, signature)
        whole = cast(
            method.outputs[0].datatype, runtime.predict(method.name, columns(COLOURS))[method.outputs[0].name]
        )
        assert whole.shape[0] == len(COLOURS)
        for index in range(len(COLOURS)):
            one = runtime.predict(method.name, columns(COLOURS[index : index + 1]))[method.outputs[0].name]
            np.testing.assert_allclose(cast(method.outputs[0].datatype, one), whole[index : index + 1])

    def test_text_must_be_utf8(self, tmp_path: Path) -> None:
        signature = self.write_colours(tmp_path)
        inputs = columns(COLOURS[:1])
        inputs["size"][0] = b"\xff\xfe"
        with pytest.raises(RejectedInput, match="size.*UTF-8"):
            self.load(tmp_path, signature).predict(signature.methods[0].name, inputs)


def columns(rows: Any) -> dict[str, Any]:
    """Return text rows as the two columns, the way a replica passes BYTES."""
    result = {}
    for index, name in enumerate(("colour", "size")):
        column = np.empty(len(rows), dtype=object)
        column[:] = [row[index].encode() for row in rows]
        result[name] = column
    return result


def colours_method(*outputs: TensorSpec, name: str = "transform") -> MethodSignature:
    """Return the signature of a method over the two columns."""
    inputs = (TensorSpec("colour", "BYTES", (-1,)), TensorSpec("size", "BYTES", (-1,)))
    return MethodSignature(name, inputs, outputs, InputLayout.COLUMNS)


def request_of(name: str, rows: Any, datatype: str = "FP32") -> pb.ModelInferRequest:
    """Return a request for the first method."""
    request = pb.ModelInferRequest(model_name=DEPLOYMENT, raw_input_contents=[rows.tobytes()])
    request.inputs.add(name=name, datatype=datatype, shape=rows.shape)
    return request


def labels_of(response: pb.ModelInferResponse) -> list[int]:
    """Return the first output of an answer."""
    output = response.outputs[0]
    labels: list[int] = from_raw(
        output.datatype, response.raw_output_contents[0], list(output.shape)
    ).tolist()
    return labels
