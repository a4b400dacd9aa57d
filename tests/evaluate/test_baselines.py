"""Baselines: small sets whose answers are known by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.evaluate.baselines import Case, best_constant_box, measure_baselines
from deixis.geometry.boxes import box_iou
from deixis.geometry.masks import encode_rle
from deixis.structures import Instance, Sample

HW = (10, 20)


def filled(box):
    x1, y1, x2, y2 = box
    mask = np.zeros(HW, dtype=bool)
    mask[y1:y2, x1:x2] = True
    return encode_rle(mask)


def thing(box, with_mask=True, is_crowd=False):
    return Instance(category="thing", box_xyxy_px=box, mask=filled(box) if with_mask else None, is_crowd=is_crowd)


def case(box, instances=(), with_mask=True, image_id="a"):
    return Case(
        hw=HW, image_id=image_id, box_xyxy_px=box, mask=filled(box) if with_mask else None, instances=tuple(instances)
    )


LARGE, SMALL, TINY = (0, 0, 10, 10), (12, 0, 16, 5), (18, 8, 20, 10)


def test_measure_baselines_when_two_things_then_largest_and_random_are_known():
    things = [thing(SMALL), thing(LARGE)]
    report = measure_baselines([case(LARGE, things), case(SMALL, things)])
    largest, random = report["largest_instance"], report["random_instance"]
    assert largest["n"] == random["n"] == 2
    assert largest["rec"]["acc@0.5"] == 0.5
    assert largest["res"]["miou"] == 0.5
    assert random["rec"]["acc@0.5"] == pytest.approx(0.5)
    # expected intersection: 100 / 2 + 20 / 2; expected union: (100 + 120) / 2 + (20 + 120) / 2
    assert random["res"]["oiou"] == pytest.approx(60 / 180)
    assert random["ie"] == 0.0


def test_measure_baselines_when_three_things_then_random_is_a_third():
    report = measure_baselines([case(TINY, [thing(SMALL), thing(LARGE), thing(TINY)])])
    assert report["random_instance"]["rec"]["acc@0.5"] == pytest.approx(1 / 3)
    assert report["random_instance"]["n"] == 1
    assert report["largest_instance"]["rec"]["acc@0.5"] == 0


def test_measure_baselines_when_no_instances_are_listed_then_null():
    report = measure_baselines([case(LARGE)])
    assert report["largest_instance"] is None
    assert report["random_instance"] is None
    assert report["best_constant_box"]["rec"]["acc@0.5"] == 1.0
    assert set(measure_baselines([]).values()) == {None}


def test_measure_baselines_when_instances_have_no_masks_then_box_part_only():
    report = measure_baselines([case(LARGE, [thing(LARGE, with_mask=False)])])["largest_instance"]
    assert report["rec"]["acc@0.5"] == 1.0
    assert report["res"] is None
    assert report["ie"] is None


def test_measure_baselines_when_an_instance_mask_is_malformed_then_it_counts_as_none():
    broken = Instance(category="thing", box_xyxy_px=LARGE, mask={"size": [1, 1], "counts": "zzz"})
    report = measure_baselines([case(LARGE, [broken])])["largest_instance"]
    assert report["rec"]["acc@0.5"] == 1.0
    assert report["res"] is None


def test_measure_baselines_when_all_targets_agree_then_constant_box_and_its_mask_are_right():
    report = measure_baselines([case(LARGE, image_id=str(i)) for i in range(3)])["best_constant_box"]
    assert report["box_xyxy_norm"] == [0, 0, 0.5, 1]
    assert report["rec"]["mean_iou"] == pytest.approx(1)
    assert report["res"]["miou"] == pytest.approx(1)


def test_case_of_when_phrase_means_nothing_then_none_and_crowds_are_left_out():
    fields = {"id": "1", "image": np.zeros((*HW, 3), dtype=np.uint8), "image_id": "a", "phrase": "dog"}
    assert Case.of(Sample(**fields, box_xyxy_px=None), HW) is None
    crowd = thing(LARGE, is_crowd=True)
    taken = Case.of(Sample(**fields, box_xyxy_px=SMALL, instances=(crowd, thing(SMALL))), HW)
    assert taken is not None
    assert [t.box_xyxy_px for t in taken.instances] == [SMALL]


def test_best_constant_box_when_two_clusters_then_the_larger_one_is_hit():
    rng = np.random.default_rng(0)
    left = np.array([0.05, 0.1, 0.45, 0.9]) + rng.normal(0, 0.01, (30, 4))
    right = np.array([0.6, 0.3, 0.9, 0.7]) + rng.normal(0, 0.01, (20, 4))
    box = best_constant_box(np.concatenate([left, right]))
    assert (box_iou(box, left) > 0.5).all()
    assert box_iou(box, np.array([0.05, 0.1, 0.45, 0.9])) > 0.9


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_best_constant_box_when_any_targets_then_no_target_and_no_quarter_does_better(seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((60, 2, 2)), axis=1)
    targets = corners.reshape(60, 4)
    hits = (box_iou(best_constant_box(targets), targets) > 0.5).sum()
    quarters = [[x, y, x + 0.5, y + 0.5] for x in (0, 0.5) for y in (0, 0.5)]
    others = np.concatenate([targets, quarters])
    assert hits >= (box_iou(others[:, None], targets[None]) > 0.5).sum(axis=1).max()


def test_best_constant_box_when_asked_twice_then_same():
    targets = np.sort(np.random.default_rng(1).random((50, 2, 2)), axis=1).reshape(-1, 4)
    assert best_constant_box(targets) == best_constant_box(targets)
