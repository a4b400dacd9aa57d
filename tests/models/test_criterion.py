import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.batches import collate
from deixis.language.tokenizers import WordTokenizer
from deixis.models.criterion import Criterion, giou_loss, mean_where, pixels_of, word_loss
from deixis.structures import AnnotatedImage, Expression


class Given(Criterion):
    """Losses that are given."""

    weights = {"a": 2.0, "b": 0.5}  # noqa: RUF012

    def forward(self, batch):
        return {}


@pytest.fixture
def batch():
    image = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
    expressions = tuple(Expression(phrase, (0, 0, 9, 9), None, "") for phrase in ("red dog", "cat"))
    return collate([AnnotatedImage(image, expressions=expressions)], 64, np.random.default_rng(0), 0.0)


def test_mean_where_when_worked_by_hand_then_that():
    values = torch.tensor([1.0, 5.0, torch.inf])
    assert mean_where(values, torch.tensor([True, True, False])).item() == 3
    assert mean_where(values, torch.tensor([False, False, False])).item() == 0


def test_total_when_worked_by_hand_then_the_weighted_sum_of_what_is_there():
    held = Given(torch.nn.Linear(1, 1), WordTokenizer(["dog"], max_tokens=3), [2])
    assert held.total({"a": torch.tensor(3.0), "b": torch.tensor(4.0)}).item() == 8
    assert held.total({"b": torch.tensor(4.0)}).item() == 2
    assert list(held.helper.parameters()) == []


def test_words_of_when_asked_then_the_tokenizers_ids(batch):
    ids, valid = Given(torch.nn.Linear(1, 1), WordTokenizer(["dog", "red"], max_tokens=3), [2]).words_of(batch)
    assert ids.tolist() == [[3, 2], [1, 0]]
    assert valid.tolist() == [[True, True], [True, False]]


def test_pixels_of_when_asked_then_0_to_1_and_channels_first(batch):
    pixels = pixels_of(batch, torch.device("cpu"))
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels[0, :, 1, 2].tolist() == pytest.approx((batch.pixels[0, 1, 2] / 255).tolist())
    assert pixels.max() == 1


def boxes_of(draw_xywh):
    x, y, w, h = draw_xywh
    return torch.tensor([x, y, x + w, y + h])


some_box = st.tuples(*[st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.01, 0.5), st.floats(0.01, 0.5)]).map(boxes_of)


# giou


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 0.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 - 1 / 3),  # hull is the union
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 - 1 / 7 + 2 / 9),  # union 7, hull 9
        ((0, 0, 1, 1), (2, 0, 3, 1), 1 + 1 / 3),  # apart: union 2, hull 3
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 - 4 / 16),  # one in the other
    ],
)
def test_giou_when_worked_by_hand_then_that(a, b, expected):
    a, b = torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)
    assert giou_loss(a, b).item() == pytest.approx(expected, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(some_box, some_box)
def test_giou_when_any_boxes_then_symmetric_and_within_0_and_2(a, b):
    loss = giou_loss(a, b)
    torch.testing.assert_close(loss, giou_loss(b, a))
    assert -1e-5 <= loss.item() <= 2


def test_giou_when_a_box_has_no_area_then_loss_and_gradient_are_finite():
    box = torch.tensor([0.3, 0.3, 0.3, 0.3], requires_grad=True)
    loss = giou_loss(box, torch.tensor([0.6, 0.6, 0.6, 0.6]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(box.grad).all()


# word_loss


def test_word_loss_when_worked_by_hand_then_the_cells_cross_entropies_by_their_share():
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0], [9.0, 0.0]]])  # the first word at 3/4, at 1/2, ...
    cells = torch.tensor([[0.75, 0.25, 0.0]])
    first = -0.75 * math.log(0.75) - 0.25 * math.log(0.5)
    second = -0.75 * math.log(0.25) - 0.25 * math.log(0.5)
    for label, expected in ((0, first), (1, second)):
        assert word_loss(logits, torch.tensor([label]), cells).item() == pytest.approx(expected, rel=1e-6)


def test_word_loss_when_the_word_is_not_known_then_0_and_no_gradient():
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = word_loss(logits, torch.tensor([-1, 2]), torch.full((2, 4), 0.25))
    assert loss.shape == (2,)
    assert loss[0].item() == 0
    loss.sum().backward()
    assert not logits.grad[0].any()
    assert logits.grad[1].any()


def test_word_loss_when_uniform_then_the_logarithm_of_how_many():
    loss = word_loss(torch.zeros(1, 4, 11, dtype=torch.bfloat16), torch.tensor([7]), torch.full((1, 4), 0.25))
    torch.testing.assert_close(loss, torch.tensor([math.log(11)]))


def test_word_loss_when_there_are_no_things_then_none():
    assert word_loss(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)).shape == (0,)
