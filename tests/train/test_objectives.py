import numpy as np
import pytest
import torch

from deixis.data.batches import collate
from deixis.language.tokenizers import WordTokenizer
from deixis.structures import AnnotatedImage, Expression
from deixis.train.objectives import Objective, mean_where, pixels_of


class Given(Objective):
    """Losses that are given."""

    weights = {"a": 2.0, "b": 0.5}  # noqa: RUF012

    def losses(self, batch):
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
    held = Given(WordTokenizer(["dog"], max_tokens=3))
    assert held.total({"a": torch.tensor(3.0), "b": torch.tensor(4.0)}).item() == 8
    assert held.total({"b": torch.tensor(4.0)}).item() == 2
    assert list(held.helper.parameters()) == []


def test_words_of_when_asked_then_the_tokenizers_ids(batch):
    ids, valid = Given(WordTokenizer(["dog", "red"], max_tokens=3)).words_of(batch, torch.device("cpu"))
    assert ids.tolist() == [[3, 2], [1, 0]]
    assert valid.tolist() == [[True, True], [True, False]]


def test_pixels_of_when_asked_then_0_to_1_and_channels_first(batch):
    pixels = pixels_of(batch, torch.device("cpu"))
    assert pixels.shape == (1, 3, 64, 64)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels[0, :, 1, 2].tolist() == pytest.approx((batch.pixels[0, 1, 2] / 255).tolist())
    assert pixels.max() == 1
