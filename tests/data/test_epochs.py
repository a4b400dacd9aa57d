import dataclasses
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data import Samples
from deixis.data.augment.pipelines import PIPELINES, Pipeline
from deixis.data.batches import BatchShape, CanvasRules, Epochs, Mixture, Rehearsed, joined
from deixis.data.image_sources import SceneSource
from deixis.geometry.masks import encode_rle
from deixis.structures import Instance, Sample, TrainingBatch

REFERENTS = ((0, 1, 2), (3,), (4, 5), (6,), (7, 8), (9,), (10,))  # of one to three expressions


def sample(number, referent, **fields):
    """An expression "number of referent"; every referent is the left half of an image of its own grey."""
    mask = np.zeros((32, 64), bool)
    mask[:, :32] = True
    return Sample(**{
        "id": str(number), "image": np.full((32, 64, 3), 10 * referent, np.uint8), "image_id": f"image {referent}",
        "phrase": f"{number} of {referent}", "box_xyxy_px": (0.0, 0.0, 32.0, 32.0), "mask": encode_rle(mask),
        "category": "dog", **fields,
    })  # fmt: skip


def samples_of(referents=REFERENTS):
    numbered = {number: referent for referent, group in enumerate(referents) for number in group}
    return [sample(number, numbered[number]) for number in sorted(numbered)]


@pytest.fixture
def epochs():
    return Epochs(samples_of(), REFERENTS)


def test_problems_when_samples_were_left_out_then_those_of_the_reader():
    assert Epochs(Samples(samples_of(), ["line 3: expected a box"]), REFERENTS).problems == ("line 3: expected a box",)
    assert Epochs(samples_of(), REFERENTS).problems == ()


def batch(epochs, step, seed=0, **options):
    return epochs.batch(seed, step, BatchShape(**{"images": 3, "phrases": 1, "size": 64, **options}))


def referents_of(one):
    return [int(phrase.split()[-1]) for phrase in one.phrases]


def assert_equal_batches(a, b):
    for field in dataclasses.fields(a):
        assert np.array_equal(getattr(a, field.name), getattr(b, field.name)), field.name


@pytest.mark.parametrize(("images", "count"), [(1, 7), (2, 4), (3, 3), (7, 1), (8, 1)])
def test_num_steps_when_an_epoch_does_not_divide_then_one_more_and_the_last_batch_is_smaller(epochs, images, count):
    assert epochs.num_steps(images) == count
    sizes = [len(batch(epochs, step, images=images).pixels) for step in range(count)]
    assert sizes == [*[images] * (count - 1), 7 - images * (count - 1)]


@pytest.mark.parametrize("seed", [0, 5])
def test_batch_when_an_epoch_is_over_then_every_referent_was_in_it_once(epochs, seed):
    for epoch in range(4):
        seen = [r for step in range(3) for r in referents_of(batch(epochs, 3 * epoch + step, seed))]
        assert sorted(seen) == list(range(7))


def test_batch_when_another_epoch_or_seed_then_another_order(epochs):
    def order(seed, epoch):
        return tuple(r for step in range(3) for r in referents_of(batch(epochs, 3 * epoch + step, seed)))

    assert len({order(seed, epoch) for seed in range(2) for epoch in range(5)}) == 10


def test_batch_when_one_phrase_is_asked_for_then_one_at_random_of_each_referent(epochs):
    seen = Counter()
    for step in range(300):
        one = batch(epochs, step)
        assert len(one.phrases) == len(one.pixels)
        seen.update(one.phrases)
    assert len(seen) == 11  # every expression has its turn
    assert all(25 <= seen[f"{number} of 0"] <= 43 for number in REFERENTS[0])  # a third of 100 epochs
    assert seen["3 of 1"] == 100


def test_batch_when_more_phrases_are_asked_for_then_different_ones_as_far_as_there_are(epochs):
    one = batch(epochs, 0, images=7, phrases=2)
    counts = Counter(referents_of(one))
    assert [counts[referent] for referent in range(7)] == [2, 1, 2, 1, 2, 1, 1]
    assert len(set(one.phrases)) == len(one.phrases)


def test_batch_when_seed_and_step_are_the_same_then_equal_whatever_came_between(epochs):
    first = batch(epochs, 4, seed=1)
    batch(epochs, 2, seed=1)
    assert_equal_batches(first, batch(Epochs(samples_of(), REFERENTS), 4, seed=1))


