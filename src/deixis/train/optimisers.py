"""Parameter groups, optimisers and schedules of learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from deixis.models.base import GroundingModel
from deixis.models.criterion import Criterion
from deixis.recipe import OptimiserOptions, Recipe


def build_optimiser(model: GroundingModel, criterion: Criterion, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's groups and the parameters that only training uses.

    After each of its steps the criterion projects its parameters, as SPSIL's widths to their floor.
    """
    options, groups = recipe.optimiser, parameter_groups(model, recipe)
    sigmas = criterion.sigmas()
    known = {id(sigma) for sigma in sigmas}
    extra = [parameter for parameter in criterion.helper.parameters() if id(parameter) not in known]
    for parameters, rate in ((extra, options.lr), (sigmas, options.sigma_lr)):
        if parameters:
            groups.append({"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": 0.0})
    kind = torch.optim.AdamW if options.kind == "adamw" else torch.optim.Adam
    optimiser = kind(groups, fused=True)
    optimiser.register_step_post_hook(lambda *_: criterion.project())
    return optimiser


def parameter_groups(model: GroundingModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Pretrained parts at their own rate; no weight decay on biases and norms.

    Adam's, an L2 penalty, is that of MCN's official code: on kernels of convolutions alone. In a word vector, whose
    gradient is 0 in most batches, it would be the whole step.
    """
    options = recipe.optimiser
    least = 4 if options.kind == "adam" else 2
    known = model.pretrained_parameters()
    pretrained_ids = {id(p) for part in ("image", "text") if recipe.model.weights_of(part) for p in known[part]}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in pretrained_ids, parameter.ndim >= least), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.pretrained_lr if pretrained else options.lr,
            "peak_lr": options.pretrained_lr if pretrained else options.lr,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (pretrained, decays), parameters in groups.items()
    ]


def set_learning_rate(optimiser: torch.optim.Optimizer, options: OptimiserOptions, step: int) -> None:
    """Set every group's rate for ``step``, counted from 0."""
    factor = learning_rate_factor(options, step)
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def learning_rate_factor(options: OptimiserOptions, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth, or a tenth at each of the milestones."""
    warm = min((step + 1) / max(options.warmup, 1), 1.0)
    if options.schedule == "steps":
        return warm * 0.1 ** sum(step >= milestone for milestone in options.milestones)
    progress = max(step - options.warmup, 0) / max(options.steps - options.warmup, 1)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
