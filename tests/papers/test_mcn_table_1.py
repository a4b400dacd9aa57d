from dataclasses import replace

import numpy as np
import pytest
import torch

from deixis.data import Samples
from deixis.geometry.images import letterbox
from deixis.geometry.masks import encode_rle
from deixis.models.base import Answer
from deixis.papers.mcn_table_1 import format_mcn_table_1, mcn_table_1, raw_answers
from deixis.papers.printed import MCN_TABLE_1
from deixis.structures import Sample

BOX = (8.0, 16.0, 24.0, 40.0)


def mask_of(box, hw=(64, 64)):
    mask = np.zeros(hw, bool)
    mask[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])] = True
    return mask


def sample(number=1, phrase="dog", image_id="a", *, readable=True, **fields):
    known = {"box_xyxy_px": BOX, "mask": encode_rle(mask_of(BOX))}
    image = np.full((64, 64, 3), 0 if readable else 255, np.uint8)
    return Sample(id=str(number), image=image, image_id=image_id, phrase=phrase, **{**known, **fields})


class FakeScene:
    def __init__(self, image, answer, asked):
        self.frame, self._answer, self._asked = letterbox(image, 64)[1], answer, asked

    def answer(self, phrases):
        if "refused" in phrases:
            raise ValueError("expected a phrase that is short, got 'refused'")
        self._asked.append(phrases)
        return repeated(self._answer, len(phrases))


class FakeGrounder:
    """Answers every phrase alike; writes down what it was asked."""

    name = "fake"

    class model:  # noqa: N801  stands for an instance
        suppression_order = "original"

    def __init__(self, answer):
        self._answer, self.looks, self.asked = answer, 0, []

    def look(self, image):
        if image.any():
            raise FileNotFoundError("expected an image file, found nothing at 'gone.jpg'")
        self.looks += 1
        return FakeScene(image, self._answer, self.asked)


def repeated(answer, count):
    parts = (answer.boxes, answer.mask_probability, answer.confidence, answer.signs)
    return Answer(*(None if one is None else one.expand(count, *one.shape[1:]) for one in parts))


def answer_of(box=BOX, probability=None, confidence=1.0):
    """The mask covers the box of the sample and as much again to the right of it, at a probability of 0.6."""
    if probability is None:
        probability = 0.6 * mask_of((8, 16, 40, 40)).astype(np.float32)
    boxes = torch.tensor([box]) / 64
    return Answer(boxes, torch.from_numpy(probability)[None], torch.tensor([confidence]), torch.zeros(1, 1))


def test_mcn_table_1_when_mask_reaches_beyond_the_box_then_worked_by_hand():
    tallies = mcn_table_1(FakeGrounder(answer_of(confidence=0.5)), [sample()]).tallies
    miou = {name: tally.report()["res"]["miou"] for name, tally in tallies.items()}
    # outside of the box 0.6 becomes 0 (crop), 0.3 (soft) and 0.6 * 0.5 = 0.3 (adaptive): all below 0.35
    assert miou == {"none": 0.5, "crop": 1.0, "soft": 1.0, "adaptive": 1.0}
    assert [round(tally.report()["ie"]) for tally in tallies.values()] == [1, 0, 0, 0]


def test_mcn_table_1_when_samples_lack_box_or_mask_then_left_out_and_refused_if_none_stays():
    grounder = FakeGrounder(answer_of())
    bare = [sample(box_xyxy_px=None, mask=None), sample(mask=None)]
    table = mcn_table_1(grounder, [*bare, sample()])
    assert (table.tallies["none"].n, table.problems, table.num_left_out) == (1, (), 2)
    assert "2 left out, 2 of them as they have not both box and mask" in format_mcn_table_1(table, "toy")
    assert grounder.asked == [["dog"]]  # and nobody asks what cannot be counted
    with pytest.raises(ValueError, match="expected samples with box and mask, got none;"):
        mcn_table_1(grounder, bare)


def test_mcn_table_1_when_neighbours_share_an_image_then_one_look_and_one_batch():
    grounder = FakeGrounder(answer_of())
    data = [sample(1), sample(2, "cat"), sample(3, mask=None), sample(4, "left"), sample(5, image_id="b"), sample(6)]
    assert mcn_table_1(grounder, data).tallies["none"].n == 5
    assert grounder.looks == 3
    assert grounder.asked == [["dog", "cat", "left"], ["dog"], ["dog"]]


