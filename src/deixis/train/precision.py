"""Which number format the steps of a training are computed in."""

from __future__ import annotations

import torch

from deixis import grounder


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether steps run under autocast to bfloat16.

    Args:
        precision: of a recipe. ``auto`` is bfloat16 exactly where the device multiplies it in hardware: elsewhere a
            step takes many times as long.
        device: that the model is on.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and grounder.has_fast_bfloat16()
