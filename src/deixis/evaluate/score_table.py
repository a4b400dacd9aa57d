"""The figures of a file of predictions as text for people."""

from __future__ import annotations

from typing import Any

from deixis.evaluate.metrics import Tally
from deixis.evaluate.metrics.slices import METRICS
from deixis.evaluate.report.markdown import TITLES
from deixis.evaluate.score import ScoreResult
from deixis.text_tables import aligned_table

_COLUMNS = {
    **TITLES,
    "no_target_accuracy": "N-acc",
    "generalised.t_acc": "T-acc",
    "generalised.giou": "gIoU",
    "generalised.ciou": "cIoU",
}
_GENERALISED = ("no_target_accuracy", "generalised.t_acc", "generalised.giou", "generalised.ciou")
_SHOWN_PARTS = 8
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
    "data_problems": "problems of the data set itself, told on stderr",
}


def format_score(result: ScoreResult) -> str:
    """All that counts, as plain text: figures in percent, "-" where there is none."""
    where = result.dataset + (f":{result.split}" if result.split else "")
    counts = result.counts
    head = f"{where}: {counts.samples} samples, {counts.lines} lines, {counts.answered} answered; figures in percent"
    told = [f"  {getattr(counts, key)} {what}" for key, what in _COUNTS.items() if getattr(counts, key)]
    blocks = ["\n".join([head, *told]), _main_table(result), _slice_table(result)]
    if result.official is not None:
        blocks.append(_official_table(result.official))
    return "\n\n".join(block for block in blocks if block)


def _main_table(result: ScoreResult) -> str:
    columns = [key for key in _COLUMNS if key not in _GENERALISED or result.tally.num_no_target]
    rows = [["", "n", *(_COLUMNS[key] for key in columns)], _row("all samples", result.tally, columns)]
    bounds = [result.ci95.get(key) for key in columns]
    if any(bounds):
        rows.append(["95 % from", "", *(_percent(bound and bound[0]) for bound in bounds)])
        rows.append(["95 % to", "", *(_percent(bound and bound[1]) for bound in bounds)])
    if result.counts.answered != round(result.tally.n):
        rows.append(_row("answered alone", result.answered, columns))
    return aligned_table(rows, is_ruled=True)


def _slice_table(result: ScoreResult) -> str:
    titles = ["", "n", *(_COLUMNS[key] for key in METRICS)]
    rows = []
    for name, parts in result.slices.items():
        shown = list(parts.items())[:_SHOWN_PARTS]
        for part, figures in shown:
            rows.append([f"{name} {part}", str(figures["n"]), *(_percent(figures[key]) for key in METRICS)])
        if len(parts) > len(shown):
            rows.append([f"{name}: {len(parts) - len(shown)} more, see --json", *[""] * (len(METRICS) + 1)])
    return aligned_table([titles, *rows], is_ruled=True) if rows else ""


def _official_table(official: dict[str, Any]) -> str:
    lines = [f"as the evaluator of {official['source']} would have said, which differs:"]
    lines += [f"  - {sentence}" for sentence in official["differs"]]
    rows = [["", official["name"], "exact", "more by"]]
    for key, value in official["figures"].items():
        exact = value["exact"]
        more = "-" if exact is None else f"{100 * (value['official'] - exact):+.2f}"
        rows.append([_title(key), _percent(value["official"], 2), _percent(exact, 2), more])
    return "\n".join([*lines, "", aligned_table(rows, is_ruled=True)])


def _row(name: str, tally: Tally, columns: list[str]) -> list[str]:
    return [name, str(round(tally.n)), *(_percent(tally.value(key)) for key in columns)]


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f}"


def _title(metric: str) -> str:
    return _COLUMNS.get(metric, metric.partition(".")[2].replace("acc", "Acc") or metric)
