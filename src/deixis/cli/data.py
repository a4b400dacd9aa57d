"""``deixis data``: check, convert, show and pack data sets; find leaks and anchors; write phrases; build a mix."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli import data_stats
from deixis.cli.ground import PICTURES
from deixis.cli.running import check_writable, tell, tell_problems

if TYPE_CHECKING:
    from PIL import Image

    from deixis.data.mixed import Mix
    from deixis.structures import Sample
    from deixis.tools.check import SplitCheck
    from deixis.tools.leaks import LeakCheck

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check, convert, show and pack data sets; find leaks and anchors; write phrases.",
)
_make = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build a data set from others.")
app.add_typer(_make, name="make")
app.command("stats", no_args_is_help=True)(data_stats.stats)

_Dataset = Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")]
_Root = Annotated[Path | None, typer.Option(help="The folder of the data set's files.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Maximum number of samples.  [default: all]")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_PAGES = (".html", ".htm")
_DRAWN_FOR_ANCHORS = 2000


class Images(StrEnum):
    """How many images are decoded: `deixis.tools.check.IMAGES`."""

    sample = "sample"
    all = "all"
    none = "none"


class Hashing(StrEnum):
    """When image contents are compared: `deixis.tools.leaks.HASHING`."""

    auto = "auto"
    always = "always"
    never = "never"


def _open(dataset: str, root: Path | None, limit: int | None) -> tuple[str, str | None, Sequence[Sample]]:
    """The name, the split and the samples of a data set, at most ``limit`` of them."""
    from deixis.data import open_dataset, parse_dataset_spec

    name, split = parse_dataset_spec(dataset)
    samples = open_dataset(name, split=split, root=root, limit=limit)
    return name, split, samples if limit is None or len(samples) <= limit else samples[:limit]


def _problems_of(samples: Sequence[Sample]) -> Sequence[str]:
    return getattr(samples, "problems", ())


# ``check``


@app.command(no_args_is_help=True)
def check(
    dataset: Annotated[
        str,
        typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder; without a split, all splits."),
    ],
    root: _Root = None,
    images: Annotated[
        Images, typer.Option(help="Decode 200 images, all or none; boxes and masks are checked in decoded images.")
    ] = Images.sample,
    published: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Compare with the published counts of this data set, or 'none'.  [default: by the name]",
        ),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Find what is wrong with a data set: images, boxes, masks, phrases, counts. Exit status 1 if there are errors."""
    from deixis.data import parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.check import check_dataset

    name, split = parse_dataset_spec(dataset)
    with progress_report("samples") as progress:
        checks = check_dataset(name, split, root, images=images.value, published=published, progress=progress)
    errors = sum(one.count("error") for one in checks)
    if as_json:
        report = {"dataset": name, "errors": errors, "splits": [one.report() for one in checks]}
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _print_checks(checks)
    if errors:
        raise typer.Exit(1)


def _print_checks(checks: list[SplitCheck]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)  # or the end of refcoco:train: would become the emoji of a train
    for split in checks:
        where = split.dataset + (f":{split.split}" if split.split else "")
        lines = [
            f"{where}: {split.samples} samples, {split.left_out} left out, {split.images} images; decoded "
            f"{split.images_decoded} images, checked {split.boxes_checked} boxes and {split.masks_checked} masks",
            *split.notes,
        ]
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)
        if not split.findings:
            console.print("no problems found\n", highlight=False)
            continue
        table = Table("", "count", "problem", Column("examples", overflow="fold"))
        for one in split.findings:
            table.add_row(one.severity, str(one.count), escape(one.what), escape("\n".join(one.examples)))
        console.print(table)
    errors, warnings = (sum(one.count(kind) for one in checks) for kind in ("error", "warning"))
    console.print(f"{errors} errors, {warnings} warnings", highlight=False)


# ``leaks``


