"""Pipelines of transformers, from local files alone: a tiny model made here. `make test-frameworks`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from modelyard.flavors import prepare  # noqa: E402
from modelyard_inference import runtimes  # noqa: E402
from modelyard_inference.runtimes import LoadError, RejectedInput  # noqa: E402
from modelyard_inference.runtimes import signature as signatures  # noqa: E402
from modelyard_inference.runtimes.datatypes import object_array  # noqa: E402

TEXTS = ["red small", "blue", "green green large", "red"]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ("[PAD]", "[UNK]", "red", "blue", "green", "small", "large")
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = transformers.DistilBertConfig(
        vocab_size=len(words), dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=3, pad_token_id=0
    )
    transformers.set_seed(7)
    model = transformers.DistilBertForSequenceClassification(config).eval()
    return transformers.pipeline("text-classification", model=model, tokenizer=fast, device="cpu")


@pytest.fixture
def artifact(tmp_path: Path, pipeline: Any) -> tuple[Path, signatures.Signature]:
    prepared = prepare(pipeline, tmp_path, runtime=None, example=TEXTS[:1], signature=None)
    assert (prepared.runtime, prepared.path) == ("transformers", tmp_path)
    (method,) = prepared.signature.methods  # type: ignore[union-attr]
    assert {spec.name: spec.datatype for spec in method.outputs} == {"label": "BYTES", "score": "FP64"}
    specs = [
        tuple(signatures.TensorSpec(spec.name, spec.datatype, spec.shape) for spec in side)
        for side in (method.inputs, method.outputs)
    ]
    return tmp_path, signatures.Signature((signatures.MethodSignature("predict", specs[0], specs[1]),))


def texts(rows: list[str]) -> Any:
    return object_array([row.encode() for row in rows], (len(rows),))


def test_answers_as_the_pipeline_itself(
    artifact: Any, pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder, signature = artifact
    runtime = runtimes.find("transformers")(folder, signature)
    expected = pipeline(TEXTS)
    together = runtime.predict("predict", {"text": texts(TEXTS)})
    assert together["label"] == [answer["label"] for answer in expected]
    assert together["score"] == pytest.approx([answer["score"] for answer in expected], abs=1e-5)
    for index, text in enumerate(TEXTS):
        (score,) = runtime.predict("predict", {"text": texts([text])})["score"]  # type: ignore[misc]
        assert score == pytest.approx(together["score"][index], abs=1e-5)  # type: ignore[index]
    runtime.unload()


def test_it_goes_where_the_device_is(artifact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no GPU here: PyTorch's device without data takes its place, and gives no answer."""
    import torch

    monkeypatch.setattr("modelyard_inference.runtimes.transformers.device", lambda: torch.device("meta"))
    folder, signature = artifact
    runtime = runtimes.find("transformers")(folder, signature)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        runtime.predict("predict", {"text": texts(TEXTS)})


def test_weights_that_are_pickles_are_not_read(artifact: Any) -> None:
    import torch

    folder, signature = artifact
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(LoadError, match="safetensors"):
        runtimes.find("transformers")(folder, signature)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"task": 1}', '{"task": "no-such-task"}'])
def test_a_task_is_needed(artifact: Any, content: str | None) -> None:
    folder, signature = artifact
    (folder / "pipeline.json").unlink()
    if content is not None:
        (folder / "pipeline.json").write_text(content)
    with pytest.raises(LoadError, match="pipeline"):
        runtimes.find("transformers")(folder, signature)


def test_bytes_that_are_no_text(artifact: Any) -> None:
    folder, signature = artifact
    runtime = runtimes.find("transformers")(folder, signature)
    with pytest.raises(RejectedInput, match="UTF-8"):
        runtime.predict("predict", {"text": object_array([b"\xff"], (1,))})


def test_code_of_the_artifact_is_not_run(artifact: Any) -> None:
    folder, signature = artifact
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(LoadError):
        runtimes.find("transformers")(folder, signature)
