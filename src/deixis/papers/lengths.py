"""SMCIM Fig. 5: accuracy by the number of words, one chart a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from deixis.charts import BarPanel, draw_bars
from deixis.papers.ablations import Plan
from deixis.papers.checkpoints import GivenModel, measured_report
from deixis.papers.parts import REFCOCO, REFCOCO_PLUS, REFCOCOG, REFERIT, Part
from deixis.papers.published import SMCIM_FIG_5_OVER_TRANSVG

TEST_SETS: Mapping[str, tuple[Part, ...]] = {
    "RefCOCO": REFCOCO[1:],
    "RefCOCO+": REFCOCO_PLUS[1:],
    "RefCOCOg": REFCOCOG[1:],
    "ReferItGame": (REFERIT,),
}
"""The paper says "test sets"; testA and testB are taken together."""
_METRIC = "rec.acc@0.5"


@dataclass(frozen=True, kw_only=True)
class ByLength:
    """Accuracy of several models on one data set."""

    dataset: str
    """As printed."""
    measured_on: str
    groups: tuple[str, ...]
    """Numbers of words, from short to long."""
    counts: tuple[int, ...]
    """Phrases in each group."""
    percent: Mapping[str, tuple[float | None, ...]]
    """Model -> Acc@0.5 of each group."""


def measure_lengths(plan: Plan, models: Sequence[GivenModel]) -> list[ByLength]:
    """Each data set that has a counterpart in the plan's budget and a checkpoint in a model.

    Raises:
        FileNotFoundError, ValueError: a model or the data is not there or cannot be used.
    """
    found = []
    for dataset, parts in TEST_SETS.items():
        data = [part.data[plan.budget] for part in parts if plan.budget in part.data]
        reports = {
            model.name: [
                measured_report(name, one, out=plan.out, root=plan.root, limit=plan.limit, precision=plan.precision)
                for one in data
                if (name := model.checkpoint_for(one)) is not None
            ]
            for model in models
        }
        known = {name: told for name, told in reports.items() if told}
        if known:
            found.append(_together(dataset, " and ".join(data), known))
    return found


def _together(dataset: str, measured_on: str, reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> ByLength:
    """Groups of several splits added up, each by its number of phrases."""
    slices = {name: [report["slices"]["length"] for report in several] for name, several in reports.items()}
    every = [one for several in slices.values() for one in several]
    groups = sorted({group for one in every for group in one}, key=lambda name: int(name.rstrip("+").split("-")[0]))
    first = next(iter(slices.values()))
    return ByLength(
        dataset=dataset,
        measured_on=measured_on,
        groups=tuple(groups),
        counts=tuple(sum(one[group]["n"] for one in first if group in one) for group in groups),
        percent={name: tuple(_pooled(several, group) for group in groups) for name, several in slices.items()},
    )


def _pooled(slices: Sequence[Mapping[str, Any]], group: str) -> float | None:
    known = [one[group] for one in slices if group in one and one[group][_METRIC] is not None]
    samples = sum(one["n"] for one in known)
    return 100 * sum(one["n"] * one[_METRIC] for one in known) / samples if samples else None


def smcim_fig_5(measured: Sequence[ByLength]) -> Image.Image:
    """A chart a data set: bars by model for each number of words."""
    panels = [
        BarPanel(
            up_label=f"{one.dataset}: Acc@0.5 on {one.measured_on}, percent",
            across_label="words",
            groups={
                group: {name: values[place] for name, values in one.percent.items()}
                for place, group in enumerate(one.groups)
            },
        )
        for one in measured
    ]
    return draw_bars(panels)


def format_lengths(measured: Sequence[ByLength]) -> str:
    """A Markdown table; with several models also how far the first is above the second, as the paper's text tells."""
    names = list(dict.fromkeys(name for one in measured for name in one.percent))
    heads = ["", "words", "n", *names]
    heads += ["first - second", "SMCIM - TransVG, printed"] if len(names) > 1 else []
    rows = [line for one in measured for line in _lines(one, names)]
    table = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"


def _lines(one: ByLength, names: Sequence[str]) -> list[list[str]]:
    """A row a group. Printed margins belong to four groups: others have none beside them."""
    printed = SMCIM_FIG_5_OVER_TRANSVG[one.dataset]
    rows = []
    for place, group in enumerate(one.groups):
        values = [one.percent.get(name, [None] * len(one.groups))[place] for name in names]
        row = [f"{one.dataset}: {one.measured_on}", group, str(one.counts[place]), *map(_number, values)]
        if len(names) > 1:
            first, second = values[:2]
            row.append("-" if first is None or second is None else f"{first - second:+.2f}")
            row.append(f"{printed[place]:+.2f}" if len(one.groups) == len(printed) else "-")
        rows.append(row)
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
