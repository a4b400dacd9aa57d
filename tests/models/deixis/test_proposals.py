import pytest
import torch

from deixis.config import preset
from deixis.models.deixis.detector import CLASSES, WIDTH, Detections
from deixis.models.deixis.proposals import (
    COLOUR_GRID,
    Proposer,
    cell_boxes,
    choose,
    feature_widths,
    inside,
    place_scores,
    sample,
)
from deixis.models.encoders.image import Pyramid

WHOLE = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
BAND = torch.tensor([[0.0, 0.25, 1.0, 0.75]])  # a picture twice as wide as high


def seen_at_64(batch=1):
    """A detector's maps of a canvas of 64, random; boxes of 0.2 around random places."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(batch, WIDTH, side, side, generator=generator) for side in (8, 4, 2, 1)]
    middle = torch.rand(batch, 85, 2, generator=generator)
    return Detections(
        maps=maps,
        towers=torch.randn(batch, 85, WIDTH, generator=generator),
        class_logits=torch.randn(batch, 85, CLASSES, generator=generator),
        thing_logits=torch.randn(batch, 85, generator=generator),
        boxes=torch.cat([middle - 0.1, middle + 0.1], -1),
    )


def pyramid_at_64(batch=1, channels=5):
    generator = torch.Generator().manual_seed(1)
    return Pyramid(*(torch.rand(batch, channels, side, side, generator=generator) for side in (16, 8, 4, 2)))


def pixels_at_64(batch=1):
    return torch.rand(batch, 3, 64, 64, generator=torch.Generator().manual_seed(2))


# proposals


@pytest.mark.parametrize("candidates", [1, 12, 85])
def test_proposer_when_the_canvas_is_small_then_so_many_candidates_and_cells(candidates):
    found = Proposer(candidates=candidates, cells=3)(pixels_at_64(), pyramid_at_64(), seen_at_64(), WHOLE)
    num = candidates + 9
    width = sum(feature_widths(5).values())
    assert found.features.shape == (1, num, width)
    assert (found.boxes.shape, found.scores.shape, found.valid.shape) == ((1, num, 4), (1, num), (1, num))
    assert found.is_cell[0].tolist() == [False] * candidates + [True] * 9
    assert found.valid[:, candidates:].all()
    assert (found.scores[:, candidates:] == 0).all()
    scores = found.scores[0, :candidates]
    assert ((scores >= 0) & (scores <= 1)).all()
    assert torch.equal(found.content, WHOLE)


def test_candidates_when_more_than_places_then_refused_by_the_config():
    assert preset("deixis-tiny", image_size=64, candidates=85).places == 85
    with pytest.raises(ValueError, match=r"expected candidates to be at most 85, .* on a canvas of 64, got 86"):
        preset("deixis-tiny", image_size=64, candidates=86)


def test_candidates_when_more_than_are_kept_before_suppression_then_all_the_same():
    scores, boxes = torch.rand(1, 400, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 400, 4)
    assert choose(scores, boxes, 350)[0].unique().numel() == 350


def test_proposer_when_features_are_taken_then_the_places_and_the_boxs_own():
    seen, pyramid, pixels = seen_at_64(), pyramid_at_64(), pixels_at_64()
    found = Proposer(candidates=4, cells=1)(pixels, pyramid, seen, WHOLE)
    parts = dict(zip(feature_widths(5), found.features.split([*feature_widths(5).values()], -1), strict=True))
    best = place_scores(seen, WHOLE)[0].argmax()
    assert torch.equal(parts["classes"][0, 0], seen.class_logits[0, best])
    assert torch.equal(parts["thing"][0, 0, 0], seen.thing_logits[0, best])
    assert torch.equal(parts["tower"][0, 0], seen.towers[0, best])
    # the only cell is the canvas: the place at stride 32 that its middle lies in, which is the last of 2 x 2
    assert torch.equal(parts["tower"][0, 4], seen.towers[0, 64 + 16 + 3])
    torch.testing.assert_close(parts["body8"], sample(pyramid.stride8, found.boxes, 3).mean(-1))
    for name, features in (("level8", seen.maps[0]), ("level16", seen.maps[1]), ("level32", seen.maps[2])):
        torch.testing.assert_close(parts[name], sample(features, found.boxes, 3).mean(-1))
    # 8 x 8 places over 64 pixels lie between four pairs of pixels: at 3.5 of 32, the mean of places 3 and 4
    halved = torch.nn.functional.avg_pool2d(pixels, 2)
    corner = halved[0, :, 1:3, 1:3].mean((1, 2)) - 0.5
    torch.testing.assert_close(parts["colours"][0, 4].view(3, 8, 8)[:, 0, 0], corner)
    assert parts["colours"].shape[-1] == 3 * COLOUR_GRID**2


def test_proposer_when_places_lie_off_the_picture_then_not_valid_and_boxes_are_cut():
    seen = seen_at_64()
    found = Proposer(candidates=85, cells=2)(pixels_at_64(), pyramid_at_64(), seen, BAND)
    there = ((seen.boxes[0, :, 1] + 0.1 > 0.25) & (seen.boxes[0, :, 1] + 0.1 < 0.75)).sum()
    assert found.valid[0, :85].sum() == there < 85
    assert (found.valid[0, :85] == (found.scores[0, :85] > 0)).all()
    assert (found.boxes[..., 1] >= 0.25).all()
    assert (found.boxes[..., 3] <= 0.75).all()


def test_proposer_when_boxes_have_a_gradient_then_none_goes_through_proposals():
    seen = seen_at_64()
    seen.boxes.requires_grad_()
    found = Proposer(candidates=4, cells=2)(pixels_at_64(), pyramid_at_64(), seen, WHOLE)
    assert not found.boxes.requires_grad
    assert not found.scores.requires_grad


def test_pick_when_rows_repeat_then_each_field_follows():
    found = Proposer(candidates=4, cells=2)(pixels_at_64(2), pyramid_at_64(2), seen_at_64(2), WHOLE.expand(2, 4))
    picked = found.pick(torch.tensor([1, 0, 1]))
    assert torch.equal(picked.features, found.features[[1, 0, 1]])
    assert torch.equal(picked.boxes[0], picked.boxes[2])
    assert len(picked.content) == 3


# scores and the choice of candidates


def test_scores_when_by_hand_then_the_likelier_of_category_and_thing_and_off_the_picture_minus_1():
    seen = seen_at_64()
    seen.class_logits[0] = -9
    seen.class_logits[0, :3, 7] = torch.tensor([0.0, 2.0, 3.0])
    seen.thing_logits[0, :3] = torch.tensor([1.0, 1.0, 1.0])
    seen.boxes[0, :3] = torch.tensor([[0, 0.4, 0.2, 0.6], [0.4, 0.4, 0.6, 0.6], [0, 0, 0.2, 0.2]])
    expected = torch.tensor([torch.tensor(1.0).sigmoid(), torch.tensor(2.0).sigmoid(), -1.0])
    torch.testing.assert_close(place_scores(seen, BAND)[0, :3], expected)


def row_of(*starts):
    """Boxes of width 1 beside each other, from these x on: those d apart have IoU (1 - d) / (1 + d)."""
    return torch.tensor([[[x, 0.0, x + 1, 1.0] for x in starts]])


def test_choose_when_one_hides_another_then_the_next_best():
    scores = torch.tensor([[0.5, 0.9, 0.8, 0.2]])
    boxes = row_of(0.0, 2.0, 2.1, 4.0)  # the third lies upon the second: 0.9 / 1.1 = 0.82
    assert choose(scores, boxes, 3).tolist() == [[1, 0, 3]]


def test_choose_when_overlap_is_at_most_the_limit_then_both_stay():
    assert choose(torch.tensor([[0.9, 0.8]]), row_of(0.0, 0.18), 2).tolist() == [[0, 1]]  # 0.82 / 1.18 = 0.69
    assert choose(torch.tensor([[0.9, 0.8, 0.1]]), row_of(0.0, 0.17, 3.0), 2).tolist() == [[0, 2]]  # 0.83 / 1.17 = 0.71


def test_choose_when_in_a_chain_then_a_hidden_one_hides_the_next_too():
    # each upon its neighbour alone: 0.85 / 1.15 = 0.74, two steps apart 0.7 / 1.3 = 0.54
    boxes = row_of(0.0, 0.15, 0.3, 5.0)
    assert choose(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), boxes, 2).tolist() == [[0, 3]]


def test_choose_when_too_few_are_left_then_hidden_ones_by_their_scores_and_at_last_those_off_the_picture():
    boxes = row_of(0.0, 0.0, 0.0, 5.0, 7.0)
    scores = torch.tensor([[0.6, 0.9, 0.8, -1.0, 0.1]])
    assert choose(scores, boxes, 5).tolist() == [[1, 4, 2, 0, 3]]


def test_choose_when_images_differ_then_each_has_its_own():
    scores = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    assert choose(scores, row_of(0.0, 3.0).expand(2, -1, -1), 1).tolist() == [[0], [1]]


# boxes and samples


def test_sample_when_the_map_is_a_ramp_then_the_values_at_the_places():
    # pixel i of 8 has its middle at (i + 0.5) / 8 and the value i, so x has the value 8 x - 0.5
    ramp = torch.arange(8.0).expand(8, 8)
    features = torch.stack([ramp, ramp.T])[None]
    box = torch.tensor([[[0.25, 0.125, 0.75, 0.875]]])
    found = sample(features, box, 2)
    assert found.shape == (1, 1, 2, 4)
    x, y = (0.375, 0.625), (0.3125, 0.6875)  # a quarter and three quarters of the way
    expected = torch.tensor([[8 * x[0] - 0.5, 8 * x[1] - 0.5] * 2, [8 * y[0] - 0.5] * 2 + [8 * y[1] - 0.5] * 2])
    torch.testing.assert_close(found[0, 0], expected)


def test_sample_when_features_are_bfloat16_then_float32():
    found = sample(torch.ones(1, 2, 4, 4, dtype=torch.bfloat16), torch.tensor([[[0.2, 0.2, 0.8, 0.8]]]), 3)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.ones(1, 1, 2, 9))


def test_cell_boxes_when_the_picture_is_a_band_then_its_quarters_rows_first():
    expected = torch.tensor([[[0.0, 0.25, 0.5, 0.5], [0.5, 0.25, 1, 0.5], [0, 0.5, 0.5, 0.75], [0.5, 0.5, 1, 0.75]]])
    torch.testing.assert_close(cell_boxes(2, BAND), expected)


def test_cell_boxes_when_there_is_one_then_the_picture():
    torch.testing.assert_close(cell_boxes(1, BAND), BAND[:, None])


def test_inside_when_boxes_leave_the_picture_then_cut():
    boxes = torch.tensor([[[-1.0, 0.0, 0.5, 2.0], [0.1, 0.3, 0.2, 0.4], [0.5, 0.9, 0.6, 1.0]]])
    cut = torch.tensor([[[0.0, 0.25, 0.5, 0.75], [0.1, 0.3, 0.2, 0.4], [0.5, 0.75, 0.6, 0.75]]])
    torch.testing.assert_close(inside(boxes, BAND), cut)
