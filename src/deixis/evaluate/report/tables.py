"""Figures as text: aligned for a terminal, and in Markdown. All in percent, "-" where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deixis.evaluate.metrics import Tally
from deixis.evaluate.metrics.slices import METRICS
from deixis.evaluate.result import Counts, Result, write_json
from deixis.files import write_text
from deixis.text_tables import aligned_table, markdown_table

TITLES = {
    "rec.acc@0.5": "box Acc@0.5",
    "rec.mean_iou": "mean IoU",
    "res.miou": "mask mIoU",
    "res.oiou": "oIoU",
    "res.acc@0.5": "Acc@0.5",
    "res.acc@0.7": "Acc@0.7",
    "res.acc@0.9": "Acc@0.9",
    "ie": "IE",
}
"""Metric -> the title of its column."""
NO_TARGET = {"no_target_accuracy": "N-acc"}
SHOWN_PARTS = 12
"""Parts of a slice that a table shows; all are in metrics.json."""

_GENERALISED = {
    **NO_TARGET,
    "generalised.t_acc": "T-acc",
    "generalised.giou": "gIoU",
    "generalised.ciou": "cIoU",
}
_SCORED_PARTS = 8
_COUNTS = {
    "missing": "samples without a line, wrong",
    "unusable": "samples whose line cannot be used, wrong",
    "conflicting": "samples with lines that differ, wrong",
    "without_box": "answers without a box, their box wrong",
    "without_mask": "answers without a mask, their mask wrong",
    "left_out": "samples that cannot be measured, not counted",
    "doubled": "lines that repeat an id",
    "unknown": "lines with an id that is not in the data",
    "unreadable": "lines without an id that can be read",
    "data_problems": "problems of the data set itself, listed on stderr",
}
_Figures = dict[str, Any]
Rows = list[list[str]]


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; "-" for None."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def format_result(result: Result) -> str:
    """What counts, as plain text: of an evaluated model beside its baselines, of a scored file with all its parts."""
    blocks: list[str | Rows]
    if result.counts is None:
        blocks = [headline(result), main_rows(result, with_interval=False), trust_sentence(result)]
    else:
        slices = slice_rows(result.slices, _SCORED_PARTS, ", see --json", with_interval=False)
        official = "" if result.official is None else _official_table(result.official)
        rows = _scored_rows(result, result.counts)
        blocks = [_accounts(result, result.counts), rows, slices if result.slices else "", official]
    return "\n\n".join(one if isinstance(one, str) else aligned_table(one, is_ruled=True) for one in blocks if one)


def markdown(result: Result) -> str:
    """The table in Markdown, with 95 % intervals, and one for the parts of the data."""
    head = f"`{result.model}` on {headline(result)}" if result.model else headline(result)
    parts = [f"{head}. In brackets: 95 % intervals by bootstrap over images.", markdown_table(main_rows(result))]
    if result.slices:
        parts.append(markdown_table(slice_rows(result.slices)))
    sentence = trust_sentence(result)
    return "\n\n".join([*parts, *([f"{sentence[0].upper()}{sentence[1:]}."] if sentence else [])]) + "\n"


def write_report(result: Result, folder: Path) -> None:
    """Write ``metrics.json`` and ``metrics.md`` into a folder, each file whole or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "metrics.md", markdown(result))
    write_json(result.report(), result.problems, folder / "metrics.json")


def where(result: Result) -> str:
    """The data set and its split, as the command line names them."""
    return result.dataset + (f":{result.split}" if result.split else "")


def headline(result: Result) -> str:
    """What was measured on what, and how much was left out."""
    head = f"{where(result)}: {round(result.tally.n)} samples, figures in percent"
    if result.tally.num_no_target:
        share = percent(result.tally.value("no_target_accuracy"))
        count = round(result.tally.num_no_target)
        head += f"; {count} of them mean nothing in the image, which the model says of {share} %"
    if result.problems:
        head += f"; {len(result.problems)} more left out"
    return head


