import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deixis.train import setup as starting
from deixis.train.optimisers import build_optimiser, learning_rate_factor, parameter_groups, set_learning_rate
from deixis.train.recipes import recipe


def criterion_with(helper):
    """A criterion as far as an optimiser asks one."""
    return SimpleNamespace(helper=helper, sigmas=list, project=lambda: None)


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.5), (1, 1.0), (2, 1.0), (4, 0.505), (6, 0.01), (100, 0.01)],  # at 4: 0.01 + 0.99 / 2
)
def test_learning_rate_when_worked_by_hand_then_warm_up_and_half_a_cosine(step, factor):
    made = recipe("debug", warmup=2, steps=6)
    optimiser = torch.optim.SGD(
        [{"params": [torch.zeros(1, requires_grad=True)], "peak_lr": peak} for peak in (2.0, 0.1)]
    )
    set_learning_rate(optimiser, made.optimiser, step)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([2.0 * factor, 0.1 * factor])


def test_learning_rate_when_no_warm_up_then_full_at_once():
    optimiser = torch.optim.SGD([{"params": [torch.zeros(1, requires_grad=True)], "peak_lr": 1.0}])
    set_learning_rate(optimiser, recipe("debug", warmup=0, steps=6).optimiser, 0)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.25), (3, 1.0), (9, 1.0), (10, 0.1), (11, 0.1), (12, 0.01), (99, 0.01)],
)
def test_learning_rate_when_in_steps_then_a_tenth_from_each_milestone_on(step, factor):
    made = recipe("debug", schedule="steps", milestones=(10, 12), warmup=4, steps=20)
    assert learning_rate_factor(made.optimiser, step) == pytest.approx(factor)


def test_learning_rate_when_in_steps_without_milestones_then_it_stays():
    made = recipe("debug", schedule="steps", warmup=0, steps=3)
    assert {learning_rate_factor(made.optimiser, step) for step in range(5)} == {1.0}


PRETRAINED = ("image.encoder.", "image.neck.", "image.head.", "text.bert.")


def test_groups_when_encoders_are_pretrained_then_their_rate_and_no_decay_on_biases(small_recipe):
    made = small_recipe.replaced(image_weights="folder", lr=1.0, pretrained_lr=0.1, weight_decay=0.5)
    model, _ = starting.start_model(small_recipe)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = set()
    for group in parameter_groups(model, made):
        for p in group["params"]:
            name = names[id(p)]
            seen.add(name)
            assert group["peak_lr"] == (0.1 if name.startswith(PRETRAINED) else 1.0), name
            assert group["weight_decay"] == (0.5 if p.ndim > 1 else 0.0), name
    assert seen == {name for name, p in model.named_parameters() if p.requires_grad}


def test_groups_when_image_encoder_is_from_scratch_then_full_rate(small_recipe):
    model, _ = starting.start_model(small_recipe)
    own = {id(p) for p in model.image.encoder.parameters()}
    rates = {g["peak_lr"] for g in parameter_groups(model, small_recipe) if any(id(p) in own for p in g["params"])}
    assert rates == {small_recipe.optimiser.lr}


@pytest.mark.parametrize("source", ["image_weights", "start", "text_weights", ""])
def test_groups_when_mcn_then_the_image_encoder_alone_may_be_pretrained(small_mcn_recipe, source):
    model, _ = starting.start_model(small_mcn_recipe)
    made = small_mcn_recipe.replaced(lr=1.0, pretrained_lr=0.1, **({source: "folder"} if source else {}))
    names = {id(p): name for name, p in model.named_parameters()}
    for group in parameter_groups(model, made):
        for p in group["params"]:
            of_image = names[id(p)].startswith("encoder.") and source in ("image_weights", "start")
            assert group["lr"] == group["peak_lr"] == (0.1 if of_image else 1.0), names[id(p)]


@pytest.mark.parametrize(("optimiser", "dimensions"), [("adam", {4}), ("adamw", {2, 3, 4})])
def test_groups_when_adam_then_kernels_of_convolutions_alone_decay_and_with_adamw_all_matrices(
    small_mcn_recipe, optimiser, dimensions
):
    made = small_mcn_recipe.replaced(optimiser=optimiser, weight_decay=0.5)
    model, _ = starting.start_model(made)
    words = model.text.vectors.weight
    assert words.requires_grad
    decay = {id(p): g["weight_decay"] for g in parameter_groups(model, made) for p in g["params"]}
    for name, p in model.named_parameters():
        assert decay[id(p)] == (0.5 if p.ndim in dimensions else 0.0), name
    assert decay[id(words)] == (0.0 if optimiser == "adam" else 0.5)


def test_step_when_adam_then_a_word_that_no_phrase_has_keeps_its_vector(small_mcn_recipe):
    made = small_mcn_recipe.replaced(optimiser="adam", weight_decay=0.5)
    model, _ = starting.start_model(made)
    before = model.text.vectors.weight.detach().clone()
    optimiser = build_optimiser(model, criterion_with(nn.Module()), made)
    model.text(torch.tensor([[2, 3]]), torch.ones(1, 2, dtype=torch.bool)).sum().backward()
    optimiser.step()
    after = model.text.vectors.weight
    assert not torch.equal(after[2], before[2])
    assert torch.equal(after[4:], before[4:])


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_optimiser_when_named_then_of_that_kind_over_model_and_helper(small_mcn_recipe, name, kind):
    model, _ = starting.start_model(small_mcn_recipe)
    helper = nn.Linear(3, 2)
    made = small_mcn_recipe.replaced(optimiser=name, lr=0.3, weight_decay=0.5)
    optimiser = build_optimiser(model, criterion_with(helper), made)
    assert type(optimiser) is kind
    held = [p for group in optimiser.param_groups for p in group["params"]]
    wanted = [p for p in [*model.parameters(), *helper.parameters()] if p.requires_grad]
    assert len(held) == len(wanted)
    assert {id(p) for p in held} == {id(p) for p in wanted}
    last = optimiser.param_groups[-1]
    assert (last["lr"], last["peak_lr"], last["weight_decay"]) == (0.3, 0.3, 0.0)


def one_step(kind, gradient, decay):
    """What Adam of that kind makes of a weight of 2 in its first step at a rate of 0.1."""

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.full((1, 1, 1, 1), 2.0))

        def pretrained_parameters(self):
            return {"image": [], "text": []}

    model = One()
    optimiser = build_optimiser(
        model, criterion_with(nn.Module()), recipe("debug", optimiser=kind, lr=0.1, weight_decay=decay)
    )
    model.weight.grad = torch.full((1, 1, 1, 1), gradient)
    optimiser.step()
    return model.weight.item()


def test_weight_decay_when_adam_then_it_is_part_of_the_gradient_and_with_adamw_beside_it():
    assert one_step("adamw", 0.0, 0.5) == pytest.approx(2 - 0.1 * 0.5 * 2)
    assert one_step("adam", 0.0, 0.5) == pytest.approx(2 - 0.1)  # the penalty's gradient, normalised to 1
    assert one_step("adam", -1.0, 0.5) == pytest.approx(2, abs=1e-6)  # it weighs against the loss's
    assert math.isclose(one_step("adam", 3.0, 0.0), one_step("adamw", 3.0, 0.0))