def test_batch_when_worked_by_hand_then_picture_box_and_mask_belong_together(epochs):
    one = batch(epochs, 1, rules=CanvasRules(8, "nearest", 3))
    np.testing.assert_allclose(one.content, [[0, 0.25, 1, 0.75]] * 3)
    np.testing.assert_allclose(one.boxes, [[0, 0.25, 0.5, 0.75]] * 3)
    expected = np.zeros((8, 8))
    expected[2:6, :4] = 1
    np.testing.assert_array_equal(one.masks, [expected] * 3)
    assert one.has_mask.all()
    assert one.present.all()
    assert (one.pixels[:, 0] == 3).all()
    assert one.pixels[one.image_index, 32, 32, 0].tolist() == [10 * referent for referent in referents_of(one)]


def test_batch_when_an_image_cannot_be_read_then_its_referent_is_passed_over(tmp_path):
    samples = samples_of()
    for number, image in ((3, tmp_path / "none.png"), (6, tmp_path / "bad.png")):
        samples[number] = sample(number, 1 if number == 3 else 3, image=image)
    (tmp_path / "bad.png").write_bytes(b"no image")
    samples[9] = sample(9, 5, mask={"size": [3, 3], "counts": "9"})  # of another size than its image
    for step in range(3):
        one = batch(Epochs(samples, REFERENTS), step, images=7)
        assert sorted(referents_of(one)) == [0, 2, 4, 6]
        assert len(one.pixels) == 4


def test_batch_when_a_sample_cannot_be_made_then_its_referent_is_passed_over():
    class Lazy(list):
        def __getitem__(self, index):
            if index == 6:
                raise ValueError("expected another annotation")
            return super().__getitem__(index)

    assert sorted(referents_of(batch(Epochs(Lazy(samples_of()), REFERENTS), 0, images=7))) == [0, 1, 2, 4, 5, 6]


def test_batch_when_no_image_can_be_read_then_one_sentence_with_the_reason(tmp_path):
    samples = [sample(number, number, image=tmp_path / "none.png") for number in range(2)]
    with pytest.raises(ValueError, match=r"expected images that can be read, got none of 2 referents .*none\.png"):
        batch(Epochs(samples, ((0,), (1,))), 0, images=2)


@pytest.mark.parametrize("step", range(7))
def test_batch_when_none_of_its_images_can_be_read_then_the_next_of_the_order_stands_in(tmp_path, step):
    samples = samples_of()
    bad = {3, 6, 9, 10}  # the referents 1, 3, 5 and 6
    for number in bad:
        samples[number] = sample(number, 1, image=tmp_path / "none.png")
    whole = [referents_of(batch(Epochs(samples_of(), REFERENTS), s, images=1))[0] for s in range(7)]
    wanted = next(r for r in [*whole[step:], *whole] if r in (0, 2, 4))
    one = batch(Epochs(samples, REFERENTS), step, images=1)
    assert referents_of(one) == [wanted]
    assert_equal_batches(one, batch(Epochs(samples, REFERENTS), step, images=1))


def test_batch_when_the_last_of_an_epoch_has_one_bad_image_then_training_goes_on(tmp_path):
    for broken, _ in enumerate(REFERENTS):
        samples = [
            sample(number, referent, **({"image": tmp_path / "none.png"} if referent == broken else {}))
            for referent, group in enumerate(REFERENTS) for number in group
        ]  # fmt: skip
        sizes = [len(batch(Epochs(samples, REFERENTS), step).pixels) for step in range(3)]
        assert sizes in ([2, 3, 1], [3, 2, 1], [3, 3, 1])


def test_batch_when_images_are_files_then_they_are_read(tmp_path):
    Image.new("RGB", (64, 32), (1, 2, 3)).save(tmp_path / "one.png")
    one = batch(Epochs([sample(0, 0, image=tmp_path / "one.png", mask=None)], ((0,),)), 0)
    assert one.pixels[0, 32, 32].tolist() == [1, 2, 3]
    assert not one.has_mask.any()