def trust_sentence(result: Result) -> str:
    """What the model's own score and "found" are worth, as far as it was measured."""
    parts = []
    if result.calibration is not None:
        gap = percent(result.calibration["expected_calibration_error"])
        parts.append(f"the score is off by {gap} points on average (expected calibration error)")
    found = result.found
    if found.get("n_absent"):
        parts.append(
            f'"found" is said of {percent(found["found_of_right"])} % of right answers, '
            f"{percent(found['found_of_wrong'])} % of wrong ones, and {percent(found['false_alarm_rate'])} % of "
            f"{found['n_absent']} phrases of other images that mean nothing in theirs"
        )
    return "; ".join(parts)


def main_rows(result: Result, *, with_interval: bool = True) -> Rows:
    """Titles, the model with its intervals, and the baselines."""
    own = [
        _with_interval(result.tally.value(metric), result.ci95.get(metric) if with_interval else None)
        for metric in TITLES
    ]
    rows = [["", *TITLES.values()], [result.model or "model", *own]]
    for name, report in result.baselines.items():
        rows.append([name.replace("_", " "), *(percent(_figure(report or {}, metric)) for metric in TITLES)])
    return rows


def slice_rows(
    slices: dict[str, dict[str, _Figures]],
    shown: int = SHOWN_PARTS,
    rest: str = " in metrics.json",
    *,
    with_interval: bool = True,
) -> Rows:
    """The parts of the data, a row each below the titles: at most ``shown`` of a kind, then where the ``rest`` is."""
    rows = [["", "n", *(TITLES[key] for key in METRICS)]]
    for name, parts in slices.items():
        for part, figures in list(parts.items())[:shown]:
            bounds = figures["ci95"] if with_interval else {}
            cells = [_with_interval(figures[key], bounds.get(key)) for key in METRICS]
            rows.append([f"{name} {part}", str(figures["n"]), *cells])
        if len(parts) > shown:
            rows.append([f"{name}: {len(parts) - shown} more{rest}", *[""] * (len(METRICS) + 1)])
    return rows


def _accounts(result: Result, counts: Counts) -> str:
    """How many lines and samples there are, and what is wrong with some of them."""
    head = f"{where(result)}: {counts.samples} samples, {counts.lines} lines, {counts.answered} answered"
    wrong = [f"  {getattr(counts, key)} {what}" for key, what in _COUNTS.items() if getattr(counts, key)]
    return "\n".join([f"{head}; figures in percent", *wrong])


def _scored_rows(result: Result, counts: Counts) -> Rows:
    """Titles, all samples with their intervals below, and those alone that have an answer."""
    columns = {**TITLES, **(_GENERALISED if result.tally.num_no_target else {})}
    rows = [["", "n", *columns.values()], _tally_row("all samples", result.tally, columns)]
    bounds = [result.ci95.get(key) for key in columns]
    if any(bounds):
        rows.append(["95 % from", "", *(percent(bound and bound[0]) for bound in bounds)])
        rows.append(["95 % to", "", *(percent(bound and bound[1]) for bound in bounds)])
    if result.answered is not None and counts.answered != round(result.tally.n):
        rows.append(_tally_row("answered alone", result.answered, columns))
    return rows


def _tally_row(name: str, tally: Tally, columns: dict[str, str]) -> list[str]:
    return [name, str(round(tally.n)), *(percent(tally.value(key)) for key in columns)]


def _official_table(official: _Figures) -> str:
    """A reference evaluator's figures beside the exact ones."""
    titles = {**TITLES, **_GENERALISED}
    lines = [f"as the evaluator of {official['source']} would have it, which differs:"]
    lines += [f"  - {sentence}" for sentence in official["differs"]]
    rows = [["", official["name"], "exact", "more by"]]
    for key, value in official["figures"].items():
        exact = value["exact"]
        more = "-" if exact is None else f"{100 * (value['official'] - exact):+.2f}"
        title = titles.get(key, key.partition(".")[2].replace("acc", "Acc") or key)
        rows.append([title, percent(value["official"], 2), percent(exact, 2), more])
    return "\n".join([*lines, "", aligned_table(rows, is_ruled=True)])


def _figure(report: _Figures, metric: str) -> float | None:
    part, _, key = metric.partition(".") if "." in metric else ("", "", metric)
    return ((report.get(part) or {}) if part else report).get(key)


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    if value is None or bounds is None:
        return percent(value)
    return f"{percent(value)} ({percent(bounds[0])} to {percent(bounds[1])})"
