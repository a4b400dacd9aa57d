"""Charts: what lies where, at any numbers and names."""

import re
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import ImageColor

from deixis.charts import (
    COLOURS,
    MAX_PANELS,
    PANEL_PX,
    BarPanel,
    Line,
    Panel,
    check_matplotlib,
    draw_panels,
    draw_svg,
    fill_figure,
    shorten,
)


def panel(*lines, **fields):
    return Panel(up_label="loss", across_label="step", lines=lines, **fields)


def bars(groups):
    return BarPanel(up_label="percent", across_label="words", groups=groups)


def axes_of(*panels):
    figure = Figure()
    fill_figure(figure, panels, len(panels), 1)
    return figure.axes


def test_lines_when_a_value_is_missing_then_a_gap_and_what_stands_alone_is_marked():
    line = Line(name="a", points=[(0, 1.0), (4, 1.0), (5, None), (6, 1.0), (7, None)])
    (axis,) = axes_of(panel(line))
    (drawn,) = axis.lines
    assert np.isnan(drawn.get_ydata()).tolist() == [False, False, True, False, True]
    assert (drawn.get_marker(), drawn.get_markevery()[0]) == ("o", 3)
    assert (axis.get_title(loc="left") or axis.get_title(), axis.get_xlabel()) == ("loss", "step")


def test_lines_when_there_are_ranges_then_whiskers():
    (axis,) = axes_of(panel(Line(name="a", points=[(5, 1.0), (6, 1.0)], ranges=[(5, 0.0, 2.0), (6, 1.0, 1.0)])))
    assert [one.get_segments()[0][:, 1].tolist() for one in axis.collections] == [[0.0, 2.0], [1.0, 1.0]]


def test_panels_when_a_name_is_in_two_charts_then_one_colour():
    a, b = Line(name="a", points=[(0, 0.0), (1, 1.0)]), Line(name="b", points=[(0, 1.0), (1, 0.0)])
    first, second = axes_of(panel(a, b), panel(b))
    assert [line.get_color() for line in first.lines] == list(COLOURS[:2])
    assert second.lines[0].get_color() == COLOURS[1]


def test_bars_when_values_are_known_then_heights_follow_and_groups_stand_in_order():
    groups = {"1-2": {"a": 100.0, "b": 50.0}, "3": {"a": 0.0, "b": None}, "4+": {"b": 100.0}}
    (axis,) = axes_of(bars(groups))
    assert [one.get_height() for one in axis.patches] == [100.0, 50.0, 0.0, 100.0]
    assert [round(one.get_x() + one.get_width() / 2, 1) for one in axis.patches] == [-0.2, 0.2, 0.8, 2.0]
    assert [one.get_text() for one in axis.get_xticklabels()] == ["1-2", "3", "4+"]


def test_draw_panels_when_numbers_and_names_are_strange_then_an_image_of_the_size_asked_for():
    strange = Line(name="$x" * 5000 + "\ud800\x00", points=[(0, -1e30), (1, 1e30)])
    drawn = draw_panels([panel(strange), bars({"\u6c49": {"a": 1.0}})])
    assert drawn.size == (PANEL_PX[0], 2 * PANEL_PX[1])
    assert draw_panels([panel(strange)] * 4, columns=3, panel_px=(200, 150)).size == (600, 300)
    blue = ImageColor.getrgb(COLOURS[1])
    assert (np.asarray(drawn)[PANEL_PX[1] :] == blue).all(-1).any()


@pytest.mark.parametrize(
    ("panels", "words"),
    [
        ([], "1 to 40 charts to draw, got 0"),
        ([panel(Line(name="a", points=[(0, 1.0)]))] * (MAX_PANELS + 1), "got 41"),
        ([panel(Line(name="a", points=[(0, None)]))], "points to draw for 'loss'"),
        ([panel()], "points to draw for 'loss'"),
        ([bars({"1": {"a": None}})], "expected bars"),
    ],
    ids=["none", "many", "unknown", "no line", "no bar"],
)
def test_draw_panels_when_there_is_nothing_to_draw_then_one_sentence(panels, words):
    with pytest.raises(ValueError, match=words):
        draw_panels(panels)


def test_draw_svg_when_put_into_a_page_then_it_takes_its_ink_and_brings_no_style_of_its_own():
    svg = draw_svg(lambda axis: axis.set_title(shorten("<b> & \x00")), (360, 200))
    root = ElementTree.fromstring(svg)
    assert (root.get("role"), root.get("viewBox")) == ("img", "0 0 360 200")
    assert "&lt;b&gt; &amp; " in svg
    assert "currentColor" in svg
    assert "var(--line)" in svg
    assert not re.findall(r"<style|<metadata|<g id=|https?://(?!www\.w3\.org/2000/svg)", svg)


def test_check_matplotlib_when_it_is_missing_then_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'deixis\[plots\]'"):
        check_matplotlib()
