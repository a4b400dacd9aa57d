"""Charts of HTML pages, as inline SVG that is legible on a phone: bars with intervals, curves, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deixis.charts import COLOURS, GRID, INK, draw_svg, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 360, 260
_ROW = 18
"""Height of a bar with its label."""
_LABEL_CHARS = 20


@dataclass(frozen=True)
class Bar:
    """A share, 0..1, and its interval where there is one."""

    label: str
    value: float
    bounds: Sequence[float] | None = None


def bar_chart(bars: Sequence[Bar]) -> str:
    """Bars to the right, one below the other, 0 to 100 percent."""

    def draw(axis: Axes) -> None:
        places = range(len(bars))
        values = [100 * bar.value for bar in bars]
        axis.barh(places, values, 0.7, color=COLOURS[0])
        for place, bar in enumerate(bars):
            if bar.bounds is not None:
                axis.hlines(place, 100 * bar.bounds[0], 100 * bar.bounds[1], color=INK, linewidth=1)
            axis.text(1.02, place, f"{values[place]:.1f}", va="center", transform=axis.get_yaxis_transform())
        labels = [shorten(bar.label) for bar in bars]
        axis.set_yticks(places, [one if len(one) <= _LABEL_CHARS else f"{one[: _LABEL_CHARS - 1]}…" for one in labels])
        axis.set(xlim=(0, 100), xticks=(), ylim=(len(bars) - 0.5, -0.5))
        axis.grid(visible=False)
        axis.set_frame_on(False)

    return draw_svg(draw, (_WIDTH, _ROW * len(bars) + 8))


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    *,
    top: float = 1.0,
    diagonal: bool = False,
) -> str:
    """Lines through points of 0..1 across and 0..``top`` up, in percent; ``diagonal`` joins two corners."""

    def draw(axis: Axes) -> None:
        if diagonal:
            axis.plot([0, 1], [0, 100], color=GRID)
        for number, (name, points) in enumerate(series.items()):
            marker = "o" if len(points) <= 10 else None
            heights = [100 * y for _, y in points]
            colour = COLOURS[number % len(COLOURS)]
            axis.plot([x for x, _ in points], heights, color=colour, marker=marker, label=shorten(name))
        axis.set(xlim=(0, 1), ylim=(0, 100 * top), xlabel=across, ylabel=f"{up}, percent")
        _name_series(axis)

    return draw_svg(draw, (_WIDTH, _HEIGHT))


def histogram(series: Mapping[str, Sequence[float]], across: str, bins: int = 10) -> str:
    """How many values of 0..1 are in each of equally wide bins, series side by side."""

    def draw(axis: Axes) -> None:
        names, colours = [shorten(name) for name in series], [COLOURS[i % len(COLOURS)] for i in range(len(series))]
        axis.hist([*series.values()], bins=bins, range=(0, 1), rwidth=0.9, color=colours, label=names)
        axis.set(xlim=(0, 1), xlabel=across, ylabel="samples")
        _name_series(axis)

    return draw_svg(draw, (_WIDTH, _HEIGHT))


def _name_series(axis: Axes) -> None:
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
