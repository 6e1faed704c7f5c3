"""Pipelines of Hugging Face's transformers, saved with safetensors, and the name of their task beside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from modelyard._metadata import package_version
from modelyard.errors import InvalidArgument
from modelyard.flavors import Prepared
from modelyard.types import ModelMetadata, Signature

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "pipeline.json"
RUNTIME = "transformers"
PACKAGES = ("transformers", "tokenizers", "safetensors", "torch", "numpy", "modelyard")


def prepare(pipeline: Any, folder: Path, *, example: Any, signature: Signature | None) -> Prepared:
    """Save a pipeline of texts, with the signature that its answers to the example show.

    Args:
        pipeline: What `transformers.pipeline` returned.
        folder: Empty folder to save into.
        example: Some texts.
        signature: What it takes and gives, instead of what the example shows.
    """
    signature = signature or _infer(pipeline, example)
    pipeline.save_pretrained(folder)
    (folder / FILE_NAME).write_text(json.dumps({"task": pipeline.task}), encoding="utf-8")
    metadata = ModelMetadata(
        framework="transformers",
        framework_version=package_version("transformers"),
        algorithm=type(pipeline.model).__name__,
    )
    return Prepared(folder, RUNTIME, signature, PACKAGES, metadata)


def _infer(pipeline: Any, example: Any) -> Signature:
    from modelyard import signature as signatures

    if example is None:
        raise InvalidArgument('example: give some texts (example=["a text"]), or signature=…')
    rows = [example] if isinstance(example, str) else list(example)
    try:
        answers = [answer[0] if isinstance(answer, list) else answer for answer in pipeline(rows)]
        outputs = {name: [answer[name] for answer in answers] for name in answers[0]}
    except Exception as error:
        raise InvalidArgument(
            f"example: the pipeline fails on it, or gives no dict for each text; give signature=…: {error}"
        ) from error
    method = signatures.infer_method({"text": signatures.as_array(rows)}, outputs, "predict")
    return Signature((method,))
