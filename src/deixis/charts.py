"""Charts as pictures: axes with round numbers, lines, whiskers, bars; Pillow only.

Those of HTML pages, as SVG, are in `deixis.evaluate.report.html_plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from deixis.drawing import COLOURS

FONT_PX = 18
GRID = (225, 225, 225)
INK = (40, 40, 40)
TICKS = 5
PANEL_PX = (960, 360)
MAX_PANELS = 40
LEFT_PX, TOP_PX, BOTTOM_PX = 90, 40, 70
_DOT_PX = 4
_LINE_PX = 2
_SWATCH_PX = 24
_MAX_NAME_CHARS = 28
_GROUP_SHARE = 0.8
"""Of a group's room that its bars fill."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` in steps of ``step``."""

    low: float
    high: float
    step: float

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """All multiples of the step from ``low`` to ``high``."""
        return [self.low + self.step * number for number in range(round((self.high - self.low) / self.step) + 1)]

    def label(self, value: float) -> str:
        """With as many digits as the step has; a power of ten where they would be too many."""
        if max(abs(self.low), abs(self.high)) >= 1e6:
            return f"{value:.3g}"
        return f"{value:.{max(0, -math.floor(math.log10(self.step)))}f}"


def round_axis(values: Sequence[float]) -> Axis:
    """An axis around the values whose ends are multiples of a step of 1, 2 or 5 times a power of ten."""
    low, high = min(values), max(values)
    spread = max(high - low, 0.1 * abs(high), 1e-3)
    rough = spread / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    below, above = math.floor(low / step), math.ceil(high / step)
    if below == above:
        below, above = below - 1, above + 1
    return Axis(below * step, above * step, step)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A rectangle of a picture, in pixels, with its two axes."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom."""
    across: Axis
    up: Axis

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where in the picture that value lies."""
        left, top, right, bottom = self.box
        return left + (right - left) * self.across.share(x), bottom - (bottom - top) * self.up.share(y)

    def draw(self, pen: ImageDraw.ImageDraw, font: Font, *, across_label: str, up_label: str) -> None:
        """The grid, its numbers, what runs across (below) and what runs up (above the left corner)."""
        for value in self.across.ticks():
            x, _ = self.place(value, self.up.low)
            pen.line((x, self.box[1], x, self.box[3]), fill=GRID)
            pen.text((x, self.box[3] + 8), self.across.label(value), fill=INK, font=font, anchor="mt")
        self.draw_up(pen, font, across_label=across_label, up_label=up_label)

    def draw_up(self, pen: ImageDraw.ImageDraw, font: Font, *, across_label: str, up_label: str) -> None:
        """The same without numbers across."""
        left, top, right, bottom = self.box
        for value in self.up.ticks():
            _, y = self.place(self.across.low, value)
            pen.line((left, y, right, y), fill=GRID)
            pen.text((left - 8, y), self.up.label(value), fill=INK, font=font, anchor="rm")
        pen.rectangle(self.box, outline=INK)
        pen.text(((left + right) / 2, bottom + 56), across_label, fill=INK, font=font, anchor="mb")
        pen.text((left, top - 10), up_label, fill=INK, font=font, anchor="lb")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points from left to right under one name."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """(x, y); None interrupts the line."""
    ranges: Sequence[tuple[float, float, float]] = ()
    """(x, least, largest), drawn as whiskers."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart of several lines."""

    up_label: str
    across_label: str
    lines: Sequence[Line]
    dots: bool = False
    """Whether each point is marked, as where there are only a few."""


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """One chart of bars in groups."""

    up_label: str
    across_label: str
    groups: Mapping[str, Mapping[str, float | None]]
    """What stands below a group -> name -> value from 0 on; None for no bar."""


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """The charts one below the other, each with its names at its right; a name has one colour in all of them.

    Raises:
        ValueError: no chart, more than `MAX_PANELS`, or one without a point.
    """
    _check_number(len(panels))
    picture, pen, font, colours = _sheet([line.name for panel in panels for line in panel.lines], len(panels))
    for index, panel in enumerate(panels):
        _draw_panel(pen, panel, _place(index), font, colours)
    return picture


def draw_bars(panels: Sequence[BarPanel]) -> Image.Image:
    """Charts of bars, laid out and coloured as by :func:`draw_panels`; every axis begins at 0.

    Raises:
        ValueError: no chart, more than `MAX_PANELS`, or one without a bar.
    """
    _check_number(len(panels))
    names = list(dict.fromkeys(name for panel in panels for group in panel.groups.values() for name in group))
    picture, pen, font, colours = _sheet(names, len(panels))
    for index, panel in enumerate(panels):
        box = _place(index)
        _draw_bar_panel(pen, panel, box, font, colours)
        _draw_names(
            pen, [name for name in names if any(name in group for group in panel.groups.values())], box, colours
        )
    return picture