def test_batch_when_categories_are_listed_then_phrases_of_others_may_be_asked_in_vain():
    dog, cat = (Instance(category=kind, box_xyxy_px=(0, 0, 9, 9)) for kind in ("dog", "cat"))
    samples = [
        sample(0, 0, phrase="the dog", instances=(dog,)),
        sample(1, 1, phrase="the cat", category="cat", instances=(cat,)),
        sample(2, 2, phrase="a dog", instances=()),  # nobody knows what is there
    ]
    one = batch(Epochs(samples, ((0,), (1,), (2,))), 0, absent=1.0)
    asked = {samples[index].phrase: [] for index in range(3)}
    grey = {round(float(one.pixels[k, 32, 32, 0])) // 10: k for k in range(3)}
    for phrase, index, present in zip(one.phrases, one.image_index, one.present, strict=True):
        if not present:
            asked[samples[next(g for g, k in grey.items() if k == index)].phrase].append(phrase)
    assert asked["the cat"] in (["the dog"], ["a dog"])
    assert asked["the dog"] == ["the cat"]
    assert asked["a dog"] == []


def test_batch_when_a_phrase_means_nothing_then_it_is_not_present():
    nothing = Sample(**{**vars(sample(0, 0)), "box_xyxy_px": None, "mask": None})
    one = batch(Epochs([nothing], ((0,),)), 0)
    assert one.present.tolist() == one.has_mask.tolist() == [False]


# one per expression


def test_batch_when_one_per_expression_then_every_expression_once_an_epoch():
    epochs = Epochs(samples_of(), REFERENTS, one_per="expression")
    assert epochs.num_steps(3) == 4
    orders = []
    for epoch in range(3):
        told = [phrase for step in range(4) for phrase in batch(epochs, 4 * epoch + step, phrases=2).phrases]
        assert sorted(told) == sorted(sample.phrase for sample in samples_of())
        orders.append(tuple(told))
    assert len(set(orders)) == 3


def test_epochs_when_one_per_something_else_then_refused():
    with pytest.raises(ValueError, match="expected one_per out of"):
        Epochs(samples_of(), REFERENTS, one_per="image")


# augmentation


def shaken(**fields):
    return Epochs(samples_of(), REFERENTS, augment=PIPELINES["smcim"], **fields)


def by_phrase(one):
    return {
        p: (one.pixels[i], one.boxes[k], one.masks[k])
        for k, (p, i) in enumerate(zip(one.phrases, one.image_index, strict=True))
    }


def test_batch_when_augmented_then_the_batches_size_and_neighbours_change_nothing():
    few, many = [shaken(one_per="expression") for _ in range(2)]
    singly = {}
    for step in range(11):
        singly |= by_phrase(batch(few, step, images=1))
    together = by_phrase(batch(many, 0, images=11))
    assert singly.keys() == together.keys()
    for phrase, parts in together.items():
        for one, other in zip(parts, singly[phrase], strict=True):
            np.testing.assert_array_equal(one, other)


def test_batch_when_augmented_then_every_epoch_and_expression_moves_in_another_way():
    boxes = [tuple(batch(shaken(), step, images=1).boxes[0]) for step in range(14)]
    assert len(set(boxes)) == 14
    assert len({tuple(batch(shaken(), 0, seed=seed, images=1).boxes[0]) for seed in range(4)}) == 4


def test_batch_when_mirrored_then_words_box_mask_and_content_belong_together():
    samples = [sample(0, 0, phrase="left dog"), sample(1, 1, phrase="dog by the clock")]
    one = batch(Epochs(samples, ((0,), (1,)), augment=Pipeline(mirror=1.0)), 0, rules=CanvasRules(fill=3))
    rows = {phrase: row for row, phrase in enumerate(one.phrases)}
    assert set(rows) == {"right dog", "dog by the clock"}
    np.testing.assert_allclose(one.boxes[rows["right dog"]], [0.5, 0.25, 1, 0.75])
    np.testing.assert_allclose(one.boxes[rows["dog by the clock"]], [0, 0.25, 0.5, 0.75])
    assert one.masks[rows["right dog"]][8, 8:].all()
    assert not one.masks[rows["right dog"]][:, :8].any()
    np.testing.assert_allclose(one.content, [[0, 0.25, 1, 0.75]] * 2)
    assert (one.pixels[:, 0] == 3).all()


def test_batch_when_augmented_and_a_phrase_means_nothing_then_it_is_not_present():
    nothing = Sample(**{**vars(sample(0, 0, phrase="left dog")), "box_xyxy_px": None, "mask": None})
    one = batch(Epochs([nothing], ((0,),), augment=Pipeline(mirror=1.0)), 0)
    assert one.phrases == ["right dog"]
    assert one.present.tolist() == one.has_mask.tolist() == [False]


def test_batch_when_the_sample_lists_rivals_then_a_phrase_that_counts_keeps_them_on_the_canvas():
    dogs = tuple(Instance(category="dog", box_xyxy_px=box) for box in ((0, 0, 32, 32), (60, 2, 64, 6)))
    counted = sample(0, 0, phrase="second dog", instances=dogs)
    kept, moved = (
        {tuple(batch(Epochs([one], ((0,),), augment=PIPELINES["smcim"]), step).content[0]) for step in range(20)}
        for one in (sample(0, 0, phrase="second dog"), counted)
    )
    assert kept == {(0.0, 0.25, 1.0, 0.75)}  # what stands beside it is not known
    assert len(moved) > 5


@pytest.mark.parametrize("augment", [None, Pipeline(), PIPELINES["mcn"]])
def test_batch_when_there_is_nothing_to_do_then_as_without_augmentation(epochs, augment):
    assert_equal_batches(batch(Epochs(samples_of(), REFERENTS, augment=augment), 2), batch(epochs, 2))


# beside drawn scenes


def make_own(count=6):
    image = np.zeros((64, 64, 3), np.uint8)
    samples = [
        Sample(id=f"{k}", image=image, image_id=f"{k}", phrase=f"own {k}", box_xyxy_px=(0, 0, 32, 64))
        for k in range(count)
    ]
    return Epochs(samples, [[k] for k in range(count)])


def make_rehearsed(share):
    return Rehearsed(own=make_own(), beside=Mixture([SceneSource("scenes")], [1.0]), share=share)


def batch_of(source, images, step=0):
    return source.batch(1, step, BatchShape(images=images, phrases=2, size=64, absent=0.0))


@settings(max_examples=12, deadline=None)
@given(share=st.floats(0.05, 0.95), images=st.integers(2, 6))
def test_batch_when_of_several_pictures_then_the_share_is_drawn_and_at_least_one_of_each(share, images):
    batch = batch_of(make_rehearsed(share), images)
    own = {int(row) for row, phrase in zip(batch.image_index, batch.phrases, strict=True) if phrase.startswith("own")}
    drawn = min(max(round(share * images), 1), images - 1)
    assert len(batch.pixels) == images
    assert own == set(range(images - drawn))


def test_batch_when_of_one_picture_then_own():
    assert batch_of(make_rehearsed(0.9), 1).phrases[0].startswith("own")


def test_batch_when_asked_again_then_the_same_and_at_another_step_another():
    source = make_rehearsed(0.5)
    one, again, other = batch_of(source, 4), batch_of(source, 4), batch_of(source, 4, step=1)
    assert one.phrases == again.phrases
    assert np.array_equal(one.pixels, again.pixels)
    assert one.phrases != other.phrases


def test_joined_when_two_batches_then_each_row_and_thing_stays_with_its_picture():
    drawn = Mixture([SceneSource("scenes")], [1.0])
    one, two = batch_of(drawn, 2), batch_of(drawn, 3, step=1)
    both = joined(one, two)
    assert both.phrases == [*one.phrases, *two.phrases]
    assert both.image_index.tolist() == [*one.image_index, *(two.image_index + 2)]
    assert both.thing_index.tolist() == [*one.thing_index, *(two.thing_index + 2)]
    assert np.array_equal(both.pixels[2:], two.pixels)
    for field in fields(TrainingBatch):
        a, b, c = (getattr(batch, field.name) for batch in (one, two, both))
        if field.name == "seen":  # nothing has looked at these pictures
            assert a is b is c is None
            continue
        assert len(c) == len(a) + len(b), field.name
        assert isinstance(c, list) or c.dtype == a.dtype, field.name


def test_joined_when_canvases_differ_then_refused():
    drawn = Mixture([SceneSource("scenes")], [1.0])
    one = batch_of(drawn, 2)
    with pytest.raises(ValueError, match="dimensions"):
        joined(one, replace(one, pixels=one.pixels[:, :32, :32]))
