"""What a run of the benchmark says: JSON, tables, the papers' own numbers, and speed against accuracy as a chart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deixis.bench.bench import ENCODER_BLOCK, Result, Row
from deixis.bench.operations import PARTS
from deixis.charts import Line, Panel

_MAX_ACCURACY_BYTES = 1_000_000
_ACCURACY = "acc@0.5"


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What a paper prints of its own model; None where it does not."""

    source: str
    parameters: float | None = None
    operations: float | None = None
    """For one image of ``image_px`` and a phrase of ``words``."""
    per_second: float
    """Images with a phrase each, on a GTX 1080 Ti."""
    image_px: int
    words: int


PRINTED = {
    "smcim-r50": Printed(
        source="SMCIM Table V", parameters=147.15e6, operations=110.76e9, per_second=31.5, image_px=512, words=40
    ),
    ENCODER_BLOCK: Printed(
        source="SMCIM Table V", parameters=121.14e6, operations=126.89e9, per_second=25.3, image_px=512, words=40
    ),
    "smcim-r101": Printed(source="SMCIM section IV-C", per_second=24.6, image_px=512, words=40),
    "mcn-darknet53": Printed(source="MCN Table 4", per_second=1000 / 56, image_px=416, words=15),
    "mcn-vgg16": Printed(source="MCN Table 4", per_second=1000 / 48, image_px=416, words=15),
}
"""By the preset's name."""
PAPER_BLOCK_RATIO = 31.5 / 25.3
"""How many times as fast CA2M is in SMCIM Table V."""
PAPER_BLOCKS_SAVED = 147.15e6 - 121.14e6
"""How many parameters fewer the encoder blocks have there."""


def report(result: Result) -> dict[str, Any]:
    """Plain values for JSON; times in ms, memory in 10^6 bytes."""
    models = [
        {
            "model": name,
            "kind": result.kinds[name],
            "image_px": counts.image_px,
            "words": counts.words,
            "parameters": {**counts.parameters, "all": counts.all_parameters},
            "operations": {**counts.operations, "all": counts.all_operations},
            "block_parameters": counts.blocks,
        }
        for name, counts in result.counts.items()
    ]
    return {
        "machine": dict(result.machine),
        "models": models,
        "times": [_report_row(result, row) for row in result.rows],
        "ca2m_times_as_fast_as_encoder": {
            precision: {"model": whole, "fusion": alone, "paper": PAPER_BLOCK_RATIO}
            for precision, (whole, alone) in result.blocks().items()
        },
        "problems": list(result.problems),
    }


def _report_row(result: Result, row: Row) -> dict[str, Any]:
    return {
        "model": row.subject.name,
        "precision": row.precision,
        "rounds": len(row.turns),
        "start_s": row.start_s,
        "cold_ms": row.first_ms,
        "warm_ms": _median_and_p95(row.ms),
        "second_phrase_ms": _median_and_p95(row.second_ms) if row.second_ms else None,
        "part_ms": row.part_ms,
        "times_over_first": result.times_over_first(row),
        "per_second": {str(size): value for size, value in row.per_second.items()},
        "peak_mb": row.peak_mb,
        "gflops": row.gflops,
        "matmul_gflops": row.best_gflops,
        "share_of_matmul": row.share_of_peak,
    }


def _median_and_p95(values: Sequence[float]) -> dict[str, float]:
    median, p95 = np.percentile(values, (50, 95)).tolist()
    return {"median": median, "p95": p95}


Table = tuple[str, list[str], list[list[str]]]


def tables(result: Result) -> list[Table]:
    """Title, heads and rows of what is printed; a table without rows is left out."""
    found = [_size_table(result), _time_table(result), _throughput_table(result), _paper_table(result)]
    return [table for table in found if table[2]]


def _size_table(result: Result) -> Table:
    heads = ["model", "kind", "px", "words", "counted", "all", *PARTS]
    rows = []
    for name, counts in result.counts.items():
        at = [name, result.kinds[name], str(counts.image_px), str(counts.words)]
        millions = [counts.all_parameters, *(counts.parameters[part] for part in PARTS)]
        rows.append([*at, "parameters, M", *(f"{value / 1e6:.2f}" for value in millions)])
        billions = [counts.all_operations, *(counts.operations[part] for part in PARTS)]
        rows.append(["", "", "", "", "operations, G", *(f"{value / 1e9:.2f}" for value in billions)])
    return "Size, for one image and one phrase", heads, rows


def _time_table(result: Result) -> Table:
    heads = [
        "model",
        "precision",
        "start s",
        "cold",
        "warm",
        "p95",
        "second phrase",
        "p95",
        "x first",
        "GFLOP/s",
        "share",
    ]
    rows = [
        [
            row.subject.name,
            row.precision,
            f"{row.start_s:.1f}",
            f"{row.first_ms:.1f}",
            *(f"{value:.1f}" for value in _median_and_p95(row.ms).values()),
            *([f"{value:.1f}" for value in _median_and_p95(row.second_ms).values()] if row.second_ms else ["-", "-"]),
            f"{result.times_over_first(row):.3f}",
            f"{row.gflops:.0f} of {row.best_gflops:.0f}",
            f"{100 * row.share_of_peak:.0f} %",
        ]
        for row in result.rows
    ]
    return "Time in ms, one image and one phrase", heads, rows


def _throughput_table(result: Result) -> Table:
    sizes = sorted({size for row in result.rows for size in row.batch_ms})
    heads = ["model", "precision", *(f"{size} at once" for size in sizes), "MB, one", *(f"MB, {n}" for n in sizes)]
    rows = [
        [
            row.subject.name,
            row.precision,
            *(f"{row.per_second[size]:.2f}" for size in sizes),
            f"{row.peak_mb['one']:.0f}",
            *(f"{row.peak_mb[str(size)]:.0f}" for size in sizes),
        ]
        for row in result.rows
    ]
    return "Images with a phrase each, a second; peak memory of the process", heads, rows


