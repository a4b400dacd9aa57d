"""A stand-in for the grounder and samples on one image size, for the tests of evaluation."""

from dataclasses import dataclass

import numpy as np
import pytest

from deixis.geometry.masks import encode_rle
from deixis.structures import Instance, Sample

HW = (10, 20)


def filled_mask(box):
    x1, y1, x2, y2 = box
    mask = np.zeros(HW, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


@dataclass
class FakeAnswer:
    box: tuple | None
    mask: np.ndarray | None
    score: float
    agreement: float
    found: bool
    hw: tuple = HW


class FakeScene:
    def __init__(self, grounder):
        self.grounder = grounder

    def ground_all(self, phrases):
        self.grounder.asked.append(list(phrases))
        if self.grounder.dies_at in phrases:
            raise KeyboardInterrupt
        return [self.grounder.answer(phrase) for phrase in phrases]


class FakeGrounder:
    """A phrase "4 3 0.8" is answered by a box 4 wide, a mask 3 wide, score 0.8; others by the left half, score 0.9."""

    def __init__(self, name="fake", shrink=1, dies_at=None):
        self.name, self.suppression, self.shrink, self.dies_at = name, "none", shrink, dies_at
        self.asked = []

    def look(self, image):
        return FakeScene(self)

    def answer(self, phrase):
        parts = phrase.split()
        if len(parts) != 3 or not parts[0].isdigit():
            parts = ["10", "10", "0.9"]
        box, mask, score = int(parts[0]) // self.shrink, int(parts[1]) // self.shrink, float(parts[2])
        drawn = (0, 0, max(box, 1), 10)
        return FakeAnswer(drawn, filled_mask((0, 0, mask, 10)), score, min(mask, box) / 10, score >= 0.5)


@pytest.fixture
def fake_grounder():
    return FakeGrounder


@pytest.fixture
def make_sample():
    """A sample whose thing fills the left half of its image."""

    def make(number, phrase="10 10 0.9", image=None, box=(0, 0, 10, 10), categories=(), category="dog", **fields):
        pixels = np.zeros((*HW, 3), dtype=np.uint8)
        things = tuple(Instance(category=name, box_xyxy_px=(0, 0, 10, 10)) for name in categories)
        return Sample(
            id=f"s{number}", image=pixels, image_id=str(number if image is None else image), phrase=phrase,
            box_xyxy_px=box, mask=None if box is None else encode_rle(filled_mask(box)), category=category,
            instances=things, **fields,
        )  # fmt: skip

    return make