@app.command(no_args_is_help=True)
def leaks(
    train: Annotated[list[str], typer.Option(metavar="DATASET[:SPLIT]", help="Training data; repeat for more.")],
    evaluation: Annotated[
        list[str], typer.Option("--eval", metavar="DATASET[:SPLIT]", help="Evaluation data; repeat for more.")
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data sets' files.")] = None,
    hashing: Annotated[
        Hashing,
        typer.Option("--hash", help="When to compare image contents; auto: only for images that no id identifies."),
    ] = Hashing.auto,
    write_exclusions: Annotated[
        Path | None, typer.Option(help="Write the list of images that must be left out of training.")
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Find images that are used both for training and for evaluation. Exit status 1 if there are any."""
    if write_exclusions is not None:
        check_writable(write_exclusions)
    from deixis.data.exclusions import write_exclusions as write
    from deixis.progress import progress_report
    from deixis.tools.leaks import find_leaks

    with progress_report("samples") as progress:
        found = find_leaks(train, evaluation, root, hashing=hashing.value, progress=progress)
    tell_problems(found.problems)
    for leak in found.leaks:
        if leak.unread or leak.unknown:
            tell(f"{leak.train} and {leak.eval}: {leak.unread + leak.unknown} images without an id were not compared")
    if write_exclusions is not None:
        write(write_exclusions, found.exclusions)
        tell(f"{len(found.exclusions.keys)} images to leave out of training written to {write_exclusions}")
    if as_json:
        report = {"clean": found.is_clean, "pairs": [leak.report() for leak in found.leaks]}
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        _print_leaks(found)
    if not found.is_clean:
        raise typer.Exit(1)


def _print_leaks(found: LeakCheck) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)
    names = (Column(name, overflow="fold") for name in ("training", "evaluation"))
    table = Table(*names, "shared images", "samples on them", "same box and phrase", "found by")
    for leak in found.leaks:
        by = "\n".join(f"{how}: {count}" for how, count in leak.by.items())
        images, samples = f"{leak.images} of {leak.eval_images}", f"{leak.samples} of {leak.eval_samples}"
        table.add_row(escape(leak.train), escape(leak.eval), images, samples, str(leak.triples), escape(by))
    console.print(table)
    for leak in found.leaks:
        for example in leak.examples:
            console.print(f"{leak.train} and {leak.eval}: {example}", highlight=False, markup=False, soft_wrap=True)
    console.print("no leaks found" if found.is_clean else "evaluation images are also trained on", highlight=False)


# ``convert`` and ``pack``


@app.command(no_args_is_help=True)
def convert(
    dataset: _Dataset,
    out: Annotated[Path, typer.Option(help="The file to write; with --to refer, the folder.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            help="jsonl, mdetr, transvg, transvg-xyxy, seqtr, mcn or refer.  [default: by the file's suffix]",
            show_default=False,
        ),
    ] = None,
    root: _Root = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder that image paths are relative to.  [default: the deepest that contains all]"),
    ] = None,
    masks: Annotated[str, typer.Option(help="keep, rle or polygons.")] = "keep",
    pictures: Annotated[
        Path | None, typer.Option(help="The folder for PNG files of images that have no file, such as drawn scenes.")
    ] = None,
    limit: _Limit = None,
) -> None:
    """Write a data set in another format, and list what that format cannot hold."""
    from deixis.data import parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.convert import FORMS, SUFFIXES
    from deixis.tools.convert import convert as convert_samples

    inputs = [parse_dataset_spec(dataset)[0]]
    check_writable(out / "instances.json" if to == "refer" and out.is_dir() else out, inputs=inputs)
    form = to or SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise ValueError(f"expected --to out of {', '.join(FORMS)} for {str(out)!r}, got none; add it")
    _, _, samples = _open(dataset, root, limit)
    with progress_report("samples") as progress:
        done = convert_samples(samples, out, form, images=images, masks=masks, pictures=pictures, progress=progress)
    tell_problems([*_problems_of(samples), *done.problems])
    typer.echo(str(done))


@app.command(no_args_is_help=True)
def pack(
    dataset: _Dataset,
    out: Annotated[Path, typer.Option(help="The folder to write: new, or a pack to continue.", show_default=False)],
    root: _Root = None,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Maximum length of an image's longer side.")] = 416,
    limit: _Limit = None,
) -> None:
    """Copy a data set with its images resized, so that training reads them without decoding.

    An interrupted run continues where it stopped; a damaged pack is repaired.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"expected a folder to write, got the file {str(out)!r}; choose another name")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder for {str(out)!r}, found none; make it first")
    from deixis.data import default_split
    from deixis.data.packed.reading import PackedSamples
    from deixis.data.packed.writer import write_pack
    from deixis.progress import progress_report

    name, split, samples = _open(dataset, root, limit)
    if isinstance(samples, PackedSamples) and samples.folder.resolve() == out.resolve():
        raise ValueError(f"expected another folder than the pack {str(out)!r} itself; choose another name")
    with progress_report("images") as progress:
        done = write_pack(samples, out, size, dataset=name, split=split or default_split(name), progress=progress)
    tell_problems(done.problems)
    typer.echo(str(done))


# ``show``


@app.command(no_args_is_help=True)
def show(
    dataset: _Dataset,
    out: Annotated[Path, typer.Option(help="The image file or .html page to write.", show_default=False)],
    n: Annotated[int, typer.Option(min=1, max=400, help="Number of samples.")] = 12,
    root: _Root = None,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Samples per row of an image file.")] = 4,
) -> None:
    """Draw samples with box, mask and phrase, as one image or as a self-contained page."""
    check_writable(out, suffixes=(*PICTURES, *_PAGES))
    from PIL import Image

    from deixis.data.whole_file import whole_file
    from deixis.drawing import draw_sheet
    from deixis.tools.contact_sheet import Card, facts_of, write_page

    _, _, samples = _open(dataset, root, n)
    problems: list[str] = []
    drawn = _drawn(samples, n, problems)
    first = next(drawn, None)
    if first is None:
        why = f" ({problems[0]})" if problems else ""
        raise ValueError(f"expected samples that can be drawn in {dataset!r}, got none{why}; choose other data")
    drawn = chain([first], drawn)
    if out.suffix.lower() in _PAGES:
        with whole_file(out) as file:
            cards = (Card(picture=p, phrase=s.phrase, facts=facts_of(s)) for p, s in drawn)
            count = write_page(file, dataset, cards)
    else:
        images = [image for image, _ in drawn]
        count, sheet = len(images), draw_sheet(images, columns=columns)
        with whole_file(out) as file:
            sheet.save(file, format=Image.registered_extensions()[out.suffix.lower()])
    tell_problems([*_problems_of(samples), *problems])
    typer.echo(f"{count} samples drawn to {out}")


def _drawn(samples: Sequence[Sample], n: int, problems: list[str]) -> Iterator[tuple[Image.Image, Sample]]:
    """The first samples, each with its image; ``problems`` gets a sentence for each that cannot be read."""
    for number in range(min(n, len(samples))):
        try:
            sample = samples[number]
            image = _draw(sample)
        except (ValueError, OSError) as error:
            problems.append(f"sample {number}: {error}")
            continue
        yield image, sample


def _draw(sample: Sample) -> Image.Image:
    from deixis.drawing import Mark, draw_marks
    from deixis.geometry.images import read_image
    from deixis.geometry.masks import read_mask

    image = read_image(sample.image)
    mask = None if sample.mask is None else read_mask(sample.mask, image.shape[:2])
    text = sample.phrase if sample.box_xyxy_px is not None else f"{sample.phrase} (nothing is meant)"
    return draw_marks(image, [Mark(text=text, box_xyxy_px=sample.box_xyxy_px, mask=mask)])


# ``phrases`` and ``anchors``


@app.command(no_args_is_help=True)
def phrases(
    instances: Annotated[Path, typer.Argument(metavar="INSTANCES.json", help="A COCO instances file.")],
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    images: Annotated[
        Path | None, typer.Option(help="The folder of the images.  [default: images beside the file]")
    ] = None,
    per_instance: Annotated[int, typer.Option(min=1, help="Maximum number of phrases per instance.")] = 3,
    min_area: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out instances that cover a smaller part of the image.")
    ] = 0.03,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same phrases.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="A CSV with a column 'expression': compare with people's phrases.")
    ] = None,
) -> None:
    """Write unambiguous phrases for every instance that a phrase can single out."""
    check_writable(out, inputs=[instances])
    from deixis.data.captions.phrase_file import write_phrase_file
    from deixis.progress import progress_report

    with progress_report("images") as progress:
        summary = write_phrase_file(
            instances,
            out,
            images=images,
            seed=seed,
            per_instance=per_instance,
            min_area=min_area,
            compare=compare,
            progress=progress,
        )
    typer.echo(summary)


