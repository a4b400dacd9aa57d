"""What the rows of the tables are, beside what the papers print. `tests/models` holds what their fields make."""

import pytest

from deixis.config import preset
from deixis.papers.tables import (
    EXPERIMENTS,
    MCN_TABLE_2,
    MCN_TABLE_3,
    SMCIM_FIG_6,
    SMCIM_TABLE_3,
    SMCIM_TABLE_4,
    SMCIM_TABLE_5,
)
from deixis.train.recipes import recipe


def test_mcn_table_2_when_read_then_each_row_adds_one_component():
    full = preset("mcn-tiny")
    found = [(row.name, preset("mcn-tiny", **row.model_fields), row.suppression) for row in MCN_TABLE_2.rows]
    assert [(name, made.text_attention, made.garan, made.cem != "off", last) for name, made, last in found] == [
        ("MCN (Base)", False, False, False, "none"),
        ("+TextAtt", True, False, False, "none"),
        ("+GARAN", True, True, False, "none"),
        ("+CEM", True, True, True, "none"),
        ("+ASNLS", True, True, True, "adaptive"),
    ]
    assert found[-1][1] == full
    assert [row.paper for row in MCN_TABLE_2.rows] == [
        (77.45, 58.24, 13.80), (77.65, 58.44, 13.44), (79.20, 59.07, 13.37), (80.08, 61.61, 10.37),
        (80.08, 62.44, 6.65),
    ]  # fmt: skip


def test_mcn_table_3_when_read_then_structures_without_extra_components():
    base = {"text_attention": False, "garan": False, "cem": "off"}
    assert all({**row.model_fields, "structure": ""} == {**base, "structure": ""} for row in MCN_TABLE_3.rows)
    assert {row.model_fields["structure"]: row.paper for row in MCN_TABLE_3.rows} == {
        "single-rec-13": (70.38, None),
        "single-rec-52": (68.58, None),
        "single-res-13": (None, 36.37),
        "single-res-52": (None, 57.91),
        "only-head-different-13": (72.42, 34.50),
        "only-head-different-52": (None, 58.08),
        "only-backbone-shared": (75.81, 58.16),
        "mcn": (77.45, 58.24),
    }


def test_smcim_table_3_when_read_then_the_deepest_features_six_blocks_and_no_spsil():
    """Stages 3 to 5 of the image encoder, layers 2, 4 and 6 of the text encoder."""
    assert {
        row.name: (row.model_fields["visual_features"], row.model_fields["text_features"], *row.paper)
        for row in SMCIM_TABLE_3.rows
    } == {
        "One x One": ((5,), (6,), 66.52),
        "Three x One": ((3, 4, 5), (6,), 70.08),
        "One x Three": ((5,), (2, 4, 6), 70.16),
        "Three x Two": ((3, 4, 5), (4, 6), 72.48),
        "Two x Three": ((4, 5), (2, 4, 6), 72.61),
        "Three x Three": ((3, 4, 5), (2, 4, 6), 72.86),
    }
    for row in SMCIM_TABLE_3.rows:
        assert row.model_fields["group_blocks"] * len(row.model_fields["text_features"]) == 6
        assert row.recipe_fields == {"spsil": "off"}


def test_smcim_table_4_when_read_then_blocks_and_no_spsil():
    assert {
        (3 * row.model_fields["group_blocks"], row.model_fields["merge_blocks"]): (row.name, *row.paper)
        for row in SMCIM_TABLE_4.rows
    } == {
        (3, 1): ("3 grouping, 1 merging", 69.60),
        (3, 2): ("3 grouping, 2 merging", 71.89),
        (6, 1): ("6 grouping, 1 merging", 71.78),
        (6, 2): ("6 grouping, 2 merging", 72.59),
        (0, 9): ("0 grouping, 9 merging", 71.72),
        (6, 3): ("6 grouping, 3 merging", 72.86),
    }
    assert all(row.recipe_fields == {"spsil": "off"} for row in SMCIM_TABLE_4.rows)


def test_smcim_table_5_when_read_then_both_blocks_with_spsil_and_one_without():
    made = [
        (preset("smcim-tiny", **row.model_fields), recipe("smcim", **row.recipe_fields)) for row in SMCIM_TABLE_5.rows
    ]
    assert [(model.interaction, training.losses.spsil) for model, training in made] == [
        ("encoder", "on"),
        ("ca2m", "on"),
        ("ca2m", "off"),
    ]
    assert [row.paper for row in SMCIM_TABLE_5.rows] == [(70.83,), (73.87,), (72.86,)]


def test_smcim_fig_6_when_read_then_one_of_lambda_and_sigma_moves():
    assert SMCIM_FIG_6.rows[0].recipe_fields == {"spsil": "off"}
    values = [(row.recipe_fields["spsil_lambda"], row.recipe_fields["sigma"]) for row in SMCIM_FIG_6.rows[1:]]
    assert values == [
        (0.25, 2.5), (0.5, 2.5), (0.75, 2.5), (1.0, 2.5), (1.25, 2.5), (0.75, 1.5), (0.75, 2.0), (0.75, 3.0),
        (0.75, 3.5),
    ]  # fmt: skip
    printed = {row.name: row.paper[0] for row in SMCIM_FIG_6.rows if row.paper[0] is not None}
    assert printed == {"without SPSIL": 72.86, "λ 0.75, σ 2.5": 73.87}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_when_rows_are_compared_with_one_then_it_is_there_and_every_column_is_printed(name):
    made = EXPERIMENTS[name]
    assert made.reference in ("", *(row.name for row in made.rows))
    assert {len(row.paper) for row in made.rows} == {len(made.columns)}
