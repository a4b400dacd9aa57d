"""``deixis bench``: what models cost, side by side in one run."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.running import check_chart, check_writable, print_table, tell, tell_problems, write_image
from deixis.text_tables import aligned_table

if TYPE_CHECKING:
    from deixis.bench.bench import Result

PLOT_PX = (960, 640)


class Precisions(StrEnum):
    """In which number formats each model is measured."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    both = "both"


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="A bundled name, a checkpoint folder, a preset (random weights), or NAME:field=value of a preset.",
            show_default=DEFAULT_MODEL,
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, max=4096, help="Side of the square image.  [default: each model's own]")
    ] = None,
    words: Annotated[int, typer.Option(min=1, max=256, help="Tokens a phrase.")] = 40,
    precision: Annotated[
        Precisions | None, typer.Option(help="The number format.  [default: float32; both with --block]")
    ] = None,
    batch_sizes: Annotated[str, typer.Option(help="For the throughput: images asked together.")] = "1,4",
    rounds: Annotated[int, typer.Option(min=0, max=100_000, help="Turns of each model; 0 only counts.")] = 20,
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Threads of the computation.  [default: torch's]")
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Grounding DINO and OWL-ViT too, random weights.")] = False,
    block: Annotated[bool, typer.Option("--block", help="CA2M against the encoder block: SMCIM Table V.")] = False,
    as_json: Annotated[Path | None, typer.Option("--json", help="Write all figures into this file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of speed against accuracy: SMCIM Fig. 2.")] = None,
    accuracy: Annotated[
        Path | None, typer.Option(help='For --plot: JSON {"MODEL": 0.81}.  [default: as checkpoints say]')
    ] = None,
) -> None:
    """Count parameters and operations of each MODEL, and measure time and memory; all meet the same load."""
    from deixis.bench.bench import BLOCKS
    from deixis.bench.bench import bench as measure
    from deixis.bench.report import read_accuracy, report
    from deixis.bench.subjects import find_subjects
    from deixis.bench.timing import PRECISIONS
    from deixis.files import atomic_write
    from deixis.progress import progress_report

    _check_files(as_json, plot, accuracy, rounds)
    names = [*(models or ()), *(name for name in (BLOCKS if block else ()) if name not in (models or ()))]
    subjects = find_subjects(names or [DEFAULT_MODEL], peers=peers)
    chosen = precision or (Precisions.both if block else Precisions.float32)
    known = None if accuracy is None else read_accuracy(accuracy)
    with progress_report("measuring") as progress:
        result = measure(
            subjects,
            precisions=PRECISIONS if chosen is Precisions.both else (chosen.value,),
            image_px=image_size,
            words=words,
            batch_sizes=parse_sizes(batch_sizes),
            rounds=rounds,
            threads=threads,
            progress=progress,
        )
    tell_problems(result.problems)
    _print(result)
    if as_json is not None:
        with atomic_write(as_json) as file:
            file.write(json.dumps(report(result), indent=1, allow_nan=False).encode())
    if plot is not None:
        _write_plot(plot, result, known)


def _check_files(as_json: Path | None, plot: Path | None, accuracy: Path | None, rounds: int) -> None:
    if as_json is not None:
        check_writable(as_json)
    if plot is not None:
        check_chart(plot)
        if not rounds:
            raise typer.BadParameter("expected --rounds above 0 with --plot, got 0; speed has to be measured")
    if accuracy is not None and plot is None:
        raise typer.BadParameter(f"expected --plot with --accuracy {str(accuracy)!r}, got none; add --plot FILE.png")


def parse_sizes(text: str) -> list[int]:
    """``1,4,8`` as numbers; ValueError where one is no number from 1 to 4096."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) <= 4 and 1 <= int(word) <= 4096 for word in words):
        raise ValueError(f"expected batch sizes from 1 to 4096 as in 1,4,8, got {text!r}")
    return [int(word) for word in words]


def _write_plot(path: Path, result: Result, known: dict[str, float] | None) -> None:
    """The chart, and on stderr which models it does not show."""
    from deixis.bench.report import recorded_accuracy, speed_panel, speed_points
    from deixis.charts import draw_panels

    dataset, values = recorded_accuracy(result) if known is None else ("", known)
    for name in result.counts:
        if name not in values:
            tell(f"{name} is not plotted: its accuracy{f' on {dataset}' if dataset else ''} is not known")
    panel = speed_panel(speed_points(result, values), f"Acc@0.5 on {dataset}" if dataset else "accuracy")
    write_image(draw_panels([panel], panel_px=PLOT_PX), path)


def _print(result: Result) -> None:
    from deixis.bench.report import block_sentences, headline, tables

    typer.echo(headline(result))
    for title, heads, rows in tables(result):
        if sys.stdout.isatty():
            print_table(heads, rows, title=title)
        else:  # in lines of columns that are never cut
            typer.echo(f"\n{title}\n{aligned_table([heads, *rows], align='l' * len(heads))}")
    for sentence in block_sentences(result):
        typer.echo(sentence)
