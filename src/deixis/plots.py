"""Small charts: axes with round numbers, lines, whiskers; Pillow only."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
        left, top, right, bottom = self.box
        for value in self.across.ticks():
            x, _ = self.place(value, self.up.low)
            pen.line((x, top, x, bottom), fill=GRID)
            pen.text((x, bottom + 8), self.across.label(value), fill=INK, font=font, anchor="mt")
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


def draw_panels(panels: Sequence[Panel]) -> Image.Image:
    """The charts one below the other, each with its names at its right; a name has one colour in all of them.

    Raises:
        ValueError: no chart, more than `MAX_PANELS`, or one without a point.
    """
    if not 0 < len(panels) <= MAX_PANELS:
        raise ValueError(f"expected 1 to {MAX_PANELS} charts to draw, got {len(panels)!r}; choose what has numbers")
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    font = ImageFont.load_default(size=FONT_PX)
    legend = 3 * _SWATCH_PX + round(max((font.getlength(_shortened(name)) for name in names), default=0))
    width, height = PANEL_PX
    picture = Image.new("RGB", (width + legend, height * len(panels)), "white")
    pen = ImageDraw.Draw(picture)
    for index, panel in enumerate(panels):
        box = (LEFT_PX, height * index + TOP_PX, width, height * (index + 1) - BOTTOM_PX)
        _draw_panel(pen, panel, box, font, colours)
    return picture


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
    for index, line in enumerate(panel.lines):
        colour = colours[line.name]
        _draw_line(pen, frame, line, colour, dots=panel.dots)
        x, y = box[2] + _SWATCH_PX, box[1] + FONT_PX * (1 + 1.5 * index)
        pen.line((x, y, x + _SWATCH_PX, y), fill=colour, width=2 * _LINE_PX)
        pen.text((x + _SWATCH_PX + 8, y), _shortened(line.name), fill=INK, font=font, anchor="lm")


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
