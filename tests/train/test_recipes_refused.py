"""What a recipe refuses, or takes in place of what it says, so that no field is ignored without a word."""

import pytest

from deixis.data.pipelines import PIPELINES
from deixis.train.recipes import recipe


def test_augment_when_a_pipeline_then_known_to_recipes():
    assert [recipe("smcim", augment=name).augment for name in PIPELINES] == [*PIPELINES]
    with pytest.raises(ValueError, match=r"expected augment out of .*'transvg'.*got 'foo'"):
        recipe("smcim", augment="foo")


@pytest.mark.parametrize(("field", "value"), [("augment", "smcim"), ("one_per", "expression")])
def test_fields_of_phrased_data_when_there_is_none_then_refused(field, value):
    with pytest.raises(ValueError, match=rf"expected {field} to be .* without phrased"):
        recipe("smcim-scenes", **{field: value})


@pytest.mark.parametrize("name", ["mcn", "smcim", "smcim-finetune"])
def test_steps_when_named_then_so_many_and_no_epochs(name):
    made = recipe(name, steps=7)
    assert (made.steps, made.epochs, made.milestones) == (7, 0, ())
    assert recipe(name, epochs=3).epochs == 3