def _check_number(count: int) -> None:
    if not 0 < count <= MAX_PANELS:
        raise ValueError(f"expected 1 to {MAX_PANELS} charts to draw, got {count!r}; choose what has numbers")


def _sheet(
    names: Sequence[str], count: int
) -> tuple[Image.Image, ImageDraw.ImageDraw, Font, dict[str, tuple[int, int, int]]]:
    """An empty picture for so many charts, with room for the names, and a colour for each of these."""
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(dict.fromkeys(names))}
    font = ImageFont.load_default(size=FONT_PX)
    legend = 3 * _SWATCH_PX + round(max((font.getlength(_shortened(name)) for name in colours), default=0))
    picture = Image.new("RGB", (PANEL_PX[0] + legend, PANEL_PX[1] * count), "white")
    return picture, ImageDraw.Draw(picture), font, colours


def _place(index: int) -> tuple[int, int, int, int]:
    """Where the field of that chart lies."""
    width, height = PANEL_PX
    return LEFT_PX, height * index + TOP_PX, width, height * (index + 1) - BOTTOM_PX


def _draw_bar_panel(
    pen: ImageDraw.ImageDraw,
    panel: BarPanel,
    box: tuple[int, int, int, int],
    font: Font,
    colours: dict[str, tuple[int, int, int]],
) -> None:
    values = [value for group in panel.groups.values() for value in group.values() if value is not None]
    if not values:
        raise ValueError(f"expected bars to draw for {panel.up_label!r}, got none; choose what has such numbers")
    frame = Frame(box=box, across=Axis(0, len(panel.groups), 1), up=round_axis([0.0, *values]))
    frame.draw_up(pen, font, across_label=panel.across_label, up_label=panel.up_label)
    for place, (label, group) in enumerate(panel.groups.items()):
        x, bottom = frame.place(place + 0.5, 0)
        pen.text((x, bottom + 8), _shortened(label), fill=INK, font=font, anchor="mt")
        wide = _GROUP_SHARE / max(1, len(group))
        for number, (name, value) in enumerate(group.items()):
            if value is not None:
                left = place + (1 - _GROUP_SHARE) / 2 + wide * number
                x1, y1 = frame.place(left, value)
                x2, y2 = frame.place(left + wide, 0)
                pen.rectangle((x1, y1, max(x1, x2 - 1), y2), fill=colours[name])


def _draw_names(
    pen: ImageDraw.ImageDraw,
    names: Sequence[str],
    box: tuple[int, int, int, int],
    colours: dict[str, tuple[int, int, int]],
) -> None:
    font = ImageFont.load_default(size=FONT_PX)
    for index, name in enumerate(names):
        x, y = box[2] + _SWATCH_PX, box[1] + FONT_PX * (1 + 1.5 * index)
        pen.line((x, y, x + _SWATCH_PX, y), fill=colours[name], width=2 * _LINE_PX)
        pen.text((x + _SWATCH_PX + 8, y), _shortened(name), fill=INK, font=font, anchor="lm")


def _draw_panel(
    pen: ImageDraw.ImageDraw,
    panel: Panel,
    box: tuple[int, int, int, int],
    font: Font,
    colours: dict[str, tuple[int, int, int]],
) -> None:
    known = [(x, y) for line in panel.lines for x, y in line.points if y is not None]
    if not known:
        raise ValueError(f"expected points to draw for {panel.up_label!r}, got none; choose what has such numbers")
    heights = [y for _, y in known] + [end for line in panel.lines for _, *ends in line.ranges for end in ends]
    frame = Frame(box=box, across=round_axis([x for x, _ in known]), up=round_axis(heights))
    frame.draw(pen, font, across_label=panel.across_label, up_label=panel.up_label)
    for line in panel.lines:
        _draw_line(pen, frame, line, colours[line.name], dots=panel.dots)
    _draw_names(pen, [line.name for line in panel.lines], box, colours)


def _draw_line(pen: ImageDraw.ImageDraw, frame: Frame, line: Line, colour: tuple[int, int, int], *, dots: bool) -> None:
    for x, low, high in line.ranges:
        pen.line((*frame.place(x, low), *frame.place(x, high)), fill=colour, width=_LINE_PX)
    places = [None, *(None if y is None else frame.place(x, y) for x, y in line.points), None]
    for before, here, after in zip(places, places[1:], places[2:], strict=False):
        if here is None:
            continue
        if before is not None:
            pen.line((*before, *here), fill=colour, width=_LINE_PX)
        if dots or before is after is None:  # a point without neighbours would not be seen
            pen.ellipse((here[0] - _DOT_PX, here[1] - _DOT_PX, here[0] + _DOT_PX, here[1] + _DOT_PX), fill=colour)


def _shortened(name: str) -> str:
    """The end of a long name, which is where folders differ."""
    plain = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    return plain if len(plain) <= _MAX_NAME_CHARS else "..." + plain[-_MAX_NAME_CHARS:]
