import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from deixis.config import FAMILIES, PRESETS, config_from_dict, config_to_dict, preset
from deixis.models.deixis.config import DeixisConfig
from deixis.models.mcn.config import JOINT_STRUCTURES, STRUCTURES, McnConfig
from deixis.models.smcim.config import SmcimConfig


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


@pytest.mark.parametrize(
    "values",
    [{"family": "other"}, {}, {"family": "deixis", "depth": 3}, {"family": "mcn", "depth": 3},
     {"family": "mcn", "mask_dim": 8}, {"family": "deixis", "aspp_dim": 8}, {"family": "smcim", "aspp_dim": 8},
     [], None, "deixis"],
)  # fmt: skip
def test_config_from_dict_when_it_is_no_such_config_then_one_sentence(values):
    with pytest.raises(ValueError, match="expected"):
        config_from_dict(values)


@pytest.mark.parametrize("family", ["mcn", "deixis"])
def test_preset_when_the_family_is_given_then_refused(family):
    with pytest.raises(ValueError, match=r"expected fields out of .*got \['family'\]"):
        preset("deixis-tiny", family=family)


# the mcn family


@pytest.mark.parametrize("config", [DeixisConfig(), McnConfig()], ids=["deixis", "mcn"])
def test_config_when_a_field_is_true_or_false_then_nothing_else_is_taken(config):
    for one in fields(config):
        if one.type == "bool":
            with pytest.raises(ValueError, match=f"expected {one.name} to be True or False, got 'False'"):
                replace(config, **{one.name: "False"})


@pytest.mark.parametrize("fill", [0, 255])
def test_mcn_config_when_the_canvas_is_black_or_white_then_taken(fill):
    assert preset("mcn-tiny", fill=fill).fill == fill


def test_config_from_dict_when_family_is_told_then_its_dataclass_with_its_defaults():
    assert config_from_dict({"family": "mcn"}) == McnConfig()
    assert config_from_dict({"family": "deixis"}) == DeixisConfig()
    assert config_from_dict({"family": "smcim"}) == SmcimConfig()
    assert {type(config) for config in PRESETS.values()} == set(FAMILIES.values())


def test_has_word_pieces_when_asked_then_with_bert_alone():
    assert {name for name, config in PRESETS.items() if config.has_word_pieces} == {
        "deixis-tiny", "deixis-tiny-lite0", "smcim-r50", "smcim-r101", "smcim-tiny",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_encoder", "yolov3-tiny"), ("structure", "mcn-13"), ("structure", None), ("cem", "on"),
        ("suppression", "hard"), ("fusion", "sum"), ("top_down", ""), ("garan_order", 1), ("frozen_norm", "train"),
        ("image_size", 100), ("image_size", 416.0), ("dim", 0), ("dim", True), ("vocab_size", -1), ("garan_heads", 3),
        ("anchors_px", ()), ("anchors_px", ((1, 2), (3,))), ("anchors_px", ((1, 0),)), ("anchors_px", ((-1, 2),)),
        ("anchors_px", 3), ("anchors_px", None), ("anchors_px", "12"), ("anchors_px", (3, 4)), ("anchors_px", ("12",)),
        ("anchors_px", (("1", 2),)), ("anchors_px", ((1, float("inf")),)), ("anchors_px", ((float("nan"), 2),)),
        ("anchors_px", ((10**400, 2),)), ("anchors_px", ((True, 2),)), ("anchors_px", ((1, [2]),)),
        ("fill", -1), ("fill", 256), ("fill", 1.0), ("fill", True),
        *((name, value) for name in ("text_attention", "garan", "train_words", "mask_padding")
          for value in ("False", 0, 1, None)),
    ],
)  # fmt: skip
def test_mcn_config_when_a_value_cannot_be_then_one_sentence_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=field) as caught:
        preset("mcn-tiny", **{field: value})
    text = str(caught.value)
    assert text.startswith("expected ")
    assert repr(value) in text
    assert "\n" not in text


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mcn_config_when_there_are_not_two_branches_with_garan_then_cem_must_be_off(structure):
    assert preset("mcn-tiny", structure=structure, cem="off").structure == structure
    assert preset("mcn-tiny", structure=structure, cem="off", garan=False).garan is False
    with pytest.raises(ValueError, match="expected cem 'off' without garan"):
        preset("mcn-tiny", structure=structure, garan=False)
    if structure in JOINT_STRUCTURES:
        assert preset("mcn-tiny", structure=structure, cem="literal").cem == "literal"
    else:
        with pytest.raises(ValueError, match=r"expected cem 'off' .* structure of one branch"):
            preset("mcn-tiny", structure=structure)


