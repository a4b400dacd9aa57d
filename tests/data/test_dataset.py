import numpy as np
import pytest

from deixis.data import Samples, as_dataset
from deixis.data.scenes import open_scenes
from deixis.structures import Sample


def sample(number, image, box=(0.0, 0.0, 8.0, 8.0), split=""):
    return Sample(
        id=str(number), image=np.zeros((9, 12, 3), np.uint8), image_id=str(image), phrase="cup", box_xyxy_px=box,
        split=split,
    )  # fmt: skip


DATA = Samples([sample(n, n // 2 % 3, split="val" if n > 9 else "train") for n in range(12)], ["line 3: wrong"])


def ids(samples):
    return [int(one.id) for one in samples]


def test_limit_when_images_have_several_samples_then_they_stay_together_in_the_shuffles_order():
    order = np.random.default_rng(0).permutation(3)
    whole = [n for image in order for n in range(12) if n // 2 % 3 == image]
    for n in (1, 5, 12, 99):
        assert ids(DATA.limit(n)) == whole[:n]
    assert ids(DATA.limit(12, seed=3)) != whole
    assert DATA.limit(None) is DATA
    assert DATA.limit(4).problems == ("line 3: wrong",)


def test_views_when_taken_of_views_then_the_samples_of_the_records():
    assert ids(DATA[2:8][1:3]) == ids(DATA.take([3, 4])) == [3, 4]
    assert DATA[-1].id == "11"
    assert ids(DATA.split("val").take([1, 0])) == [11, 10]
    with pytest.raises(IndexError):
        DATA[:2][2]


def test_split_when_no_sample_names_another_then_all_and_else_told():
    assert ids(DATA[:4].split("train")) == [0, 1, 2, 3]
    assert len(Samples([sample(0, 0)]).split("val")) == 1
    with pytest.raises(ValueError, match=r"expected the split 'test', got data of \['train', 'val'\]"):
        DATA.split("test")


def test_referents_when_image_and_box_agree_then_one_referent():
    rows = [sample(0, 0), sample(1, 1), sample(2, 0), sample(3, 0, (1.0, 0.0, 8.0, 8.0)), sample(4, 0, None)]
    assert as_dataset(rows).referents == ((0, 2), (1,), (3,), (4,))
    assert as_dataset([]).referents == ()


def test_scenes_when_asked_for_referents_splits_or_sizes_then_nothing_is_drawn():
    scenes = open_scenes("scenes", "train", 100_000, size=64)
    assert len(scenes.referents) == 100_000
    assert scenes.split("train") is scenes
    assert scenes.image_hw(7) == (64, 64)
    assert scenes[3:].limit(1)[0].id == scenes[3].id


def test_image_hw_when_the_data_does_not_state_it_then_the_images():
    assert DATA.image_hw(0) == (9, 12)
    assert DATA.left_out == 1
