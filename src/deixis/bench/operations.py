"""Parameters and operations of a network by its parts, without running it where that is possible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deixis.models.smcim.interaction import AlternateLayer, JointEncoderLayer

IMAGE, TEXT, FUSION, HEAD = "image encoder", "text encoder", "fusion", "head"
PARTS: tuple[str, ...] = (IMAGE, TEXT, FUSION, HEAD)

GROUNDING_PARTS = {
    "image": IMAGE,
    "encoder": IMAGE,
    "text": TEXT,
    "head": HEAD,
    "box": HEAD,
    "mask": HEAD,
    "box_features": HEAD,
    "exists": HEAD,
    "rec_energy": HEAD,
    "res_energy": HEAD,
}
"""Modules of the families of Deixis; whatever else a network holds stands between encoders and head: the fusion."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How large a network is and how much it computes for one image and one phrase."""

    parameters: Mapping[str, int]
    """By part, see ``PARTS``; a parameter that is used twice counts once."""
    operations: Mapping[str, int]
    """By part; a multiplication and an addition are two."""
    image_px: int
    words: int
    blocks: int = 0
    """Parameters of SMCIM's stacks of CA²M, or of encoder layers in their place; 0 in other networks."""

    @property
    def all_parameters(self) -> int:
        """Their number."""
        return sum(self.parameters.values())

    @property
    def all_operations(self) -> int:
        """Their number."""
        return sum(self.operations.values())


def present_parts(model: nn.Module, parts: Mapping[str, str]) -> dict[str, str]:
    """The entries of ``parts`` whose modules ``model`` has."""
    names = {name for name, _ in model.named_modules()}
    return {name: part for name, part in parts.items() if name in names}


def count_parameters(model: nn.Module, parts: Mapping[str, str]) -> dict[str, int]:
    """Parameters by part, frozen ones too; those of no named module are the fusion's.

    Args:
        model: on any device.
        parts: from a module's qualified name to one of ``PARTS``; no module inside another.
    """
    counts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        part = next((part for prefix, part in parts.items() if name.startswith(f"{prefix}.")), FUSION)
        counts[part] += parameter.numel()
    return counts


def count_blocks(model: nn.Module) -> int:
    """Parameters of SMCIM's stacks of CA²M, or of encoder layers in their place; 0 in other networks."""
    blocks = (one for one in model.modules() if isinstance(one, AlternateLayer | JointEncoderLayer))
    return sum(parameter.numel() for block in blocks for parameter in block.parameters())


def count_operations(model: nn.Module, parts: Mapping[str, str], **inputs: Tensor) -> dict[str, int]:
    """Operations of one pass by part: matrix products and convolutions, attention's own included.

    Additions, norms, activations, interpolation and sampling are not counted, as in the papers' tables. Nothing is
    computed where shapes are enough.

    Args:
        model: in eval mode.
        parts: as of :func:`count_parameters`; what no named module computes is the fusion's.
        **inputs: of ``model``.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _count_one_pass(model, parts, inputs)
    except RuntimeError:  # a value was asked for, such as the length of a phrase
        return _count_one_pass(model, parts, inputs)


def _count_one_pass(model: nn.Module, parts: Mapping[str, str], inputs: Mapping[str, Tensor]) -> dict[str, int]:
    # the fused attention of CPUs is unknown to the counter; taken apart it is two products, counted as such
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    found = {name: sum(by_kind.values()) for name, by_kind in counter.get_flop_counts().items()}
    counts = dict.fromkeys(PARTS, 0)
    for name, part in parts.items():
        counts[part] += found.get(f"{type(model).__name__}.{name}", 0)
    counts[FUSION] += counter.get_total_flops() - sum(counts.values())
    return counts
