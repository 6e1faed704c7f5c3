"""Pipelines of Hugging Face's transformers, from local files alone.

The artifact is what `pipeline.save_pretrained` wrote, with safetensors, and `pipeline.json`, `{"task": "text-classification",
"options": {...}}`; options are arguments of the pipeline's call. The one method is `predict`. Its first input is what the pipeline is called with, one BYTES for each text; further inputs are
not taken. Each output is the value of that key in each row's answer (`label`, `score` ...); rows that are themselves lists of
answers (`top_k`) give one list each. Weights are read from safetensors only, code from the artifact is never run, nothing is
fetched. It runs on a GPU where there is one, or else on the CPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

# Read by huggingface_hub when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
import torch
import transformers

from modelyard_inference.runtimes import LoadError
from modelyard_inference.runtimes.datatypes import Array
from modelyard_inference.runtimes.devices import device
from modelyard_inference.runtimes.estimators import first_line, readable
from modelyard_inference.runtimes.signature import MethodSignature, Signature

FILE: Final = "pipeline.json"
METHOD: Final = "predict"


class TransformersRuntime:
    """A loaded pipeline."""

    def __init__(self, pipeline: Any, method: MethodSignature, options: Mapping[str, Any]) -> None:
        self._pipeline = pipeline
        self._method = method
        self._options = options

    def predict(self, method: str, inputs: Mapping[str, Array]) -> Mapping[str, object]:
        """See `Runtime.predict`."""
        del method  # there is only one
        name = self._method.inputs[0].name
        rows = readable(name, inputs[name]).tolist()
        with torch.inference_mode():
            answers = self._pipeline(rows, batch_size=len(rows), **self._options)
        return {spec.name: [_value(answer, spec.name) for answer in answers] for spec in self._method.outputs}

    def unload(self) -> None:
        """See `Runtime.unload`."""
        self._pipeline = None


def load(directory: Path, signature: Signature, *, threads: int = 1) -> TransformersRuntime:
    """Load the pipeline; see `Load`."""
    task, options = _described(directory / FILE)
    names = [method.name for method in signature.methods]
    if names != [METHOD] or len(signature.methods[0].inputs) != 1:
        raise LoadError(
            f"the signature names {', '.join(names)}; a pipeline has the one method {METHOD!r} of one input"
        )
    torch.set_num_threads(threads)
    transformers.logging.disable_progress_bar()
    try:
        pipeline = transformers.pipeline(
            task,
            model=str(directory),
            device=device(),
            trust_remote_code=False,
            local_files_only=True,
            model_kwargs={"use_safetensors": True},
        )
    except Exception as error:  # a broken file raises many kinds
        raise LoadError(
            f"the pipeline cannot be loaded by transformers {transformers.__version__}: {_reason(error)}"
        ) from error
    return TransformersRuntime(pipeline, signature.methods[0], options)


def _described(path: Path) -> tuple[str, Mapping[str, Any]]:
    if not path.is_file():
        raise LoadError(f"the artifact has no {path.name}, which names the task of its pipeline")
    try:
        content = json.loads(path.read_text("utf-8"))
        task, options = content["task"], content.get("options", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f'{path.name} must be {{"task": "...", "options": {{...}}}}: {error!r}') from error
    if not isinstance(task, str) or not isinstance(options, dict):
        raise LoadError(f'{path.name} must be {{"task": "...", "options": {{...}}}}')
    return task, options


def _reason(error: Exception) -> str:
    """Return the last error that is quoted; a pipeline tries several classes and repeats what each said."""
    quoted = [line.strip() for line in str(error).splitlines() if "Error: " in line]
    return quoted[-1][:500] if quoted else first_line(error)


def _value(answer: Any, name: str) -> Any:
    """Return what an answer has under a name; a pipeline wraps the answer to one row in a list for some tasks."""
    if isinstance(answer, list):
        values = [item[name] for item in answer]
        return values[0] if len(values) == 1 else values
    return answer[name]