def test_mcn_config_when_anchors_come_from_json_then_pairs_of_floats():
    assert McnConfig(anchors_px=[[10, 13], [16, 30.5]]).anchors_px == ((10.0, 13.0), (16.0, 30.5))  # pyright: ignore[reportArgumentType]
    assert McnConfig().anchors_px == ((137.0, 256.0), (248.0, 272.0), (386.0, 271.0))
    assert hash(McnConfig(anchors_px=[[1, 2]])) == hash(McnConfig(anchors_px=((1, 2),)))  # pyright: ignore[reportArgumentType]


# the smcim family


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_encoder", ""), ("image_encoder", None), ("image_encoder", 50), ("text_encoder", " "),
        ("image_size", 100), ("image_size", 0), ("image_size", 512.0), ("max_tokens", True), ("vocab_size", -1),
        ("resize", "stretch"), ("projection", "conv5x5"), ("interaction", "CA2M"), ("position", None),
        ("position_at", ""), ("activation", "tanh"), ("fill", -1), ("fill", 256), ("fill", 1.0),
        ("dropout", 1), ("dropout", -0.1), ("dropout", float("nan")), ("dropout", "0.1"), ("dropout", False),
        ("group_dim", 6), ("group_dim", 0), ("group_heads", 5), ("merge_heads", 7), ("text_heads", 5),
        ("group_blocks", -1), ("group_blocks", 2.0), ("merge_blocks", 0), ("ffn_ratio", 0), ("text_layers", 0),
        ("visual_features", ()), ("visual_features", (2, 3)), ("visual_features", (5, 4)), ("visual_features", 5),
        ("visual_features", (3, 3)), ("visual_features", (3.0,)), ("visual_features", "345"), ("visual_features", None),
        ("visual_features", ((3,),)), ("text_features", (0, 2)), ("text_features", (2, 4, 7)),
        ("text_features", (True,)), ("text_features", {2: 4}), ("mask_padding", 1),
    ],
)  # fmt: skip
def test_smcim_config_when_a_value_cannot_be_then_one_sentence_names_field_and_value(field, value):
    with pytest.raises(ValueError, match=field) as caught:
        preset("smcim-tiny", **{field: value})
    text = str(caught.value)
    assert text.startswith("expected ")
    assert repr(value) in text
    assert "\n" not in text


def test_smcim_config_when_as_printed_then_the_papers_numbers():
    """SMCIM section IV-B."""
    config = preset("smcim-r50")
    assert (config.image_size, config.max_tokens, config.text_features) == (512, 40, (2, 4, 6))
    assert (config.group_dim, config.merge_dim, config.group_heads, config.merge_heads) == (256, 768, 8, 12)
    assert (config.ffn_ratio * config.group_dim, config.ffn_ratio * config.merge_dim) == (1024, 3072)
    assert (len(config.text_features) * config.group_blocks, config.merge_blocks) == (6, 3)
    assert preset("smcim-r101") == replace(config, image_encoder="resnet101")


def test_smcim_config_when_features_come_from_json_then_tuples():
    config = SmcimConfig(visual_features=[5], text_features=[1, 6])  # pyright: ignore[reportArgumentType]
    assert (config.visual_features, config.text_features) == ((5,), (1, 6))
    assert hash(config) == hash(SmcimConfig(visual_features=(5,), text_features=(1, 6)))


def test_smcim_config_when_the_text_encoder_is_deeper_then_later_layers_can_be_read():
    assert preset("smcim-r50", text_layers=12, text_features=(4, 8, 12)).text_features == (4, 8, 12)
    assert preset("smcim-r50", group_blocks=0, merge_blocks=9).group_blocks == 0
