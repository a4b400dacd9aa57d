import itertools

import numpy as np
import pytest

from deixis.data.scenes import compose_scene, draw_sample, draw_scene, open_scenes, seed_scene
from deixis.data.scenes.layout import RADIUS
from deixis.data.scenes.vocabulary import COLOURS, FLAVOURS, HELD_OUT_PAIRS, SHAPES, SIZES, SPLITS, TEXTURES
from deixis.geometry.masks import decode_rle


def same(a, b):
    return a.id == b.id and a.phrase == b.phrase and a.mask == b.mask and np.array_equal(a.image, b.image)


@pytest.mark.parametrize("name", FLAVOURS)
def test_open_scenes_when_asked_twice_then_same_samples(name):
    first, second = open_scenes(name, "val", size=64), open_scenes(name, "val", size=64)
    assert len(first) == 1000
    assert all(same(first[k], second[k]) for k in (5, 3, 999))
    assert same(first[7], draw_sample(name, "val", 7, 64))
    assert same(first[-1], first[999])
    assert same(first[3:9:2][1], first[5])


def test_open_scenes_when_no_number_then_default_of_the_split():
    assert [len(open_scenes("scenes", split)) for split in SPLITS] == [100_000, 1000, 1000, 1000]
    assert len(open_scenes("scenes", "train", n=10**9)) == 10**9
    with pytest.raises(IndexError):
        open_scenes("scenes", "val", n=2)[2]


def test_open_scenes_when_split_flavour_seed_or_index_differs_then_another_picture():
    pictures = {
        open_scenes(name, split, size=64, seed=seed)[index].image.tobytes()
        for name in FLAVOURS
        for split in SPLITS
        for seed in (0, 1)
        for index in (0, 1, 2)
    }
    assert len(pictures) == 3 * 4 * 2 * 3


def test_seed_scene_when_splits_and_flavours_are_compared_then_no_two_alike():
    states = {
        tuple(seed_scene(name, split, index).generate_state(4))
        for name in FLAVOURS
        for split in SPLITS
        for index in range(200)
    }
    assert len(states) == 3 * 4 * 200


@pytest.mark.parametrize(
    ("name", "split", "size", "message"),
    [
        ("scene", "val", 64, "'scene'; choose one of scenes, scenes\\+, scenesg"),
        ("scenes", "test", 64, "'test'; choose one of train, val, testA, testB"),
        ("scenes", "val", 8, "at least 64 pixels, got 8"),
    ],
)
def test_open_scenes_when_argument_is_unknown_then_value_error_says_what_is_known(name, split, size, message):
    with pytest.raises(ValueError, match=message):
        open_scenes(name, split, size=size)


def test_draw_scene_when_several_phrases_then_one_image_and_different_referents():
    for index in range(15):
        image, samples = draw_scene("scenes", "train", index, 96, phrases=3)
        assert image.shape == (96, 96, 3)
        assert image.dtype == np.uint8
        assert 1 <= len(samples) <= 3
        assert len({sample.phrase for sample in samples}) == len(samples)
        assert all(sample.image is image for sample in samples)
        assert same(samples[0], draw_sample("scenes", "train", index, 96))
    with pytest.raises(ValueError, match="phrases >= 1"):
        draw_scene("scenes", "train", 0, 96, phrases=0)


@pytest.mark.parametrize("split", SPLITS)
def test_draw_scene_when_drawn_then_boxes_are_those_of_the_visible_masks(split):
    for index in range(12):
        samples = draw_scene("scenesg", split, index, 96)[1]
        total = np.zeros((96, 96), dtype=int)
        for instance in samples[0].instances:
            mask = decode_rle(instance.mask)
            ys, xs = np.nonzero(mask)
            assert instance.box_xyxy_px == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            total += mask
        assert total.max() == 1  # visible pixels belong to one thing each
        assert 2 <= len(samples[0].instances) <= 10
        for sample in samples:
            matches = [i for i in sample.instances if i.box_xyxy_px == sample.box_xyxy_px and i.mask == sample.mask]
            assert [i.category for i in matches] == [sample.category]
            assert sample.split == split


def worlds(split, num, flavour="scenes"):
    return [compose_scene(flavour, split, 64, seed_scene(flavour, split, index), phrases=3)[:2] for index in range(num)]


def test_held_out_pairs_when_listed_then_about_one_in_eight_and_at_least_one_a_shape():
    assert {shape for shape, _ in HELD_OUT_PAIRS} == set(SHAPES)
    assert len(SHAPES) * len(COLOURS) / 9 < len(HELD_OUT_PAIRS) < len(SHAPES) * len(COLOURS) / 7


@pytest.mark.parametrize("split", ["train", "val", "testA"])
def test_compose_scene_when_not_test_b_then_held_out_pairs_never_appear(split):
    for drawing, _ in worlds(split, 150):
        assert not {(thing.shape, thing.colour) for thing in drawing.instances} & HELD_OUT_PAIRS


def test_compose_scene_when_test_b_then_every_referent_is_of_a_held_out_pair():
    met = set()
    for drawing, written in worlds("testB", 150):
        pairs = {(drawing.instances[w.index].shape, drawing.instances[w.index].colour) for w in written}
        assert pairs <= HELD_OUT_PAIRS
        met |= pairs
    assert met == HELD_OUT_PAIRS


def test_compose_scene_when_test_a_then_more_things_of_the_same_kind():
    def mean_alike(split):
        kinds = [[thing.shape for thing in drawing.instances] for drawing, _ in worlds(split, 100)]
        return np.mean([max(shapes.count(shape) for shape in shapes) for shapes in kinds])

    assert mean_alike("testA") > mean_alike("val") + 1.5


def test_compose_scene_when_many_then_everything_in_the_vocabulary_is_drawn():
    things = [thing for drawing, _ in worlds("train", 200) for thing in drawing.instances]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.size for thing in things} == set(SIZES)
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert min(len(SHAPES), len(COLOURS)) >= 8


def test_radius_when_sizes_are_compared_then_clearly_apart():
    bounds = [RADIUS[size] for size in ("small", "medium", "large")]
    assert all(upper[0] >= 1.4 * lower[1] for lower, upper in itertools.pairwise(bounds))
