"""``deixis bench``: what models cost, side by side in one run."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.running import check_writable, tell, tell_problems

if TYPE_CHECKING:
    from deixis.bench.bench import Result, Row

_MAX_ACCURACY_BYTES = 1_000_000
_ACCURACY = "acc@0.5"


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
    from deixis.bench.bench import BLOCKS, report
    from deixis.bench.bench import bench as measure
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
        check_writable(plot, suffixes=(".png",))
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
        if type(value) not in (int, float) or not 0 <= value <= 1:
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
    found: dict[str, float] = {}
    for name, figures in metrics.items():
        value = figures.get(_ACCURACY) if isinstance(figures, dict) else None
        if isinstance(value, int | float) and type(value) is not bool and 0 <= value <= 1:
            found[name] = value
    return found


def _write_plot(path: Path, result: Result, known: dict[str, float] | None) -> None:
    """The plot, and on stderr which models it does not show."""
    import statistics

    from deixis.bench.speed_plot import Point, draw_speed_accuracy
    from deixis.files import atomic_write

    dataset, values = recorded_accuracy(result) if known is None else ("", known)
    several = len({row.precision for row in result.rows}) > 1
    points = [
        Point(
            name=f"{row.subject.name} {row.precision}" if several else row.subject.name,
            per_second=1000 / statistics.median(row.ms),
            accuracy=values[row.subject.name],
        )
        for row in result.rows
        if row.subject.name in values
    ]
    for name in result.counts:
        if name not in values:
            tell(f"{name} is not plotted: its accuracy{f' on {dataset}' if dataset else ''} is not known")
    picture = draw_speed_accuracy(points, accuracy_label=f"Acc@0.5 on {dataset}" if dataset else "accuracy")
    with atomic_write(path) as file:
        picture.save(file, format="PNG")


Table = tuple[str, list[str], list[list[str]]]


def tables(result: Result) -> list[Table]:
    """Title, heads and rows of what is printed; a table without rows is left out."""
    found = [_size_table(result), _time_table(result), _throughput_table(result), _paper_table(result)]
    return [table for table in found if table[2]]


def _size_table(result: Result) -> Table:
    from deixis.bench.operations import PARTS

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
    return "Time in ms, one image and one phrase", heads, [_time_row(result, row) for row in result.rows]


def _time_row(result: Result, row: Row) -> list[str]:
    second = _median_p95(row.second_ms) if row.second_ms else ["-", "-"]
    return [
        row.subject.name,
        row.precision,
        f"{row.start_s:.1f}",
        f"{row.first_ms:.1f}",
        *_median_p95(row.ms),
        *second,
        f"{result.times_over_first(row):.3f}",
        f"{row.gflops:.0f} of {row.best_gflops:.0f}",
        f"{100 * row.share_of_peak:.0f} %",
    ]


def _median_p95(values: list[float]) -> list[str]:
    from deixis.bench.bench import percentile

    return [f"{percentile(values, 50):.1f}", f"{percentile(values, 95):.1f}"]


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
    from deixis.bench.bench import PRINTED

    heads = ["model", "source", "parameters, M", "paper", "operations, G", "paper", "a second, GTX 1080 Ti"]
    rows = []
    for name, counts in result.counts.items():
        if printed := PRINTED.get(name):
            same = (counts.image_px, counts.words) == (printed.image_px, printed.words)
            rows.append(
                [
                    name,
                    printed.source,
                    *_beside(counts.all_parameters, printed.parameters, 1e6),
                    *_beside(counts.all_operations, printed.operations if same else None, 1e9),
                    f"{printed.per_second:.1f}",
                ]
            )
    return "Beside the papers", heads, rows


def _beside(ours: int, paper: float | None, unit: float) -> tuple[str, str]:
    """Ours, and the paper's with ours in percent above or below it."""
    return f"{ours / unit:.2f}", "-" if paper is None else f"{paper / unit:.2f} ({100 * (ours / paper - 1):+.2f} %)"


def _print(result: Result) -> None:
    machine = result.machine
    typer.echo(
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads'] or 'no'} threads, load "
        f"{machine['load_before']} before, torch {machine['torch']}, Python {machine['python']}"
    )
    for title, heads, rows in tables(result):
        _print_table(title, heads, rows)
    from deixis.bench.bench import paper_block_ratio, paper_blocks_saved

    if sizes := result.block_sizes():
        ours, other = (size / 1e6 for size in sizes)
        typer.echo(
            f"stacks of CA2M {ours:.2f}M parameters, of encoder blocks {other:.2f}M: {ours - other:.2f}M fewer (the "
            f"paper: {paper_blocks_saved() / 1e6:.2f}M)"
        )
    for precision, (whole, alone) in result.blocks().items():
        typer.echo(
            f"CA2M against the encoder block, {precision}: {whole:.3f} times as fast (the paper: "
            f"{paper_block_ratio():.3f}), the fusion alone {alone:.3f} times"
        )


def _print_table(title: str, heads: list[str], rows: list[list[str]]) -> None:
    """By rich where a person watches, else lines of columns that are never cut."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table as RichTable

        table = RichTable(title=title, title_justify="left")
        for index, head in enumerate(heads):
            table.add_column(head, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(line[column]) for line in (heads, *rows)) for column in range(len(heads))]
    typer.echo(f"\n{title}")
    for line in (heads, *rows):
        typer.echo("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip())