@app.command(no_args_is_help=True)
def anchors(
    dataset: _Dataset,
    number: Annotated[int, typer.Option(min=1, max=100, help="Number of anchors.")] = 3,
    size: Annotated[int, typer.Option(min=32, help="The side of the model's canvas in pixels.")] = 416,
    as_json: _AsJson = False,
    root: _Root = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Maximum number of samples.  [default: all, or {_DRAWN_FOR_ANCHORS} drawn scenes]"),
    ] = None,
) -> None:
    """Find the anchors of an mcn model: the widths and heights that fit the boxes best."""
    import numpy as np

    from deixis.data import SCENES, default_split
    from deixis.progress import progress_over
    from deixis.tools.anchors import find_anchors, read_shapes, shape_iou

    name, split, samples = _open(dataset, root, limit)
    if limit is None and name in SCENES and len(samples) > _DRAWN_FOR_ANCHORS:
        tell(f"drawing {_DRAWN_FOR_ANCHORS} of {len(samples)} scenes; --limit sets how many")
        samples = samples[:_DRAWN_FOR_ANCHORS]
    shapes = read_shapes(progress_over(samples, "samples"), size)
    tell_problems([*_problems_of(samples), *shapes.problems])
    found = find_anchors(shapes.sizes_px, number, np.random.default_rng(0))
    iou = shape_iou(shapes.sizes_px, found)
    result = {
        "dataset": name,
        "split": split or default_split(name),
        "n": len(iou),
        "size": size,
        "anchors": [[round(float(side), 1) for side in pair] for pair in found],
        "shares": [float((iou.argmax(1) == one).mean()) for one in range(number)],
        "mean_iou": float(iou.max(1).mean()),
    }
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        _print_anchors(result)


