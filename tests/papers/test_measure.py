import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from deixis.cli import app
from deixis.data import REFER, SCENES, parse_dataset_spec
from deixis.papers import measure as measuring
from deixis.papers.measure import Measured, Meter, Plan, column_value, format_rows, measure
from deixis.papers.tables import EXPERIMENTS, IE, MCN_TABLE_2, MCN_TABLE_3, REC, RES, Experiment, Row
from deixis.train.recipes import recipe

SMALL = {
    "steps": 1, "images": 2, "phrases": 2, "image_sizes": (64,), "workers": 0, "precision": "float32", "warmup": 0,
    "model_fields": {"image_size": 64, "dim": 8, "aspp_dim": 4, "fusion_dim": 8, "text_dim": 8, "vocab_size": 50},
}  # fmt: skip


@pytest.fixture
def plan(tmp_path):
    meter = Meter(out=tmp_path / "runs", limit=2)
    return Plan(experiment=MCN_TABLE_2, budget="small", meter=meter, overrides=SMALL)


def report(rec=None, res=None, ie=None):
    return {"rec": rec, "res": res, "ie": ie}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_when_listed_then_every_row_can_be_trained_in_both_budgets(name, tmp_path):
    experiment = EXPERIMENTS[name]
    for budget in ("small", "paper"):
        made = Plan(experiment=experiment, budget=budget, meter=Meter(out=tmp_path), overrides={})
        assert len({(made.folder_of(row, 1), row.suppression) for row in experiment.rows}) == len(experiment.rows)
        name, split = parse_dataset_spec(experiment.data[budget])
        assert name in (*SCENES, *REFER)
        assert split == "val"
        trained = made.recipe_of(experiment.rows[0], 1).data.phrased
        assert parse_dataset_spec(trained or "scenes")[0] == name
    assert all(len(row.paper) == len(experiment.columns) for row in experiment.rows)
    assert experiment.reference in {"", *(row.name for row in experiment.rows)}


def test_folder_when_rows_differ_only_in_what_is_done_afterwards_then_shared(plan):
    cem, asnls = MCN_TABLE_2.rows[-2:]
    assert plan.folder_of(cem, 1) == plan.folder_of(asnls, 1)
    assert plan.folder_of(cem, 1) != plan.folder_of(cem, 2)
    base_of_3 = MCN_TABLE_3.rows[-1]
    assert plan.folder_of(MCN_TABLE_2.rows[0], 1) == replace(plan, experiment=MCN_TABLE_3).folder_of(base_of_3, 1)


def test_recipe_of_a_row_when_fields_are_overridden_then_the_rows_own_stay(plan):
    made = plan.recipe_of(MCN_TABLE_2.rows[0], 7)
    assert (made.optimiser.steps, made.run.seed) == (1, 7)
    assert made.model.fields["dim"] == 8
    assert made.model.fields["garan"] is False
    assert made.model.fields["anchors_px"] == recipe("mcn-scenes").model.fields["anchors_px"]


def test_measure_when_called_again_then_nothing_is_trained_or_measured_anew(plan, monkeypatch, capsys):
    two = replace(plan, experiment=replace(MCN_TABLE_2, rows=MCN_TABLE_2.rows[-2:]))
    first = measure(two)
    assert capsys.readouterr().err.count("training +CEM, seed 1") == 1  # both rows from one training
    monkeypatch.setattr(measuring, "run", None)
    monkeypatch.setattr(measuring, "evaluate_command_result", None)
    assert measure(two) == first
    assert [len(one.values) for one in first] == [3, 3]


def test_measure_when_training_was_stopped_then_resumed(plan, monkeypatch):
    one = replace(plan, experiment=replace(MCN_TABLE_2, rows=MCN_TABLE_2.rows[:1]))
    folder = one.folder_of(MCN_TABLE_2.rows[0], 1)
    calls = []

    def stopped(made, where, *, resume):
        calls.append((where, resume))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state.pt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "run", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            measure(one)
    assert calls == [(folder, False), (folder, True)]
    assert not list(one.meter.out.glob("measured-*"))


