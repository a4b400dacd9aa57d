"""Own data and drawn scenes in one batch."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.epochs import Epochs
from deixis.data.loading import Mixture, SceneSource, TrainingBatch
from deixis.data.rehearsed import Rehearsed, joined
from deixis.structures import Sample


def make_own(count=6):
    image = np.zeros((64, 64, 3), np.uint8)
    samples = [
        Sample(id=f"{k}", image=image, image_id=f"{k}", phrase=f"own {k}", box_xyxy_px=(0, 0, 32, 64))
        for k in range(count)
    ]
    return Epochs(samples, [[k] for k in range(count)])


def make_rehearsed(share):
    return Rehearsed([SceneSource("scenes")], [1.0], own=make_own(), share=share)


def batch_of(source, images, step=0):
    return source.batch(1, step, images=images, phrases=2, size=64, absent=0.0)


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
