"""``report.html``: the figures of an evaluation, plots of them, and the cases worth looking at, in one file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deixis.charts import has_matplotlib
from deixis.evaluate.predictions import PredictionLog
from deixis.evaluate.report import html_page, html_plots
from deixis.evaluate.report.gallery import choose_cases, show_cases, show_false_alarms
from deixis.evaluate.report.tables import SHOWN_PARTS, headline, main_rows, percent, slice_rows, trust_sentence, where
from deixis.evaluate.result import Result
from deixis.structures import Sample

_CARDS = (
    ("box Acc@0.5", "rec.acc@0.5"),
    ("mask mIoU", "res.miou"),
    ("oIoU", "res.oiou"),
    ("inconsistent", "ie"),
    ("nothing there, and said so", "no_target_accuracy"),
)
_SHOWN_PROBLEMS = 50
_NO_CHARTS = "Charts need matplotlib: pip install 'deixis[plots]' and write the report again."
_FALSE_ALARMS = "False alarms"
_EXPLAINED = {
    "Worst": "Lowest mean of box and mask IoU, the surest first.",
    "Box and mask disagree": "One of them is right (IoU above 0.5) and the other is not.",
    _FALSE_ALARMS: "Found, though the phrase is of another image and nothing of its kind is annotated in this one.",
    "Best": "Highest mean of box and mask IoU.",
}


def write_html(
    result: Result,
    path: Path,
    log: PredictionLog,
    samples: Sequence[Sample],
    grounder: Any,  # noqa: ANN401  a grounder or anything that can be evaluated
) -> None:
    """Write the page, whole or not at all.

    Args:
        result: the figures.
        path: the file.
        log: has the masks of all predictions.
        samples: the data set, for the images.
        grounder: the model, for where it looked.

    Raises:
        OSError: the file cannot be written.
    """
    body = [html_page.paragraph(headline(result)), _cards(result), *_tables(result), *_plots(result)]
    for title, chosen in choose_cases(result.predictions).items():
        body += [html_page.heading(title), html_page.paragraph(_EXPLAINED[title])]
        if title == _FALSE_ALARMS:
            body.append(show_false_alarms(chosen, samples, grounder))
        else:
            body.append(show_cases(chosen, samples, log, grounder, result.found_score))
    body += _problems(result.problems)
    html_page.write_page(path, f"{result.model or 'model'} on {where(result)}", body)


def slice_bars(slices: Mapping[str, Mapping[str, Mapping[str, Any]]], metric: str) -> list[tuple[str, str]]:
    """(name of the slice, drawing) of a metric by the parts of the data."""
    drawn = []
    for name, parts in slices.items():
        bars = [
            html_plots.Bar(f"{part} ({figures['n']})", figures[metric], figures["ci95"].get(metric))
            for part, figures in list(parts.items())[:SHOWN_PARTS]
            if figures[metric] is not None
        ]
        if bars:
            drawn.append((name, html_plots.bar_chart(bars)))
    return drawn


def _cards(result: Result) -> str:
    values = []
    for name, metric in _CARDS:
        value, bounds = result.tally.value(metric), result.ci95.get(metric)
        if value is not None:
            note = "" if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"
            values.append((name, percent(value), note))
    rate = result.found.get("false_alarm_rate")
    if rate is not None:
        values.append(("false alarms", percent(rate), f"of {result.found['n_absent']} absent phrases"))
    return html_page.cards(values)


def _tables(result: Result) -> list[str]:
    parts = [
        html_page.heading("Figures"),
        html_page.paragraph("In percent; in brackets the 95 % interval by bootstrap over images."),
        html_page.table(main_rows(result)),
    ]
    if result.slices:
        parts += [html_page.heading("Parts of the data"), html_page.table(slice_rows(result.slices))]
    return parts


def _plots(result: Result) -> list[str]:
    sentence = trust_sentence(result)
    words = [html_page.paragraph(f"{sentence[0].upper()}{sentence[1:]}.")] if sentence else []
    charts = html_page.plots(_charts(result)) if has_matplotlib() else html_page.paragraph(_NO_CHARTS)
    return [html_page.heading("Plots"), *words, charts]


def _charts(result: Result) -> list[str]:
    has_boxes = result.tally.value("rec.acc@0.5") is not None
    metric, title = ("rec.acc@0.5", "box Acc@0.5") if has_boxes else ("res.acc@0.5", "mask Acc@0.5")
    drawn = [html_page.plot(svg, f"{title} in percent by {name}") for name, svg in slice_bars(result.slices, metric)]
    overlaps = {
        name: [value for value in values if value is not None]
        for name, values in (
            ("box", [one.iou for one in result.predictions]),
            ("mask", [one.mask_iou for one in result.predictions]),
        )
    }
    known = {name: values for name, values in overlaps.items() if values}
    if known:
        drawn.append(html_page.plot(html_plots.histogram(known, "IoU"), "How the IoUs are spread"))
    told = result.calibration
    if told is not None:
        drawn.append(_reliability(told))
        series = {name: one["curve"] for name, one in told["risk_coverage"].items() if one is not None}
        riskiest = max(risk for points in series.values() for _, risk in points)
        areas = ", ".join(f"{name} {100 * told['risk_coverage'][name]['area']:.1f}" for name in series)
        drawn.append(
            html_page.plot(
                html_plots.curves(series, "coverage", "wrong", top=max(0.1, math.ceil(10 * riskiest) / 10)),
                f"Risk and coverage: the share of wrong answers if only the surest are taken; area: {areas}",
            )
        )
    return drawn


def _reliability(told: Mapping[str, Any]) -> str:
    """Of the score, and of the agreement where box and mask can differ."""
    judged = {"score": told, "agreement": told["agreement"]}
    known = {name: one for name, one in judged.items() if one is not None}
    series = {name: [(one["score"], one["right"]) for one in part["bins"]] for name, part in known.items()}
    errors = ", ".join(f"{name} {percent(part['expected_calibration_error'])}" for name, part in known.items())
    return html_page.plot(
        html_plots.curves(series, "score or agreement", "right", diagonal=True),
        f"Reliability: the share of right answers against the score and the agreement of box and mask, {told['n']} "
        f"answers; expected calibration error: {errors}",
    )


def _problems(problems: Sequence[str]) -> list[str]:
    if not problems:
        return []
    rows = [["left out"], *([problem] for problem in problems[:_SHOWN_PROBLEMS])]
    more = len(problems) - _SHOWN_PROBLEMS
    rest = [html_page.paragraph(f"and {more} more, see metrics.json")] if more > 0 else []
    return [html_page.heading("Left out"), html_page.table(rows), *rest]