def test_raw_answers_when_phrases_are_asked_together_then_each_has_its_own_row():
    boxes = torch.tensor([(0.0, 0.0, 8.0, 8.0), (8.0, 16.0, 24.0, 40.0)]) / 64
    masks = torch.stack([torch.full((64, 64), 0.25), torch.full((64, 64), 0.75)])
    grounder = FakeGrounder(Answer(boxes, masks, torch.tensor([0.125, 0.5]), torch.zeros(2, 1)))
    one, two = raw_answers(grounder, [sample(1), sample(2, "cat")], [])
    assert (one.box_xyxy_canvas_px, one.confidence, one.probability.max()) == ((0, 0, 8, 8), 0.125, 0.25)
    assert (two.box_xyxy_canvas_px, two.confidence, two.probability.max()) == ((8, 16, 24, 40), 0.5, 0.75)


def test_mcn_table_1_when_samples_are_bad_then_told_and_left_out_and_the_rest_measured(tmp_path):
    data = [
        sample(1),
        sample(2, image_id="b", readable=False),
        sample(3, "refused"),
        sample(4),
        sample(5, mask={"size": [3, 3], "counts": "9"}),
        sample(6, mask=tmp_path / "gone.png"),
        sample(7, box_xyxy_px=(70.0, 0.0, 80.0, 9.0)),
    ]
    table = mcn_table_1(FakeGrounder(answer_of()), Samples(data, ["line 9: expected a JSON object"]))
    assert table.tallies["none"].n == 2
    starts = ["line 9", "sample '2'", "sample '3'", "sample '5'", "sample '6'", "sample '7'"]
    assert [problem.split(":")[0] for problem in table.problems] == starts
    words = ("gone.jpg", "refused", "expected", "gone.png", "overlaps")
    assert all(word in problem for problem, word in zip(table.problems[1:], words, strict=True))
    assert "Ours, fake on toy, n = 2, 6 left out:" in format_mcn_table_1(table, "fake on toy")


def test_mcn_table_1_when_a_lazy_data_set_fails_at_one_index_then_told_and_left_out():
    class Lazy:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise OSError("expected a file")
            return sample(index)

    table = mcn_table_1(FakeGrounder(answer_of()), Lazy())
    assert (table.tallies["none"].n, table.problems) == (2, ("sample number 1: expected a file",))


def test_mcn_table_1_when_a_box_reaches_over_the_border_then_clipped():
    reaching = sample(box_xyxy_px=(-20.0, 16.0, 24.0, 40.0))
    (raw,) = raw_answers(FakeGrounder(answer_of()), [reaching], [])
    assert raw.target_box_xyxy_px == (0, 16, 24, 40)


def test_mcn_table_1_when_nothing_can_be_measured_then_the_first_reason():
    with pytest.raises(ValueError, match=r"got none \(sample '1': .*gone\.jpg"):
        mcn_table_1(FakeGrounder(answer_of()), [sample(1, readable=False)])


def test_mcn_table_1_when_progress_is_given_then_it_wraps_the_indices():
    seen = []

    def progress(indices):
        for index in indices:
            seen.append(index)
            yield index

    mcn_table_1(FakeGrounder(answer_of()), [sample(1), sample(2)], progress=progress)
    assert seen == [0, 1]


@pytest.mark.parametrize("lacking", ["boxes", "mask_probability"])
def test_mcn_table_1_when_model_gives_no_boxes_or_no_masks_then_one_sentence(lacking):
    grounder = FakeGrounder(replace(answer_of(), **{lacking: None}))
    with pytest.raises(ValueError, match="expected a model of boxes and masks, got 'fake'"):
        mcn_table_1(grounder, [sample()])


def test_format_mcn_table_1_when_written_then_paper_and_signs_stand_in_it():
    text = format_mcn_table_1(mcn_table_1(FakeGrounder(answer_of(confidence=0.5)), [sample()]), "fake on toy")
    assert "Ours, fake on toy, n = 1:" in text
    assert "| ASNLS | 62.44 | 76.60 | 70.33 | 58.39 | 33.68 | 5.26 | 6.65 |" in text
    assert "ASNLS against none: IoU +50.00 (paper +0.83), IE -100.00 (paper -3.72)" in text
    assert all(len(row) == 7 for row in MCN_TABLE_1.values())
