"""Tables against other methods: what is trained and measured for them, and how it stands beside what is printed."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from deixis.cli import app
from deixis.papers import measure as measuring
from deixis.papers.measure import (
    Measured,
    Meter,
    Plan,
    comparison_plans,
    format_comparison,
    measure_given,
    measure_trained,
    parse_models,
)
from deixis.papers.tables import BY_PART, COMPARISONS, EXPERIMENTS, REC, Row, everywhere, structures_everywhere

TABLE = COMPARISONS["mcn-table-4"]


def run(*arguments):
    return CliRunner().invoke(app, ["reproduce", *(str(one) for one in arguments)])


def plan_of(table, budget, out, *, limit=None, **fields):
    experiment = table.experiment(budget, table.rows(budget), table.recipes)
    return Plan(experiment=experiment, budget=budget, meter=Meter(out=out, limit=limit), overrides={}, **fields)


def mine(*values):
    return Measured(Row(name="mine", paper=TABLE.own[1].values), values, TABLE.own[1].label)


class FakeResult:
    """An evaluation's report whose accuracy is told by the data."""

    def __init__(self, share):
        self.share = share

    def report(self):
        return {"rec": {"acc@0.5": self.share}, "res": {"miou": self.share / 2}, "ie": 0.0}


@pytest.fixture
def trained(monkeypatch):
    """Trainings and measurements that only note what was asked for."""
    notes = {"trained": [], "measured": []}

    def train(recipe, folder, *, resume):
        notes["trained"].append((recipe, folder))
        (folder / "checkpoint").mkdir(parents=True)
        (folder / "checkpoint" / "config.json").write_text(str(folder))

    def measure(model, name, *, split=None, **options):
        notes["measured"].append((model, f"{name}:{split}"))
        return FakeResult({"val": 0.5, "testA": 0.75, "testB": 0.25, "test": 0.5}[split])

    monkeypatch.setattr(measuring, "run", train)
    monkeypatch.setattr(measuring, "evaluate_command_result", measure)
    return notes


@pytest.mark.parametrize("name", COMPARISONS)
def test_plans_when_of_the_paper_then_each_row_is_trained_once_a_data_set_and_measured_on_every_split(name, tmp_path):
    table = COMPARISONS[name]
    planned = list(comparison_plans(table, plan_of(table, "paper", tmp_path)))
    assert [part for part, _ in planned if part is not None] == list(table.parts)
    assert (planned[0][0] is None) == bool(table.pretraining)
    for part, plan in planned:
        for row in plan.experiment.rows:
            recipe = plan.recipe_of(row, 1)
            assert recipe.model.preset in table.presets
            wanted = part.trained_on if part is not None else "mixed:train"
            assert recipe.data.phrased == wanted
    folders = {plan.folder_of(row, 1) for _, plan in planned for row in plan.experiment.rows}
    sets = {part.trained_on for part in table.parts}
    assert len(folders) == len(table.presets) * (len(sets) + bool(table.pretraining))


def test_plans_when_there_is_a_pre_training_then_the_others_start_from_it(tmp_path):
    table = COMPARISONS["smcim-table-2"]
    (_, before), (_, first), *_ = comparison_plans(table, plan_of(table, "paper", tmp_path))
    for row, own in zip(before.experiment.rows, first.experiment.rows, strict=True):
        assert first.recipe_of(own, 1).model.start == str(before.folder_of(row, 1) / "checkpoint")
        assert before.recipe_of(row, 1).optimiser.epochs == 40
        assert first.recipe_of(own, 1).optimiser.epochs == 60


def test_plans_when_encoders_are_named_for_all_rows_then_only_what_starts_without_a_checkpoint_takes_them(tmp_path):
    table = COMPARISONS["smcim-table-2"]
    named = replace(plan_of(table, "paper", tmp_path), overrides={"image_weights": "resnet", "text_weights": "bert"})
    (_, before), (_, first), *_ = comparison_plans(table, named)
    assert before.recipe_of(before.experiment.rows[0], 1).model.text_weights == "bert"
    tuned = first.recipe_of(first.experiment.rows[0], 1)
    assert (bool(tuned.model.start), tuned.model.image_weights, tuned.model.text_weights) == (True, "", "")


def test_plans_when_of_mcn_then_phrases_of_refcocog_may_be_longer(tmp_path):
    words = {
        part.data["paper"]: plan.recipe_of(plan.experiment.rows[0], 1).model.fields.get("max_tokens", 15)
        for part, plan in comparison_plans(TABLE, plan_of(TABLE, "paper", tmp_path))
    }
    assert {name for name, count in words.items() if count == 20} == {"refcocog-umd:val", "refcocog-umd:test"}


def test_measure_trained_when_small_then_one_training_a_seed_and_every_scene_split(trained, tmp_path):
    (one,) = measure_trained(TABLE, plan_of(TABLE, "small", tmp_path, seeds=(1, 2), limit=3))
    assert [recipe.run.seed for recipe, _ in trained["trained"]] == [1, 2]
    assert {data for _, data in trained["measured"]} == {part.data["small"] for part in TABLE.parts}
    assert one.beside == TABLE.own[1].label
    assert one.means == (50.0, 75.0, 25.0, 50.0, 75.0, 25.0, 50.0, 75.0)
    trained["measured"].clear()
    assert measure_trained(TABLE, plan_of(TABLE, "small", tmp_path, seeds=(1, 2), limit=3)) == [one]
    assert trained["measured"] == []


