"""Charts: what lies where, at any numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.charts import MAX_PANELS, PANEL_PX, Axis, BarPanel, Frame, Line, Panel, draw_bars, draw_panels, round_axis
from deixis.drawing import COLOURS

NUMBERS = st.floats(-1e30, 1e30, allow_nan=False)


def panel(*lines, **fields):
    return Panel(up_label="loss", across_label="step", lines=lines, **fields)


def where(picture, colour):
    """Rows and columns [N, 2] of a colour inside the charts, not among the names at their right."""
    return np.argwhere((np.asarray(picture)[:, : PANEL_PX[0]] == colour).all(-1))


@settings(max_examples=50, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=5))
def test_round_axis_when_any_numbers_then_all_lie_on_it_and_the_ticks_are_few(values):
    axis = round_axis(values)
    assert axis.low <= min(values) + 1e-9 * axis.step
    assert max(values) <= axis.high + 1e-9 * axis.step
    assert 2 <= len(axis.ticks()) <= 12
    assert all(len(axis.label(tick)) <= 11 for tick in axis.ticks())


def test_axis_label_when_numbers_are_large_then_a_power_of_ten():
    assert Axis(0, 5e7, 1e7).label(2e7) == "2e+07"
    assert Axis(0, 1, 0.2).label(0.6000000000000001) == "0.6"


def test_frame_when_a_value_is_placed_then_up_is_up():
    frame = Frame(box=(10, 20, 110, 220), across=Axis(0, 10, 1), up=Axis(-1, 1, 1))
    assert frame.place(0, -1) == (10, 220)
    assert frame.place(10, 1) == (110, 20)
    assert frame.place(5, 0.5) == (60, 70)


def test_draw_panels_when_a_line_falls_then_it_does_in_the_picture():
    picture = draw_panels([panel(Line(name="a", points=[(0, 3.0), (10, 0.0)]))])
    assert picture.height == PANEL_PX[1]
    rows, columns = where(picture, COLOURS[0]).T
    assert np.corrcoef(columns, rows)[0, 1] > 0.99
    assert (np.unique(columns) == np.arange(columns.min(), columns.max() + 1)).all()


def test_draw_panels_when_a_value_is_missing_then_a_gap():
    points = [(0, 1.0), (4, 1.0), (5, None), (6, 1.0), (10, 1.0)]
    columns = np.unique(where(draw_panels([panel(Line(name="a", points=points))]), COLOURS[0])[:, 1])
    assert (np.diff(columns) > 1).sum() == 1


def test_draw_panels_when_a_point_stands_alone_then_it_is_seen_and_ranges_are_whiskers():
    alone = draw_panels([panel(Line(name="a", points=[(0, None), (5, 1.0), (6, None)]))])
    assert len(where(alone, COLOURS[0])) > 20
    spread = Line(name="a", points=[(5, 1.0), (6, 1.0)], ranges=[(5, 0.0, 2.0), (6, 1.0, 1.0)])
    rows = where(draw_panels([panel(spread)]), COLOURS[0])[:, 0]
    assert rows.max() - rows.min() > 150


def test_draw_panels_when_a_name_is_in_two_charts_then_one_colour():
    a, b = Line(name="a", points=[(0, 0.0), (1, 1.0)]), Line(name="b", points=[(0, 1.0), (1, 0.0)])
    picture = draw_panels([panel(a, b), panel(b)])
    assert picture.height == 2 * PANEL_PX[1]
    assert where(picture, COLOURS[0])[:, 0].max() < PANEL_PX[1] < where(picture, COLOURS[1])[:, 0].max()


def test_draw_panels_when_names_are_long_or_strange_then_they_fit():
    long = draw_panels([panel(Line(name="x" * 5000 + "\ud800", points=[(0, 0.0)]))])
    assert long.width < 2 * PANEL_PX[0]


@pytest.mark.parametrize(
    ("panels", "words"),
    [
        ([], "1 to 40 charts, got 0"),
        ([panel(Line(name="a", points=[(0, 1.0)]))] * (MAX_PANELS + 1), "got 41"),
        ([panel(Line(name="a", points=[(0, None)]))], "points to draw for 'loss'"),
        ([panel()], "points to draw for 'loss'"),
    ],
    ids=["none", "many", "unknown", "no line"],
)
def test_draw_panels_when_there_is_nothing_to_draw_then_one_sentence(panels, words):
    with pytest.raises(ValueError, match=words.replace("charts,", "charts to draw,")):
        draw_panels(panels)


def test_draw_bars_when_values_are_known_then_heights_follow_and_groups_stand_in_order():
    groups = {"1-2": {"a": 100.0, "b": 50.0}, "3": {"a": 0.0, "b": None}, "4+": {"b": 100.0}}
    picture = draw_bars([BarPanel(up_label="percent", across_label="words", groups=groups)])
    a, b = (where(picture, colour) for colour in COLOURS[:2])
    tall, half = (np.ptp(rows[rows[:, 1] < PANEL_PX[0] // 3][:, 0]) for rows in (a, b))
    assert half == pytest.approx(tall / 2, abs=2)
    assert a[:, 1].max() < PANEL_PX[0] * 2 / 3 < b[:, 1].max()  # a has no bar in the last group
    columns = b[:, 1]
    assert not ((columns > PANEL_PX[0] * 0.45) & (columns < PANEL_PX[0] * 0.65)).any()  # nor has b in the middle one


def test_draw_bars_when_there_is_none_then_one_sentence():
    with pytest.raises(ValueError, match="expected bars"):
        draw_bars([BarPanel(up_label="percent", across_label="words", groups={"1": {"a": None}})])
    with pytest.raises(ValueError, match="1 to"):
        draw_bars([])
