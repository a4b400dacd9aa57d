"""Two models on the same samples: by how much one is better, how sure that is, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deixis.evaluate.calibration import is_right
from deixis.evaluate.evaluate import evaluate_command_result
from deixis.evaluate.metrics.bootstrap import REPLICATES, Interval, paired_difference
from deixis.evaluate.metrics.slices import SLICES, rows_by_part
from deixis.evaluate.metrics.sums import RATIOS
from deixis.evaluate.predictions import Prediction, PredictionLog
from deixis.evaluate.processes import Task
from deixis.evaluate.report import html_page
from deixis.evaluate.report.gallery import answer_image, first_of_each_image, notes_on, quality, show, target_image
from deixis.evaluate.report.tables import NO_TARGET, SHOWN_PARTS, TITLES, percent, where
from deixis.evaluate.result import Result, write_json
from deixis.evaluate.score import score_table
from deixis.files import write_text
from deixis.structures import Sample
from deixis.text_tables import aligned_table, markdown_table

Pair = tuple[Prediction, Prediction]

OUTCOMES = ("both", "only A", "only B", "neither")
"""Who is right about a sample."""
_METRICS = {**TITLES, **NO_TARGET}
_SHOWN_CASES = 8


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A figure of both models, and by how much B's is above A's."""

    n: int
    """Samples that count for it."""
    a: float
    b: float
    difference: float
    ci95: Interval | None
    """Of the difference, by bootstrap over images, both models on the same ones; None where all are on one image."""

    @property
    def is_sure(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.ci95 is not None and (self.ci95[0] > 0 or self.ci95[1] < 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two evaluations of the same data."""

    a: Result
    b: Result
    pairs: tuple[Pair, ...]
    """Both answers to each sample that both could be measured on."""
    differences: Mapping[str, Difference]
    """By metric."""
    outcomes: Mapping[str, int]
    """How many samples, by `OUTCOMES`."""
    slices: Mapping[str, Mapping[str, Difference]] = field(default_factory=dict)
    """By part of the data: of the accuracy of boxes, or of masks where one model gives no boxes."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be measured with A or with B, each once."""
        return tuple(dict.fromkeys((*self.a.problems, *self.b.problems)))

    def report(self) -> dict[str, Any]:
        """Return one object for JSON."""
        return {
            "dataset": self.a.dataset,
            "split": self.a.split,
            "a": self.a.model,
            "b": self.b.model,
            "n": len(self.pairs),
            "n_only_a": len(self.a.predictions) - len(self.pairs),
            "n_only_b": len(self.b.predictions) - len(self.pairs),
            "differences": {metric: _plain(one) for metric, one in self.differences.items()},
            "outcomes": dict(self.outcomes),
            "slices": {name: {part: _plain(one) for part, one in parts.items()} for name, parts in self.slices.items()},
        }


def compare(a: Result, b: Result, *, replicates: int = REPLICATES) -> Comparison:
    """Set two evaluations of the same data side by side.

    Args:
        a: the one that is compared with.
        b: the one whose gain is measured.
        replicates: of the bootstrap.

    Raises:
        ValueError: they have no sample in common.
    """
    of_b = {one.index: one for one in b.predictions}
    pairs = tuple((one, of_b[one.index]) for one in a.predictions if one.index in of_b)
    if not pairs or any((one.id, one.phrase) != (other.id, other.phrase) for one, other in pairs):
        raise ValueError(
            f"expected two evaluations of the same samples, got {len(a.predictions)} and {len(b.predictions)} that do "
            "not belong together; measure both on the same data"
        )
    differences = {metric: _difference(pairs, metric, replicates) for metric in _METRICS}
    known = {metric: one for metric, one in differences.items() if one is not None}
    return Comparison(
        a=a,
        b=b,
        pairs=pairs,
        differences=known,
        outcomes={name: sum(_outcome(pair) == name for pair in pairs) for name in OUTCOMES},
        slices=_slices(pairs, "rec.acc@0.5" if "rec.acc@0.5" in known else "res.acc@0.5", replicates),
    )


def compare_command_result(
    model_a: str,
    model_b: str,
    dataset: str,
    *,
    report: Path | None = None,
    **options: Any,  # noqa: ANN401
) -> Comparison:
    """Do what ``deixis evaluate A B DATASET[:SPLIT]`` does, except printing.

    Args:
        model_a: a bundled name or a checkpoint folder.
        model_b: another one.
        dataset: as in `deixis.evaluate.evaluate.evaluate_command_result`.
        report: a folder for ``comparison.json``, ``.md`` and ``.html``, and for the models' own reports in ``a`` and
            ``b`` within it.
        **options: further arguments of `evaluate_command_result`, for both.

    Raises:
        FileNotFoundError, ValueError: as there, or the models can be measured on no sample in common.
    """
    if report is not None:
        _take_up(report)
    a = evaluate_command_result(model_a, dataset, report=None if report is None else report / "a", **options)
    b = evaluate_command_result(model_b, dataset, report=None if report is None else report / "b", **options)
    if a.model == b.model:
        a, b = (replace(one, model=f"{one.model} ({given})") for one, given in ((a, model_a), (b, model_b)))
    comparison = compare(a, b)
    if report is not None:
        task = Task(model=model_a, dataset=dataset, split=a.split, root=options.get("root"), limit=options.get("limit"))
        _write(comparison, report, task.open())
    return comparison


def format_comparison(comparison: Comparison) -> str:
    """The differences as plain text, figures in percent; a star where the interval leaves out 0."""
    return "\n\n".join([*_head(comparison), aligned_table(difference_rows(comparison), is_ruled=True)])


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """Titles and a row a metric, then a row a part of the data."""
    rows = [["", "n", "A", "B", "B - A", "95 % interval", ""]]
    rows += [_row(_METRICS[metric], one) for metric, one in comparison.differences.items()]
    for name, parts in comparison.slices.items():
        rows += [_row(f"{name} {part}", one) for part, one in list(parts.items())[:SHOWN_PARTS]]
        if len(parts) > SHOWN_PARTS:
            rows.append([f"{name}: {len(parts) - SHOWN_PARTS} more, see --json", *[""] * 6])
    return rows


def _row(name: str, one: Difference) -> list[str]:
    between = "-" if one.ci95 is None else f"{100 * one.ci95[0]:+.1f} to {100 * one.ci95[1]:+.1f}"
    star = "*" if one.is_sure else ""
    return [name, str(one.n), percent(one.a), percent(one.b), f"{100 * one.difference:+.1f}", between, star]


def _head(comparison: Comparison) -> list[str]:
    a, b = comparison.a, comparison.b
    right = ", ".join(f"{name} {count}" for name, count in comparison.outcomes.items())
    left_out = f"; {len(comparison.problems)} more left out" if comparison.problems else ""
    return [
        f"A is {a.model}, B is {b.model}; {where(a)}: {len(comparison.pairs)} samples, figures in percent{left_out}",
        f"right: {right}. A star: the 95 % interval of the difference (paired bootstrap over images) leaves out 0.",
    ]


def _difference(pairs: Sequence[Pair], metric: str, replicates: int) -> Difference | None:
    a, b = (score_table([pair[side] for pair in pairs]) for side in (0, 1))
    before, after = a.tally().value(metric), b.tally().value(metric)
    if before is None or after is None:
        return None
    difference, bounds = paired_difference(a, b, metric, replicates=replicates)
    counted = np.count_nonzero(a.column(RATIOS[metric][1]))
    return Difference(n=int(counted), a=before, b=after, difference=difference, ci95=bounds)


def _slices(pairs: Sequence[Pair], metric: str, replicates: int) -> dict[str, dict[str, Difference]]:
    """By part of the data, from many samples to few."""
    found: dict[str, dict[str, Difference]] = {}
    for name in SLICES:
        parts = rows_by_part(name, [one.labels.get(name) for one, _ in pairs])
        for part, own in sorted(parts.items(), key=lambda item: (-len(item[1]), item[0])):
            one = _difference([pairs[row] for row in own], metric, replicates)
            if one is not None:
                found.setdefault(name, {})[part] = one
    return found


def _outcome(pair: Pair) -> str:
    """Who is right; a phrase that means nothing is answered rightly by saying so."""
    a, b = (not one.found if one.target_box is None else bool(is_right(one)) for one in pair)
    return OUTCOMES[0 if a and b else 1 if a else 2 if b else 3]


def _plain(one: Difference) -> dict[str, Any]:
    bounds = None if one.ci95 is None else list(one.ci95)
    return {"n": one.n, "a": one.a, "b": one.b, "difference": one.difference, "ci95": bounds}


def _take_up(folder: Path) -> None:
    """Of a comparison that was cut off, what is finished already is as good as what is half done."""
    whole = folder / "comparison.json"
    if not whole.exists():
        for side in ("a", "b"):
            (folder / side / "metrics.json").unlink(missing_ok=True)
    whole.unlink(missing_ok=True)


def _write(comparison: Comparison, folder: Path, samples: Sequence[Sample]) -> None:
    head = _head(comparison)
    rows = difference_rows(comparison)
    scores = comparison.a.found_score, comparison.b.found_score
    body = [*map(html_page.paragraph, head), html_page.table(rows)]
    with (
        PredictionLog(folder / "a" / "predictions.jsonl", resume=True) as log_a,
        PredictionLog(folder / "b" / "predictions.jsonl", resume=True) as log_b,
    ):
        for name in OUTCOMES[1:3]:
            pairs = [pair for pair in comparison.pairs if _outcome(pair) == name]
            chosen = first_of_each_image(pairs, lambda pair: pair[0], lambda pair: -_gap(pair), _SHOWN_CASES)
            if chosen:
                title = f"{name} is right: {comparison.outcomes[name]} samples"
                body += [html_page.heading(title), _show(chosen, samples, (log_a, log_b), scores)]
    names = f"A, {comparison.a.model}, and B, {comparison.b.model}"
    html_page.write_page(folder / "comparison.html", f"{names}, on {comparison.a.dataset}", body)
    write_text(folder / "comparison.md", "\n\n".join([*head, markdown_table(rows)]) + "\n")
    write_json(comparison.report(), comparison.problems, folder / "comparison.json")


def _gap(pair: Pair) -> float:
    return abs((quality(pair[0]) or 0) - (quality(pair[1]) or 0))


def _show(
    pairs: Sequence[Pair],
    samples: Sequence[Sample],
    logs: tuple[PredictionLog, PredictionLog],
    found_scores: tuple[float, float],
) -> str:
    masks = [log.masks(pair[0].index for pair in pairs) for log in logs]

    def case(pair: Pair) -> html_page.Case:
        sample = samples[pair[0].index]
        images, notes = [target_image(sample, pair[0])], []
        for name, one, mask, score in zip("AB", pair, masks, found_scores, strict=True):
            images.append(answer_image(sample, one, mask[one.index], name, found_score=score))
            notes.append(f"{name}: {notes_on(one, score)[0]}")
        return pair[0].phrase, [*notes, f"sample {pair[0].id}"], images

    return show(pairs, case)
