"""Parameter groups, optimisers and schedules of learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from deixis.models.base import GroundingModel
from deixis.train.recipes import Recipe
from deixis.train.smcim_objective import SelfPacing


def build_optimiser(model: GroundingModel, helper: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's groups and the parameters that only training uses.

    After each of its steps SPSIL's widths are lifted to their floor.
    """
    groups = parameter_groups(model, recipe)
    pacings = [module for module in helper.modules() if isinstance(module, SelfPacing)]
    sigmas = [parameter for pacing in pacings for parameter in pacing.parameters()]
    known = {id(sigma) for sigma in sigmas}
    extra = [parameter for parameter in helper.parameters() if id(parameter) not in known]
    for parameters, rate in ((extra, recipe.lr), (sigmas, recipe.sigma_lr)):
        if parameters:
            groups.append({"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": 0.0})
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(groups, fused=True)
    for pacing in pacings:
        optimiser.register_step_post_hook(lambda *_, pacing=pacing: pacing.project())
    return optimiser


def parameter_groups(model: GroundingModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Pretrained parts at their own rate; no weight decay on biases and norms.

    Adam's, an L2 penalty, is that of MCN's official code: on kernels of convolutions alone. In a word vector, whose
    gradient is 0 in most batches, it would be the whole step.
    """
    least = 4 if recipe.optimiser == "adam" else 2
    known = model.pretrained_parameters()
    pretrained_ids = {id(p) for part in ("image", "text") if recipe.weights_of(part) for p in known[part]}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in pretrained_ids, parameter.ndim >= least), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.pretrained_lr if pretrained else recipe.lr,
            "peak_lr": recipe.pretrained_lr if pretrained else recipe.lr,
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (pretrained, decays), parameters in groups.items()
    ]


def set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Set every group's rate for ``step``, counted from 0."""
    factor = learning_rate_factor(recipe, step)
    for group in optimiser.param_groups:
        group["lr"] = group["peak_lr"] * factor


def learning_rate_factor(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth, or a tenth at each of the milestones."""
    warm = min((step + 1) / max(recipe.warmup, 1), 1.0)
    if recipe.schedule == "steps":
        return warm * 0.1 ** sum(step >= milestone for milestone in recipe.milestones)
    progress = max(step - recipe.warmup, 0) / max(recipe.steps - recipe.warmup, 1)
    return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
