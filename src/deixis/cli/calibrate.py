"""``deixis calibrate``: make a checkpoint's score mean what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from deixis.cli.running import tell_problems


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="The checkpoint folder to write into.")],
    datasets: Annotated[
        list[str], typer.Argument(metavar="DATASET[:SPLIT]...", help="Validation data, not the test data.")
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data sets' files.")] = None,
    limit: Annotated[int, typer.Option(min=10, help="Maximum number of samples of each data set.")] = 400,
    absent: Annotated[float, typer.Option(min=0, max=1, help="Share of images also asked for something absent.")] = 0.5,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Fit only temperature and thresholds; for little data.")
    ] = False,
) -> None:
    """Fit the score and the thresholds of "found" on validation data, and store them in CHECKPOINT's config.json."""
    from deixis.data import open_dataset, parse_dataset_spec
    from deixis.grounder import load
    from deixis.progress import progress_over
    from deixis.train.calibrate import fit_calibration, gather_evidence, store_in_config, stored_regression

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"expected a checkpoint folder with config.json, got {str(folder)!r}; give its path")
    grounder = load(folder)
    evidence = []
    for spec in datasets:
        name, split = parse_dataset_spec(spec)
        dataset = open_dataset(name, split=split, root=root, limit=limit)
        tell_problems(dataset.problems)
        samples = list(progress_over(dataset, f"reading {spec}"))
        problems: list[str] = []
        evidence += gather_evidence(
            grounder, samples, absent_share=absent, progress=f"grounding {spec}", problems=problems
        )
        tell_problems(problems)
    fitted = fit_calibration(evidence, keep=stored_regression(grounder) if keep_weights else None)
    fitted["data"] = ["/".join(Path(spec).parts[-2:]) for spec in datasets]  # their names, not where they lie
    typer.echo(json.dumps(fitted))
    store_in_config(folder, calibration=fitted)
