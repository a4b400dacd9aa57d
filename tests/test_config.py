import json
from dataclasses import FrozenInstanceError, fields

import pytest

from deixis.config import PRESETS, DeixisConfig, config_from_dict, config_to_dict, preset


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_preset_when_written_as_json_and_read_then_equal(name):
    assert config_from_dict(json.loads(json.dumps(config_to_dict(preset(name))))) == PRESETS[name]


def test_preset_when_fields_are_replaced_then_only_these_differ():
    changed = preset("deixis-tiny", image_size=64, mask_dim=8)
    differing = {f.name for f in fields(changed) if getattr(changed, f.name) != getattr(PRESETS["deixis-tiny"], f.name)}
    assert differing == {"image_size", "mask_dim"}


def test_preset_when_name_is_unknown_then_valid_ones_are_listed():
    with pytest.raises(ValueError, match=r"deixis-tiny-lite0.*got 'deixis-huge'"):
        preset("deixis-huge")


def test_preset_when_field_is_unknown_then_refused_by_name():
    with pytest.raises(ValueError, match=r"context_dim.*got \['contxt_dim'\]"):
        preset("deixis-tiny", contxt_dim=8)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_encoder", "resnet"),
        ("text_encoder", "t5"),
        ("image_size", 0),
        ("image_size", -32),
        ("image_size", 100),
        ("image_size", "320"),
        ("text_layers", 4),
        ("context_dim", -1),
        ("context_dim", 64.0),
        ("mask_dim", None),
        ("merge_layers", 0),
        ("context_heads", 3),
        ("group_heads", 5),
        ("merge_heads", 5),
        ("text_heads", 7),
        ("dropout", 1.5),
        ("max_tokens", True),
    ],
)
def test_config_when_a_value_cannot_be_then_one_sentence_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=field) as caught:
        preset("deixis-tiny", **{field: value})
    text = str(caught.value)
    assert text.startswith("expected ")
    assert repr(value) in text
    assert "\n" not in text


def test_config_when_text_encoder_has_no_heads_then_their_number_is_free():
    assert preset("deixis-tiny-glove", text_dim=32).text_heads == 12


def test_config_when_changed_in_place_then_refused():
    with pytest.raises(FrozenInstanceError):
        DeixisConfig().image_size = 64  # pyright: ignore[reportAttributeAccessIssue]


def test_merge_dim_when_asked_then_three_groups():
    assert preset("deixis-tiny", group_dim=16).merge_dim == 48


@pytest.mark.parametrize("values", [{"family": "mcn"}, {}, {"family": "deixis", "depth": 3}, [], None, "deixis"])
def test_config_from_dict_when_it_is_no_such_config_then_one_sentence(values):
    with pytest.raises(ValueError, match="expected"):
        config_from_dict(values)
