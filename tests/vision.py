"""torchvision, which deepinv imports, for tests."""

from __future__ import annotations

import torch


def import_torchvision() -> None:
    """Import torchvision, which deepinv imports, also where its build does not fit that of PyTorch.

    PyPI's torchvision is built for CUDA.  Beside a PyTorch built without, its operators do not load, and its import
    fails at two of them, which deepinv never calls: declaring them is enough.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401
