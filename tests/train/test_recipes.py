import json
from dataclasses import asdict

import pytest

from deixis.config import preset
from deixis.train.recipes import RECIPES, Recipe, list_recipes, recipe


def test_list_when_asked_then_each_name_has_one_line():
    listed = list_recipes()
    assert set(listed) == {"tiny", "scenes", "debug"}
    assert all(line and "\n" not in line for line in listed.values())


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipe_when_named_then_its_model_exists_and_it_goes_through_json(name):
    made = recipe(name)
    preset(made.model, **made.model_fields)
    stored = json.loads(json.dumps(asdict(made)))
    stored["image_sizes"] = tuple(stored["image_sizes"])
    assert Recipe(**stored) == made


def test_recipe_when_fields_are_given_then_replaced():
    made = recipe("scenes", steps=7, lr=0.5)
    assert (made.steps, made.lr, made.image_sizes) == (7, 0.5, (256,))


def test_recipe_when_name_is_unknown_then_names_are_listed():
    with pytest.raises(ValueError, match=r"\['debug', 'scenes', 'tiny'\], got 'big'"):
        recipe("big")


def test_recipe_when_field_is_unknown_then_refused_by_name():
    with pytest.raises(ValueError, match=r"got \['learning_rate'\]"):
        recipe("debug", learning_rate=1.0)


def test_recipes_when_made_twice_then_changing_one_leaves_the_other():
    recipe("debug").model_fields["context_dim"] = -1
    assert recipe("debug").model_fields["context_dim"] == 32