def _paper_table(result: Result) -> Table:
    heads = ["model", "source", "parameters, M", "paper", "operations, G", "paper", "a second, GTX 1080 Ti"]
    rows = []
    for name, counts in result.counts.items():
        if printed := PRINTED.get(name):
            same = (counts.image_px, counts.words) == (printed.image_px, printed.words)
            parameters = _beside(counts.all_parameters, printed.parameters, 1e6)
            operations = _beside(counts.all_operations, printed.operations if same else None, 1e9)
            rows.append([name, printed.source, *parameters, *operations, f"{printed.per_second:.1f}"])
    return "Beside the papers", heads, rows


def _beside(ours: int, paper: float | None, unit: float) -> tuple[str, str]:
    """Ours, and the paper's with ours in percent above or below it."""
    return f"{ours / unit:.2f}", "-" if paper is None else f"{paper / unit:.2f} ({100 * (ours / paper - 1):+.2f} %)"


def headline(result: Result) -> str:
    """The machine."""
    machine = result.machine
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads'] or 'no'} threads, load "
        f"{machine['load_before']} before, torch {machine['torch']}, Python {machine['python']}"
    )


def block_sentences(result: Result) -> list[str]:
    """CA2M against the encoder block, as far as both were counted and timed."""
    sentences = []
    if sizes := result.block_sizes():
        ours, other = (size / 1e6 for size in sizes)
        sentences.append(
            f"stacks of CA2M {ours:.2f}M parameters, of encoder blocks {other:.2f}M: {ours - other:.2f}M fewer (the "
            f"paper: {PAPER_BLOCKS_SAVED / 1e6:.2f}M)"
        )
    for precision, (whole, alone) in result.blocks().items():
        sentences.append(
            f"CA2M against the encoder block, {precision}: {whole:.3f} times as fast (the paper: "
            f"{PAPER_BLOCK_RATIO:.3f}), the fusion alone {alone:.3f} times"
        )
    return sentences


@dataclass(frozen=True, kw_only=True)
class Point:
    """A model in a chart of speed against accuracy."""

    name: str
    per_second: float
    """Images with a phrase each."""
    accuracy: float
    """0..1."""


def speed_points(result: Result, accuracy: Mapping[str, float]) -> list[Point]:
    """The measured models whose accuracy is known."""
    several = len({row.precision for row in result.rows}) > 1
    return [
        Point(
            name=f"{row.subject.name} {row.precision}" if several else row.subject.name,
            per_second=1000 / statistics.median(row.ms),
            accuracy=accuracy[row.subject.name],
        )
        for row in result.rows
        if row.subject.name in accuracy
    ]


def speed_panel(points: Sequence[Point], accuracy_label: str) -> Panel:
    """Speed against accuracy, one point a model: SMCIM Fig. 2.

    Args:
        points: at least one.
        accuracy_label: what is measured, on which data.

    Raises:
        ValueError: no points.
    """
    if not points:
        raise ValueError("expected at least one model with a known accuracy to plot, got none; give --accuracy")
    lines = [Line(name=one.name, points=[(one.per_second, 100 * one.accuracy)], is_joined=False) for one in points]
    return Panel(up_label=f"{accuracy_label}, percent", across_label="images with a phrase each, a second", lines=lines)


def read_accuracy(path: Path) -> dict[str, float]:
    """``{"MODEL": 0.81}``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else, or a number that is no share.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a JSON file of accuracies, got {str(path)!r}; write one")
    try:
        if path.stat().st_size > _MAX_ACCURACY_BYTES:
            raise ValueError(f"more than {_MAX_ACCURACY_BYTES} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected JSON as {{"MODEL": 0.81}} in {str(path)!r}, got {error}') from None
    if not isinstance(values, dict) or not values:
        raise ValueError(f'expected JSON as {{"MODEL": 0.81}} in {str(path)!r}, got {type(values).__name__}')
    for name, value in values.items():
        if not _is_share(value):
            raise ValueError(f"expected an accuracy from 0 to 1 of {name!r}, got {value!r}; percent / 100")
    return values


def recorded_accuracy(result: Result) -> tuple[str, dict[str, float]]:
    """Acc@0.5 that the checkpoints' config.json record, all on one data set: the first of the first that has any.

    Returns:
        The data set, empty where nothing is recorded; accuracies by the model's name.
    """
    recorded: dict[str, dict[str, float]] = {}
    for row in result.rows:
        if row.subject.kind == "checkpoint":
            stored = json.loads((Path(row.subject.where) / "config.json").read_text(encoding="utf-8"))
            recorded[row.subject.name] = _accuracies(stored.get("metrics"))
    dataset = next((name for figures in recorded.values() for name in figures), "")
    return dataset, {name: figures[dataset] for name, figures in recorded.items() if dataset in figures}


def _accuracies(metrics: Any) -> dict[str, float]:  # noqa: ANN401  JSON values
    """By data set, where ``metrics`` has the form that `deixis evaluate` gives it."""
    if not isinstance(metrics, dict):
        return {}
    values: dict[str, Any] = {name: one.get(_ACCURACY) for name, one in metrics.items() if isinstance(one, dict)}
    return {name: value for name, value in values.items() if _is_share(value)}


def _is_share(value: Any) -> bool:  # noqa: ANN401  JSON values
    return type(value) in (int, float) and 0 <= value <= 1