def test_measure_given_when_measured_before_then_read_again_unless_the_weights_have_changed(
    trained, tmp_path, tiny_checkpoint
):
    meter = Meter(out=tmp_path, limit=3)
    models = parse_models(str(tiny_checkpoint), ("scenes",))
    (one,) = measure_given(TABLE, "small", meter, models)
    assert len(trained["measured"]) == len(TABLE.parts)
    assert measure_given(TABLE, "small", meter, models) == [one]
    assert len(trained["measured"]) == len(TABLE.parts)
    measure_given(TABLE, "small", replace(meter, limit=4), models)
    assert len(trained["measured"]) == 2 * len(TABLE.parts)


def test_measure_given_when_a_data_set_has_no_checkpoint_then_a_gap(trained, tmp_path, tiny_checkpoint):
    models = parse_models(f"scenes+={tiny_checkpoint}", ("scenes", "scenes+"))
    (one,) = measure_given(TABLE, "small", Meter(out=tmp_path), models)
    assert one.means == (None, None, None, 50.0, 75.0, 25.0, None, None)


@pytest.mark.parametrize("text", ["", " , ", "nowhere=a", "scenes=", "scenes=a,scenes=b"])
def test_parse_models_when_wrong_then_one_sentence(text):
    with pytest.raises(ValueError, match="expected"):
        parse_models(text, ("scenes", "scenes+"))


def test_format_when_worked_by_hand_then_ours_the_printed_and_signed_differences():
    values = ((80.0, 82.0), (83.0,), (), (60.0,), (61.0,), (62.0,), (63.0,), (64.0,))
    lines = format_comparison(TABLE, [mine(*values)], "paper", "n = all").splitlines()
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:4] for line in lines if line.startswith("|")}
    assert cells["mine"] == ["81.00 (80.00 to 82.00)", "83.00", "-"]
    assert cells["printed: MCN, darknet53"] == ["80.08", "82.29", "74.98"]
    assert cells["difference"] == ["+0.92", "+0.71", "-"]
    assert cells["against the column before"] == ["-", "+2.00", "-"]
    assert cells["over the best of the others"] == ["+4.35", "+1.86", "-"]  # MattNet's 76.65 and 81.14
    assert cells["MattNet, mrcnn-resnet101"] == ["76.65", "81.14", "69.99"]
    assert "Drawn scenes" not in "\n".join(lines)


def test_format_when_small_then_it_says_that_the_data_is_other_data():
    told = format_comparison(TABLE, [mine(*((50.0,),) * 8)], "small", "n = 500")
    assert "other data than the paper's" in told
    assert "scenesg:testA" in told
    assert "over the best" not in told


def test_everywhere_when_listed_then_every_printed_split_is_measured_by_a_training_on_its_own_data(tmp_path):
    for name in BY_PART:
        for budget in ("small", "paper"):
            found = everywhere(name, budget)
            assert len({one.data[budget] for one in found}) == len(found)
            for one in found:
                made = Plan(experiment=one, budget=budget, meter=Meter(out=tmp_path), overrides={})
                recipe = made.recipe_of(one.rows[0], 1)
                assert (
                    not recipe.data.phrased
                    or recipe.data.phrased.partition(":")[0] == one.data[budget].partition(":")[0]
                )
    assert len(everywhere("smcim-table-5", "paper")) == 10
    assert [one.data["small"] for one in structures_everywhere("small")] == ["scenes:val", "scenes+:val", "scenesg:val"]


def test_everywhere_when_small_then_rows_share_the_trainings_of_the_table_itself(tmp_path):
    own = Plan(experiment=EXPERIMENTS["mcn-table-2"], budget="small", meter=Meter(out=tmp_path), overrides={})
    for one in everywhere("mcn-table-2", "small"):
        elsewhere = replace(own, experiment=one)
        for row, other in zip(own.experiment.rows, one.rows, strict=True):
            assert own.folder_of(row, 1) == elsewhere.folder_of(other, 1)


# Commands


def test_reproduce_when_a_plan_of_the_paper_is_asked_for_then_commands_and_nothing_is_run(tmp_path):
    result = run("mcn-table-5", "--budget", "paper", "--plan", "--out", tmp_path / "runs", "--root", "data")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum(line.startswith("deixis train mcn") for line in lines) == 6  # two networks on three data sets
    assert sum(line.startswith("deixis evaluate") for line in lines) == 16
    assert not (tmp_path / "runs").exists()


def test_reproduce_when_checkpoints_are_given_then_the_table_of_them(trained, tmp_path, tiny_checkpoint):
    result = run("smcim-table-1", "--model", tiny_checkpoint, "--limit", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "| TransVG, ResNet-101/BERT | 81.02 |" in result.stdout
    assert f"| {tiny_checkpoint} | 50.00 | 75.00 | 25.00 |" in result.stdout
    assert trained["trained"] == []


def test_reproduce_when_a_table_is_wanted_everywhere_then_a_table_a_split(trained, tmp_path):
    result = run("mcn-table-2", "--everywhere", "--limit", 3, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("MCN Table 2") == 3
    assert "| +CEM | 50.00 | 25.00 | 0.00 | 67.16 | 49.55 | 13.51 |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mcn-table-4", "--budget", "huge"], "small, paper"),
        (["mcn-table-4", "--model", "a", "--plan"], "--plan"),
        (["mcn-table-4", "--everywhere"], "--everywhere"),
        (["mcn-table-4", "--data", "scenes"], "--data"),
        (["mcn-table-2", "--model", "a"], "--model"),
        (["mcn-table-1", "--steps", "3"], "--steps 3"),
        (["mcn-table-1", "--plan"], "--plan"),
    ],
)
def test_reproduce_when_an_option_does_nothing_then_it_is_refused(arguments, words):
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_columns_when_compared_then_rec_and_res():
    assert {name: one.column == REC for name, one in COMPARISONS.items()} == {
        "mcn-table-4": True, "mcn-table-5": False, "smcim-table-1": True, "smcim-table-2": True,
    }  # fmt: skip
