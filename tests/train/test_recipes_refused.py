"""What a recipe refuses, or takes in place of what it says, so that no field is ignored without a word."""

import pytest

from deixis.data.augment.pipelines import PIPELINES
from deixis.train.recipes import recipe


def test_augment_when_a_pipeline_then_known_to_recipes():
    assert [recipe("smcim", augment=name).data.augment for name in PIPELINES] == [*PIPELINES]
    with pytest.raises(ValueError, match=r"expected augment out of .*'transvg'.*got 'foo'"):
        recipe("smcim", augment="foo")


@pytest.mark.parametrize(("field", "value"), [("augment", "smcim"), ("one_per", "expression")])
def test_fields_of_phrased_data_when_there_is_none_then_refused(field, value):
    with pytest.raises(ValueError, match=rf"expected {field} to be .* without phrased"):
        recipe("smcim-scenes", **{field: value})


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("debug", {"check_every": 5}, "expected check_every to be 0 without phrased, got 5"),
        ("debug", {"rehearsal": 0.5}, "expected rehearsal to be 0.0 without phrased, got 0.5"),
        ("mcn", {"validation": "val.jsonl"}, "expected validation to be '' without check_every, got 'val.jsonl'"),
        ("mcn", {"frozen_steps": 5}, "expected frozen_steps to be 0 without start, got 5"),
        ("mcn", {"patience": 2}, "expected patience to be 4 without check_every, got 2"),
        ("mcn", {"start": "a", "image_weights": "b"}, "expected image_weights to be left out with start, .*, got 'b'"),
        ("finetune", {"text_weights": "b"}, "expected text_weights to be left out with start, .*, got 'b'"),
        ("finetune", {"rehearsal": 1.0}, "expected rehearsal below 1, .*, got 1.0"),
        ("finetune", {"rehearsal": 0.5, "epochs": 2}, "expected epochs to be 0 with rehearsal, got 2"),
        ("mcn", {"instances": "photos.json"}, "expected instances to be '' with phrased, got 'photos.json'"),
        ("mcn", {"partial_instances": "p.json"}, "expected partial_instances to be '' with phrased, got 'p.json'"),
        ("mcn", {"pseudo_instances": "p.json", "pseudo_share": 0.1}, "expected pseudo_instances to be '' with phrased"),
        ("tiny", {"pseudo_instances": "p.json"}, "expected a pseudo_share above 0 with pseudo_instances, got 0.0 with"),
        ("tiny", {"pool": 3}, "expected a pool of at least 10 images, as many as a batch has, got 3"),
        ("tiny", {"layouts": "l.csv"}, "expected pool and layouts_share above 0 with layouts, got 0 and 0.0"),
        ("tiny", {"pool": 10, "layouts_share": 1.0}, "expected layouts_share below 1, got 1.0"),
        ("tiny", {"min_area": 1.5}, "expected min_area in 0..1, got 1.5"),
        ("mcn", {"flavour": "scenes"}, "expected flavour to be '' with phrased, got 'scenes'"),
    ],
)
def test_fields_when_they_would_be_ignored_then_refused(name, fields, words):
    with pytest.raises(ValueError, match=f"^{words}") as caught:
        recipe(name, **fields)
    assert "\n" not in str(caught.value)


def test_instances_when_named_beside_phrased_and_rehearsal_then_taken():
    made = recipe("finetune", rehearsal=0.5, instances="a.json,b.json", partial_instances="c.json")
    assert (made.data.instances, made.data.partial_instances, made.data.rehearsal) == ("a.json,b.json", "c.json", 0.5)


@pytest.mark.parametrize("name", ["mcn", "smcim", "smcim-finetune"])
def test_steps_when_named_then_so_many_and_no_epochs(name):
    made = recipe(name, steps=7)
    assert (made.optimiser.steps, made.optimiser.epochs, made.optimiser.milestones) == (7, 0, ())
    assert recipe(name, epochs=3).optimiser.epochs == 3
