"""Where PyTorch runs a model: on the GPU where there is one."""

from __future__ import annotations

import torch


def device() -> torch.device:
    """Return the first GPU that PyTorch finds (CUDA, or ROCm under that name), or else the CPU.

    `CUDA_VISIBLE_DEVICES` says which there are to find; none if it is empty (CUDA programming guide, "CUDA environment variables").
    """
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