def test_column_value_when_there_is_no_such_branch_then_none():
    told = report(rec={"acc@0.5": 0.25}, ie=0.125)
    assert [column_value(told, column) for column in (REC, RES, IE)] == [25.0, None, 12.5]


TWO = Experiment(
    title="T", paper_data="D", columns=(REC, RES), recipes={}, data={},
    rows=(Row(name="a", paper=(50.0, None)), Row(name="b", paper=(52.5, 30.0))),
)  # fmt: skip


def test_format_rows_when_of_several_seeds_then_mean_and_range_and_the_sign_of_both():
    values = (((40.0, 60.0), (1.0, 1.0)), ((44.0,), (None,)))
    rows = [Measured(row, one) for row, one in zip(TWO.rows, values, strict=True)]
    lines = format_rows(TWO, rows, "here").splitlines()
    assert lines[0] == "T. Ours: here; the paper's: D."
    assert lines[4] == "| a | 50.00 (40.00 to 60.00) | 1.00 (1.00 to 1.00) | 50.00 | - |  |  |"
    assert lines[5] == f"| b | 44.00 | - | 52.50 | 30.00 | a | {REC} -6.00 (paper +2.50) |"


def test_format_rows_when_there_is_a_reference_then_all_are_compared_with_it():
    rows = [Measured(row, ((value,), (10.0,))) for row, value in zip(TWO.rows, (1.0, 2.0), strict=True)]
    lines = format_rows(replace(TWO, reference="b"), rows, "here").splitlines()
    assert lines[4].endswith(f"| b | {REC} -1.00 (paper -2.50), {RES} +0.00 (paper none printed) |")
    assert lines[5].endswith("|  |  |")


def test_figures_on_disk_when_read_by_a_person_then_they_name_the_checkpoint(plan):
    one = replace(plan, experiment=replace(MCN_TABLE_2, rows=MCN_TABLE_2.rows[:1]))
    measure(one)
    stored = json.loads(next(one.meter.out.glob("measured-*/scenes-val-2-*.json")).read_text())
    folder = one.folder_of(MCN_TABLE_2.rows[0], 1)
    assert (stored["measured"], stored["n"]) == (str(folder / "checkpoint"), 2)


def test_folder_when_fields_change_nothing_that_is_learnt_then_the_same(plan):
    row = MCN_TABLE_2.rows[0]
    for name, value in (("workers", 3), ("save_every", 7), ("keep", 2)):
        assert replace(plan, overrides={**SMALL, name: value}).folder_of(row, 1) == plan.folder_of(row, 1)
    assert replace(plan, overrides={**SMALL, "lr": 0.5}).folder_of(row, 1) != plan.folder_of(row, 1)


REFUSED = [
    (["smcim-table-3", "--spsil", "on"], "expected no --spsil, which the row 'One x One' sets itself"),
    (["smcim-table-4", "--model_fields.merge_blocks", 1], "expected no --model_fields.merge_blocks"),
    (["smcim-fig-6", "--sigma", 3], "expected no --sigma"),
    (["smcim-table-3", "--start", "deixis-tiny"], "is a model of its own sizes, which a checkpoint cannot become"),
    (["mcn-table-2", "--start", "deixis-tiny"], "expected no --start, got 'deixis-tiny'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED, ids=str)
def test_reproduce_when_an_option_for_all_rows_is_what_a_row_says_then_one_sentence(arguments, sentence, tmp_path):
    ended = CliRunner().invoke(app, ["reproduce", *map(str, arguments), "--plan", "--out", str(tmp_path)])
    assert ended.exit_code == 2, ended.output
    assert sentence in " ".join(ended.stderr.replace("│", " ").split())


def test_reproduce_when_an_option_is_no_rows_own_then_all_rows_take_it(tmp_path):
    arguments = ["smcim-table-4", "--model_fields.image_size", "128", "--steps", "7", "--plan", "--out", str(tmp_path)]
    ended = CliRunner().invoke(app, ["reproduce", *arguments])
    assert ended.exit_code == 0, ended.output
    lines = [line for line in ended.stdout.splitlines() if line.startswith("deixis train")]
    assert len(lines) == 6
    assert all('"image_size": 128' in line and "--steps 7" in line for line in lines)
