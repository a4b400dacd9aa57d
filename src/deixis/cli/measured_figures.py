"""The figures of ``deixis reproduce`` that are measured on a data set."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deixis.cli.figures import write_picture
from deixis.cli.running import check_writable, tell, tell_problems
from deixis.cli.tables import DEFAULT_OUT, Wishes, given_models, how_measured, plan_for, print_plans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deixis.bench.speed_plot import Point
    from deixis.grounder import Grounder

OF_DATA = {
    "mcn-fig-5a": "MCN Fig. 5 (a): the structures of Table 3 on three data sets, trained as there",
    "smcim-fig-2": "SMCIM Fig. 2: speed against accuracy on RefCOCO+ val or scenes+:val (--model A,B)",
    "smcim-fig-5": "SMCIM Fig. 5: accuracy by number of words (--model A,B)",
    "smcim-fig-8": "SMCIM Fig. 8: boxes of a model, of a baseline and the truth (--model A,BASELINE)",
}
ROUNDS = 10
"""Of timing each model."""


def draw(wishes: Wishes) -> None:
    """Measure, print the numbers, write the picture."""
    wishes.refuse("everywhere", *(() if wishes.table == "mcn-fig-5a" else ("plan", "seeds", "arguments")))
    drawers = {
        "mcn-fig-5a": _structures, "smcim-fig-2": _speed, "smcim-fig-5": _lengths, "smcim-fig-8": _cases,
    }  # fmt: skip
    drawers[wishes.table](wishes)


def _file(wishes: Wishes) -> Path:
    """``--out F.png``; that of a folder of runs goes into it."""
    out = wishes.out or Path(f"{wishes.table}.png")
    check_writable(out, suffixes=(".png",))
    return out


def _structures(wishes: Wishes) -> None:
    from deixis.papers.ablations import format_rows, measure
    from deixis.papers.figures import mcn_fig_5_a
    from deixis.papers.parts import structures_everywhere

    wishes.refuse("model", "data")
    planned = [plan_for(wishes, experiment) for experiment in structures_everywhere(wishes.budget)]
    if wishes.plan:
        print_plans(planned)
        return
    measured = [(one.experiment, measure(one)) for one in planned]
    for one, (experiment, rows) in zip(planned, measured, strict=True):
        where = f"{experiment.data[one.budget]}, {how_measured(wishes, one)}"
        typer.echo(format_rows(experiment, rows, where))
    write_picture(mcn_fig_5_a(measured), planned[0].out / f"{wishes.table}.png")


def _lengths(wishes: Wishes) -> None:
    from deixis.papers.ablations import SMALL_LIMIT, Plan
    from deixis.papers.experiments import MCN_TABLE_2
    from deixis.papers.lengths import format_lengths, measure_lengths, smcim_fig_5

    wishes.refuse("data")
    models, out = given_models(wishes), _file(wishes)
    limit = wishes.limit or (SMALL_LIMIT if wishes.budget == "small" else None)
    plan = Plan(
        experiment=MCN_TABLE_2, budget=wishes.budget, out=DEFAULT_OUT, overrides={}, limit=limit, root=wishes.root,
        precision=wishes.precision,
    )  # fmt: skip
    measured = measure_lengths(plan, models)
    typer.echo(format_lengths(measured))
    write_picture(smcim_fig_5(measured), out)


def _cases(wishes: Wishes) -> None:
    from deixis.data import default_split, open_dataset, parse_dataset_spec
    from deixis.grounder import load
    from deixis.papers.ablations import SMALL_LIMIT
    from deixis.papers.qualitative import describe_cases, find_cases, smcim_fig_8
    from deixis.progress import progress_over

    models, out = given_models(wishes), _file(wishes)
    if len(models) > 2 or any("" not in one.checkpoints for one in models):
        raise typer.BadParameter(f"smcim-fig-8 needs --model A or --model A,BASELINE, got {wishes.model!r}")
    spec = wishes.data or ("scenesg:val" if wishes.budget == "small" else "refcocog-google:val")
    name, split = parse_dataset_spec(spec)
    split = split or default_split(name)
    limit = wishes.limit or (SMALL_LIMIT if wishes.budget == "small" else None)
    samples = open_dataset(name, split=split, root=wishes.root, limit=limit)
    loaded: list[Grounder] = [load(one.checkpoints[""], precision=wishes.precision) for one in models]
    progress = partial(progress_over, label="evaluating", total=len(samples))
    baseline = loaded[1] if len(loaded) > 1 else None
    cases = find_cases(loaded[0], baseline, samples, progress=progress)
    tell_problems(cases.problems)
    names = [one.name for one in models]
    typer.echo(describe_cases(cases, names[0], names[1] if baseline else None, name + (f":{split}" if split else "")))
    write_picture(smcim_fig_8(cases), out)


def _speed(wishes: Wishes) -> None:
    from deixis.bench.bench import bench
    from deixis.bench.speed_plot import Point, draw_speed_accuracy
    from deixis.bench.subjects import find_subjects
    from deixis.papers.ablations import SMALL_LIMIT, column_value
    from deixis.papers.checkpoints import measured_report
    from deixis.papers.experiments import REC
    from deixis.progress import progress_report

    models, out = given_models(wishes), _file(wishes)
    data = wishes.data or ("scenes+:val" if wishes.budget == "small" else "refcoco+:val")
    limit = wishes.limit or (SMALL_LIMIT if wishes.budget == "small" else None)
    checkpoints = {one.name: one.checkpoint_for(data) for one in models}
    known = {name: path for name, path in checkpoints.items() if path is not None}
    subjects = find_subjects(list(known.values()))
    accuracy: dict[str, float] = {}
    for name, path in known.items():
        report = measured_report(path, data, out=DEFAULT_OUT, root=wishes.root, limit=limit, precision=wishes.precision)
        value = column_value(report, REC)
        if value is None:
            tell(f"{name} gives no boxes: it is not drawn")
        else:
            accuracy[path] = value
    precision = "bfloat16" if wishes.precision == "bfloat16" else "float32"
    with progress_report("timing") as progress:
        timed = bench(subjects, precisions=(precision,), batch_sizes=(), rounds=ROUNDS, progress=progress)
    per_second = {row.subject.name: 1000 / statistics.median(row.ms) for row in timed.rows}
    points = [Point(name=path, per_second=per_second[path], accuracy=value / 100) for path, value in accuracy.items()]
    _print_speeds(points, data, str(timed.machine["processor"]))
    write_picture(draw_speed_accuracy(points, accuracy_label=f"Acc@0.5 on {data}"), out)


def _print_speeds(points: Sequence[Point], data: str, processor: str) -> None:
    from deixis.papers.published import SMCIM_FIG_2_OWN

    lines = ["| | images a second | Acc@0.5 | on |", "| --- | ---: | ---: | --- |"]
    lines += [
        f"| {one.name} | {one.per_second:.1f} | {100 * one.accuracy:.2f} | {processor}; {data} |" for one in points
    ]
    for name, (speed, alone, pretrained) in SMCIM_FIG_2_OWN.items():
        lines += [
            f"| printed: {name}{told} | {speed:.1f} | {value:.2f} | GTX 1080 Ti; RefCOCO+ val |"
            for told, value in (("", alone), (", with large-scale pre-training", pretrained))
        ]
    typer.echo("\n".join(lines))