def _print_anchors(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("anchor", "width px", "height px", "boxes that it fits best")
    for row, ((width, height), share) in enumerate(zip(result["anchors"], result["shares"], strict=True), start=1):
        table.add_row(str(row), f"{width:.1f}", f"{height:.1f}", f"{share:.1%}")
    console = Console()
    console.print(table)
    summary = f"{result['n']} boxes on a canvas of {result['size']} pixels, mean IoU {result['mean_iou']:.3f}"
    console.print(summary, highlight=False)


# ``make mixed``


@_make.callback()
def make() -> None:
    """Build a data set from others."""


@_make.command(no_args_is_help=True)
def mixed(
    root: Annotated[Path, typer.Option(help="The folder of the data sets' files.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The folder to write.  [default: mixed in the root]")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET:SPLIT", help="What to mix; repeat for more.  [default: those of SMCIM's that are there]"
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="A list or a COCO instances file of images to leave out as well; repeat for more."),
    ] = None,
    keep_measured: Annotated[
        bool,
        typer.Option("--keep-measured", help="Keep the images of val and test splits: figures on them are worthless."),
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Write the large pre-training mix without any image of a val or test split of the data sets below the root."""
    from deixis.data.mixed import make_mixed
    from deixis.progress import progress_report

    folder = out if out is not None else root / "mixed"
    if folder.is_file():
        raise NotADirectoryError(f"expected a folder for the mix, got the file {str(folder)!r}; choose another name")
    with progress_report("samples") as progress:
        mix = make_mixed(
            root,
            folder,
            parts=part or (),
            exclude=exclude or (),
            keep_measured=keep_measured,
            progress=progress,
        )
    tell_problems(mix.problems)
    if mix.not_there:
        tell(f"not found below {str(root)!r}, so not in the mix: {', '.join(mix.not_there)}")
    if mix.not_known:
        tell(f"not found below {str(root)!r}, so the mix may contain images of: {', '.join(mix.not_known)}")
    if mix.without_keys:
        tell(f"{mix.without_keys} images could not be identified; compare them with: deixis data leaks")
    if as_json:
        typer.echo(json.dumps(mix.report(), allow_nan=False))
    else:
        _print_mix(mix, folder)


def _print_mix(mix: Mix, folder: Path) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    console = Console(emoji=False)
    table = Table(
        Column("part", overflow="fold"), "samples", "in val or test", "their images", "repeated", "unusable", "written"
    )
    for one in mix.parts:
        counts = (one.samples, one.measured_on, one.images_left_out, one.repeated, one.unusable, one.written)
        table.add_row(escape(one.spec), *map(str, counts))
    console.print(table)
    left_out = ", ".join(mix.left_out_for) or "none"
    summary = f"{mix.written} samples written to {folder}; evaluation images left out: {left_out}"
    console.print(summary, highlight=False, markup=False, soft_wrap=True)
