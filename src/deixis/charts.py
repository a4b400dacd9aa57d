"""Charts by matplotlib, as images and as the SVG of HTML pages: lines, whiskers, bars.

matplotlib comes with the extra ``plots`` and is imported when a chart is drawn, never before.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
"""One a name, in order; they can be told apart on white and on black, the first three also by the colour-blind."""
INK, GRID = "#1b1f24", "#d0d7de"
PANEL_PX = (960, 360)
MAX_PANELS = 40
_MARKERS = "osD^"
"""With their colours they tell 32 names apart."""
_DPI = 100
_MAX_NAME_CHARS = 40
_SVG_DPI = 72  # a point is a unit of the drawing
_BARS_SHARE = 0.8
"""How much of a group's width its bars fill."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points from left to right under one name."""

    name: str
    points: Sequence[tuple[float, float | None]]
    """(x, y); None interrupts the line."""
    ranges: Sequence[tuple[float, float, float]] = ()
    """(x, least, largest), drawn as whiskers."""
    is_joined: bool = True
    """False for points without a line between them."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A chart of lines."""

    up_label: str
    across_label: str
    lines: Sequence[Line]
    dots: bool = False
    """Whether every point is marked; one without neighbours always is."""


@dataclass(frozen=True, kw_only=True)
class BarPanel:
    """A chart of bars in groups; its axis begins at 0."""

    up_label: str
    across_label: str
    groups: Mapping[str, Mapping[str, float | None]]
    """Label below a group -> name -> height; None for no bar."""


def has_matplotlib() -> bool:
    """Whether charts can be drawn here."""
    return find_spec("matplotlib") is not None


def check_matplotlib() -> None:
    """Refuse a chart before the work that it would show.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not has_matplotlib():
        raise ImportError("expected the package matplotlib to draw charts, found none; pip install 'deixis[plots]'")


def draw_panels(
    panels: Sequence[Panel | BarPanel], *, columns: int = 1, panel_px: tuple[int, int] = PANEL_PX
) -> Image.Image:
    """The charts in rows of ``columns``, below a legend of all names; a name has one colour in all charts.

    Args:
        panels: what is drawn.
        columns: charts side by side.
        panel_px: width and height of each.

    Raises:
        ValueError: no chart, more than `MAX_PANELS`, or one without a value.
        ImportError: matplotlib is not installed.
    """
    if not 0 < len(panels) <= MAX_PANELS:
        raise ValueError(f"expected 1 to {MAX_PANELS} charts to draw, got {len(panels)}; choose what has numbers")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with _drawing((columns * panel_px[0], rows * panel_px[1]), _DPI) as figure:
        fill_figure(figure, panels, rows, columns)
        return _as_image(figure)


def draw_svg(draw: Callable[[Axes], None], px: tuple[int, int]) -> str:
    """What ``draw`` puts on one pair of axes as inline SVG, in the ink of the page around it.

    The page has to define ``--line``, the colour of rules. ``role="img"`` stands in the opening tag once.

    Raises:
        ImportError: matplotlib is not installed.
    """
    with _drawing(px, _SVG_DPI) as figure:
        draw(figure.subplots())
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True)
    inner = re.search(r"<svg[^>]*>(.*)</svg>", written.getvalue(), re.DOTALL)
    assert inner is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", inner[1], flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r"(font: [\d.]+px|font-family:) '[^;\"]*", r"\1 system-ui, sans-serif", body)
    body = body.replace(INK, "currentColor").replace(GRID, "var(--line)")
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {px[0]} {px[1]}">{body}</svg>'


def shorten(name: str) -> str:
    """A name in one line of printable characters; of a long one its end, which is where folders differ."""
    plain = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    plain = "".join(letter for letter in plain if letter.isprintable())
    return plain if len(plain) <= _MAX_NAME_CHARS else f"...{plain[-_MAX_NAME_CHARS:]}"


@contextmanager
def _drawing(px: tuple[int, int], dpi: int) -> Iterator[Figure]:
    """An empty figure, to be drawn on and written before the block ends."""
    check_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    style: Any = {
        **ink, "font.size": 9 if dpi == _DPI else 10, "grid.color": GRID, "axes.grid": True, "axes.axisbelow": True,
        "xtick.major.size": 0, "ytick.major.size": 0, "axes.titlelocation": "left", "axes.titlesize": "medium",
        "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "deixis",
    }  # fmt: skip
    with rc_context(style), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font does not have
        yield Figure(figsize=(px[0] / dpi, px[1] / dpi), dpi=dpi, layout="constrained")


def fill_figure(figure: Figure, panels: Sequence[Panel | BarPanel], rows: int, columns: int) -> None:
    """Draw the charts and their legend on a figure."""
    names = list(dict.fromkeys(name for panel in panels for name in _names(panel)))
    looks = {
        name: (COLOURS[index % len(COLOURS)], _MARKERS[index // len(COLOURS) % len(_MARKERS)])
        for index, name in enumerate(names)
    }
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.up_label)
        axis.set_xlabel(panel.across_label)
        if isinstance(panel, Panel):
            draw_lines(axis, panel, looks)
        else:
            draw_bars(axis, panel, {name: colour for name, (colour, _) in looks.items()})
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    if any(names):
        from matplotlib.lines import Line2D

        handles = [Line2D([], [], color=colour, marker=marker) for colour, marker in looks.values()]
        figure.legend(handles, [*map(shorten, names)], loc="outside upper left", ncols=3, frameon=False)


def _names(panel: Panel | BarPanel) -> list[str]:
    if isinstance(panel, Panel):
        return [line.name for line in panel.lines]
    return [name for group in panel.groups.values() for name in group]


def draw_lines(axis: Axes, panel: Panel, looks: Mapping[str, tuple[str, str]]) -> None:
    """The lines of a chart, each in the colour and with the marker of its name."""
    if not any(y is not None for line in panel.lines for _, y in line.points):
        raise ValueError(f"expected points to draw for {panel.up_label!r}, got none; choose what has such numbers")
    for line in panel.lines:
        colour, marker = looks[line.name]
        for x, low, high in line.ranges:
            axis.vlines(x, low, high, color=colour)
        heights = [math.nan if y is None else y for _, y in line.points]
        known = [False, *(not math.isnan(y) for y in heights), False]
        marked = [
            index
            for index in range(len(heights))
            if panel.dots or not line.is_joined or not (known[index] or known[index + 2])
        ]
        axis.plot(
            [x for x, _ in line.points], heights, color=colour, linestyle="-" if line.is_joined else "none",
            marker=marker if marked else None, markevery=marked or None, markersize=5,
        )  # fmt: skip


def draw_bars(axis: Axes, panel: BarPanel, colours: Mapping[str, str]) -> None:
    """The bars of a chart, each in the colour of its name."""
    if not any(value is not None for group in panel.groups.values() for value in group.values()):
        raise ValueError(f"expected bars to draw for {panel.up_label!r}, got none; choose what has such numbers")
    for place, group in enumerate(panel.groups.values()):
        width = _BARS_SHARE / max(1, len(group))
        for number, (name, value) in enumerate(group.items()):
            if value is not None:
                axis.bar(place - _BARS_SHARE / 2 + width * (number + 0.5), value, width, color=colours[name])
    axis.set_xticks(range(len(panel.groups)), [*map(shorten, panel.groups)])
    axis.grid(visible=False, axis="x")


def _as_image(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
