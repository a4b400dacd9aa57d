import dataclasses
import math

import numpy as np
import pytest
import torch

from deixis.data.attributes import WORD_GROUPS, word_labels
from deixis.data.loading import Picture, Target, Thing, collate
from deixis.train import starting
from deixis.train.deixis_objective import DeixisObjective
from deixis.train.objectives import told_words_loss

SIZES = [len(group) for group in WORD_GROUPS]


@pytest.fixture
def objective(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    return DeixisObjective(model, tokenizer, small_recipe)


def half_picture(side, value, category="dog", *, with_mask=True, attributes=()):
    """Grey, with a brighter half: its box is known, its mask perhaps."""
    image = np.full((32, 32, 3), 60, np.uint8)
    mask = np.zeros((32, 32), bool)
    columns = slice(0, 16) if side == "left" else slice(16, 32)
    image[:, columns] = value
    mask[:, columns] = True
    box = (float(columns.start), 0.0, float(columns.stop), 32.0)
    target = Target(f"{side} {category}", box, mask if with_mask else None, category)
    return Picture(image, [target], frozenset({category}), [Thing(mask, word_labels(category, attributes))])


def collated(*pictures, absent=0.0):
    return collate(list(pictures), 64, np.random.default_rng(0), absent)


def test_losses_when_mask_is_unknown_then_projection_and_else_mask(objective):
    known = objective.losses(collated(half_picture("left", 200)))
    unknown = objective.losses(collated(half_picture("left", 200, with_mask=False)))
    assert (known["mask"] > 0, known["projection"] == 0) == (True, True)
    assert (unknown["mask"] == 0, unknown["projection"] > 0) == (True, True)


def test_losses_when_phrase_means_nothing_then_mask_and_existence_alone_tell_of_it(objective):
    pictures = [half_picture("left", 200, "dog"), half_picture("right", 200, "cat")]
    whole = collated(*(dataclasses.replace(p, things=[]) for p in pictures), absent=1.0)
    chosen = ~whole.present
    absent = dataclasses.replace(
        whole, phrases=[p for p, c in zip(whole.phrases, chosen, strict=True) if c],
        **{name: getattr(whole, name)[chosen] for name in ("image_index", "boxes", "masks", "has_mask", "present")},
    )  # fmt: skip
    assert len(absent.phrases) == 2
    parts = objective.losses(absent)
    assert {name for name, value in parts.items() if value > 0} == {"mask", "exists"}


def test_losses_when_trained_then_every_trainable_parameter_gets_a_gradient(objective):
    one = half_picture("left", 200, attributes=("red", "striped"))
    batch = collated(one, half_picture("right", 30, "cat", with_mask=False), absent=1.0)
    sum(objective.losses(batch).values()).backward()
    parameters = [*objective.model.named_parameters(), *objective.helper.named_parameters()]
    without = {n for n, p in parameters if p.requires_grad and (p.grad is None or not p.grad.any())}
    # a softmax does not see what is added to all of its inputs: at most rounding reaches these
    assert {name for name in without if not name.endswith(("key.bias", "energy.bias"))} == set()


def test_weights_when_asked_then_the_recipes_for_every_loss(small_recipe):
    model, tokenizer = starting.start_model(small_recipe)
    names = ("heat", "box", "mask", "projection", "exists", "consistency", "words")
    made = dataclasses.replace(small_recipe, **{f"{name}_weight": 1.0 + k for k, name in enumerate(names)})
    held = DeixisObjective(model, tokenizer, made)
    assert held.weights == {name: 1.0 + k for k, name in enumerate(names)}
    parts = held.losses(collated(half_picture("left", 200)))
    assert parts.keys() == held.weights.keys()
    assert held.total(parts).item() == pytest.approx(sum(held.weights[n] * v.item() for n, v in parts.items()))


# the words told from the image


def test_words_when_nothing_is_told_apart_then_the_logarithm_of_how_many_words_there_are():
    batch = collated(half_picture("left", 200, attributes=("red",)), half_picture("right", 90, "cat"))
    logits = torch.zeros(2, 16, sum(SIZES))
    # two kinds and one colour are known
    expected = (2 * math.log(SIZES[0]) + math.log(SIZES[1])) / 3
    assert told_words_loss(logits, batch).item() == pytest.approx(expected, rel=1e-6)


def test_words_when_told_where_the_thing_lies_then_0_whatever_is_told_elsewhere():
    batch = collated(half_picture("left", 200, attributes=("red",)))
    logits = torch.zeros(1, 4, 4, sum(SIZES))
    logits[:, :, 2:] = torch.randn(1, 4, 2, sum(SIZES), generator=torch.Generator().manual_seed(0))
    logits[:, :, :2, WORD_GROUPS[0].index("dog")] = 100
    logits[:, :, :2, SIZES[0] + WORD_GROUPS[1].index("red")] = 100
    assert told_words_loss(logits.flatten(1, 2), batch).item() == pytest.approx(0, abs=1e-6)


def test_words_when_of_the_second_image_then_its_tokens_count():
    batch = collated(dataclasses.replace(half_picture("left", 9), things=[]), half_picture("left", 200, "cat"))
    logits = torch.zeros(2, 16, sum(SIZES))
    logits[1, :, WORD_GROUPS[0].index("cat")] = 100
    assert told_words_loss(logits, batch).item() == pytest.approx(0, abs=1e-6)


def test_words_when_nothing_is_known_then_0():
    batch = collated(dataclasses.replace(half_picture("left", 9), things=[]))
    assert told_words_loss(torch.randn(1, 16, sum(SIZES)), batch).item() == 0
