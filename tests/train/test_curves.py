"""A run's log: what is read of it, and the charts of its losses."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.train.curves import MAX_POINTS, curve_panels, draw_curves, read_log, smoothed


@pytest.fixture
def make_run(tmp_path):
    def make(*rows):
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in rows]
        (tmp_path / "metrics.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        return tmp_path

    return make


def test_read_log_when_written_by_training_then_steps_and_numbers(make_run):
    made = read_log(make_run({"step": 1, "seconds": 0.5, "loss": 3.0}, {"step": 2, "seconds": 1.0, "loss": None}))
    assert made.curves == {"loss": [(1, 3.0), (2, None)]}
    assert made.problems == ()


@pytest.mark.parametrize(
    "line",
    [
        b'{"step": 2, "lo', b"\xff\xfe{}", b"[" * 60_000, b"[1]", b"null", b'{"loss": 1}', b'{"step": true}',
        b'{"step": 1, "loss": 2}', b'{"step": 1e400}', b'{"step": 2, "loss": "low"}', b'{"step": 2, "loss": 1e999}',
        b'{"step": 2, "loss": true}', b'{"step": ' + b"9" * 500 + b"}",
        b'{"step": 2, "loss": 1' + b"0" * 400 + b"}", b'{"step": 2, "loss": "' + b"x" * 200_000 + b'"}', b"",
    ],
    ids=lambda line: str(line[:24]),
)  # fmt: skip
def test_read_log_when_a_line_is_bad_then_told_once_and_the_others_are_kept(make_run, line):
    made = read_log(make_run({"step": 1, "loss": 3.0}, line, {"step": 3, "loss": 1.0}))
    assert made.curves == {"loss": [(1, 3.0), (3, 1.0)]}
    assert len(made.problems) == 1
    assert "line 2" in made.problems[0]
    assert len(made.problems[0]) < 200


@settings(max_examples=30, deadline=None)
@given(content=st.lists(st.binary(max_size=40), max_size=5))
def test_read_log_when_any_bytes_then_lines_are_kept_or_told(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("run")
    (folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 1}\n' + b"\n".join(content))
    with (folder / "metrics.jsonl").open("rb") as file:
        count = len(list(file))
    made = read_log(folder)
    assert len(made.curves["loss"]) + len(made.problems) == count


def test_read_log_when_there_is_none_or_nothing_in_it_then_one_sentence(make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        read_log(tmp_path / "none")
    with pytest.raises(ValueError, match=r"expected the losses of at least one step .* line 1"):
        read_log(make_run(b"no"))


def test_smoothed_when_more_steps_than_points_then_means_of_neighbours():
    values = [1.0, 3.0] * (MAX_POINTS - 1) + [None, 5.0]
    points = smoothed(list(enumerate(values, start=1)))
    assert len(points) == MAX_POINTS
    assert points[0] == (1.5, 2.0)
    assert points[-1] == (2 * MAX_POINTS - 0.5, 5.0)
    assert smoothed([(7, None)]) == [(7.0, None)]
    assert smoothed([]) == []


def test_curve_panels_when_of_two_runs_then_a_chart_a_loss_with_those_that_have_it():
    one = {"loss": [(1, 4.0), (9, 1.0)], "box": [(1, 1.0), (9, 0.5)], "never": [(1, None)]}
    panels = curve_panels({"one": one, "two": {"loss": [(1, 3.0), (5, 2.0)]}})
    assert [(panel.up_label, [line.name for line in panel.lines]) for panel in panels] == [
        ("loss", ["one", "two"]), ("box", ["one"]),
    ]  # fmt: skip
    assert panels[0].lines[1].points == [(1.0, 3.0), (5.0, 2.0)]


def test_draw_curves_when_of_two_losses_then_side_by_side():
    assert draw_curves({"run": {"loss": [(1, -3.0)], "sigma": [(1, 2.5), (2, 2.5)]}}).size == (800, 250)


def test_draw_curves_when_there_is_nothing_then_one_sentence():
    with pytest.raises(ValueError, match="expected losses of at least one step to draw, got none"):
        draw_curves({"run": {"loss": []}})


def test_draw_curves_when_matplotlib_is_missing_then_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'deixis\[plots\]'"):
        draw_curves({"run": {"loss": [(1, 1.0)]}})
