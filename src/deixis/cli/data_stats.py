"""``deixis data stats``: what a data set is like, as a table, as JSON and as charts."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.running import check_writable, tell, tell_problems

if TYPE_CHECKING:
    from deixis.charts import Panel
    from deixis.tools.statistics import DatasetStatistics

_DRAWN = 2000
_MAX_ACROSS = 40
_MAX_WORDS = 200
_SHOWN = 12


def stats(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")],
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw charts into this .png.", show_default=False)] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"At most so many samples.  [default: all, or {_DRAWN} drawn scenes]")
    ] = None,
) -> None:
    """Measure phrases, boxes, words and categories of a data set."""
    if plot is not None:
        check_writable(plot, suffixes=(".png",))
    from deixis.data import SCENES, default_split, open_dataset, parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.statistics import measure_dataset

    name, split = parse_dataset_spec(dataset)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    if limit is None and name in SCENES and len(samples) > _DRAWN:
        tell(f"drawing {_DRAWN} of {len(samples)} scenes; --limit sets how many")
        samples = samples[:_DRAWN]
    with progress_report("samples") as progress:
        found = measure_dataset(samples, progress)
    tell_problems([*samples.problems, *found.problems])
    if not found.samples:
        raise ValueError(f"expected samples to measure in {dataset!r}, got none; choose other data")
    report = {"dataset": name, "split": split or default_split(name), **found.report()}
    if plot is not None:
        _draw(found, plot)
        tell(f"wrote {plot}")
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _print(report)


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    words, images, boxes, vocabulary = (report[name] for name in ("words", "phrases_an_image", "boxes", "vocabulary"))
    side = boxes["side_share"]
    measured = [
        (name, f"{value:.1%}")
        for name, value in report["phrases"].items()
        if not name.startswith("words, ")  # stands above already
    ]
    return [
        ("samples", str(report["samples"])),
        ("left out", str(report["left_out"])),
        ("phrases that mean nothing", str(report["nothing_meant"])),
        ("with a mask", str(report["with_mask"])),
        ("images", str(report["images"])),
        ("phrases an image", _spread(images, ".1f", "d")),
        ("words a phrase", _spread(words, ".1f", "d")),
        *measured,
        ("boxes small, medium, large", ", ".join(str(boxes[name]) for name in ("small", "medium", "large"))),
        ("side of a box by that of its image", "not known" if side["mean"] is None else _spread(side, ".2f", ".2f")),
        ("different words", f"{vocabulary['words']}, of which {vocabulary['once']} stand once"),
        ("words that make up half of all", f"{vocabulary['for_half']}; 90 %: {vocabulary['for_90_percent']}"),
        ("most frequent words", _most(dict(vocabulary["most"]))),
        *((what, _most(report[what])) for what in ("splits", "categories", "kinds") if report[what]),
    ]


def _spread(of: dict[str, Any], mean: str, ends: str) -> str:
    return f"{of['mean']:{mean}} on average, {of['least']:{ends}} to {of['most']:{ends}}"


def _most(counts: dict[str, int]) -> str:
    named = ", ".join(f"{name or 'no name'} {count}" for name, count in list(counts.items())[:_SHOWN])
    return named + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _print(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("measure", "value")
    for name, value in _rows(report):
        table.add_row(name, escape(value.encode("utf-8", "replace").decode("utf-8")))
    Console().print(table)


def _draw(found: DatasetStatistics, path: Path) -> None:
    from deixis.charts import draw_panels
    from deixis.files import atomic_write

    picture = draw_panels(_panels(found))
    with atomic_write(path) as file:
        picture.save(file, format="PNG")


def _panels(found: DatasetStatistics) -> list[Panel]:
    from deixis.charts import Line, Panel
    from deixis.tools.statistics import BINS

    sides = [((one + 0.5) / BINS, count) for one, count in enumerate(found.side_histogram())]
    charts = [
        ("phrases, %", "words", list(_filled(found.lengths()).items()), found.samples),
        ("images, %", "phrases of the image", list(_filled(found.phrases_an_image()).items()), len(found.images)),
        ("boxes, %", "side of the box by that of its image (roots of their areas)", sides, len(found.side_shares)),
    ]
    panels = [
        _strokes(up, across, [(x, 100 * count / whole) for x, count in points])
        for up, across, points, whole in charts
        if whole
    ]
    total = found.vocabulary.total()
    together = accumulate(count for _, count in found.vocabulary.most_common(_MAX_WORDS))
    points = [(number, 100 * count / total) for number, count in enumerate(together, start=1)]
    if points:
        line = Line(name="", points=points)
        panels.append(Panel(up_label="of all words, %", across_label="most frequent words together", lines=[line]))
    return panels


def _strokes(up: str, across: str, points: list[tuple[float, float]]) -> Panel:
    """A chart of upright strokes with a dot each."""
    from deixis.charts import Line, Panel

    dots = [place for x, y in points for place in ((x, y), (x, None))]
    line = Line(name="", points=dots, ranges=[(x, 0, y) for x, y in points])
    return Panel(up_label=up, across_label=across, lines=[line])


def _filled(histogram: dict[int, int]) -> dict[int, int]:
    """With the numbers that nothing has, up to the greatest, or 40: beyond, all together."""
    end = min(max(histogram), _MAX_ACROSS)
    counts = {number: histogram.get(number, 0) for number in range(end + 1)}
    counts[end] += sum(count for number, count in histogram.items() if number > end)
    return counts
