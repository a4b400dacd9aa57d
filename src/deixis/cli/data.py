"""``deixis data``: check, convert, measure, show and build data sets; write phrases for instances; find anchors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deixis.cli.ground import PICTURES
from deixis.cli.running import (
    check_chart,
    check_writable,
    print_json,
    print_line,
    print_table,
    tell,
    tell_problems,
    write_image,
)

if TYPE_CHECKING:
    from PIL import Image

    from deixis.structures import Sample
    from deixis.tools.check import SplitCheck
    from deixis.tools.leaks import LeakCheck

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Check, convert, show and build data sets.")
making = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build a data set from others.")
app.add_typer(making, name="make")

PAGES = (".html", ".htm")
SCENES_READ = 2000
"""The number of drawn scenes to read unless --limit says otherwise."""

Dataset = Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")]
Root = Annotated[Path | None, typer.Option(help="The folder of the data set's files.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Maximum number of samples.  [default: all]")]
ScenesLimit = Annotated[
    int | None,
    typer.Option(min=1, help=f"Maximum number of samples.  [default: all, or {SCENES_READ} drawn scenes]"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _open(name: str, split: str | None, root: Path | None, limit: int | None) -> Sequence[Sample]:
    """The samples of a data set, at most ``limit``."""
    from deixis.data import open_dataset

    samples = open_dataset(name, split=split, root=root, limit=limit)
    return samples if limit is None or len(samples) <= limit else samples[:limit]


def _open_some(name: str, split: str | None, root: Path | None, limit: int | None) -> Sequence[Sample]:
    """The same; without a limit, only the first of the drawn scenes."""
    from deixis.data import SCENES

    samples = _open(name, split, root, limit)
    if limit is None and name in SCENES and len(samples) > SCENES_READ:
        tell(f"drawing {SCENES_READ} of {len(samples)} scenes; --limit sets how many")
        samples = samples[:SCENES_READ]
    return samples


def _problems_of(samples: Sequence[Sample], others: Sequence[str]) -> list[str]:
    return [*getattr(samples, "problems", ()), *others]


class Images(StrEnum):
    """Which images are decoded: `deixis.tools.check.IMAGES`."""

    sample = "sample"
    all = "all"
    none = "none"


@app.command(no_args_is_help=True)
def check(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder; without a split, all splits.")
    ],
    root: Root = None,
    images: Annotated[
        Images, typer.Option(help="Decode 200 images, all or none; boxes and masks are checked in decoded images.")
    ] = Images.sample,
    published: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Compare with published counts of this data set, or none.  [default: by name]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find errors in images, boxes, masks, phrases and counts. Exit status 1 if there are any."""
    from deixis.data import parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.check import check_dataset

    name, split = parse_dataset_spec(dataset)
    with progress_report("samples") as progress:
        checks = check_dataset(name, split, root, images=images.value, published=published, progress=progress)
    errors, warnings = (sum(one.count(kind) for one in checks) for kind in ("error", "warning"))
    if as_json:
        print_json({"dataset": name, "errors": errors, "splits": [one.report() for one in checks]})
    else:
        for one in checks:
            _print_check(one)
        print_line(f"{errors} errors, {warnings} warnings")
    if errors:
        raise typer.Exit(1)


def _print_check(one: SplitCheck) -> None:
    where = one.dataset + (f":{one.split}" if one.split else "")
    print_line(
        f"{where}: {one.samples} samples, {one.left_out} left out, {one.images} images; decoded "
        f"{one.images_decoded} images, checked {one.boxes_checked} boxes and {one.masks_checked} masks"
    )
    for note in one.notes:
        print_line(note)
    if one.findings:
        rows = [[found.severity, str(found.count), found.what, "\n".join(found.examples)] for found in one.findings]
        print_table(["", "count", "problem", "examples"], rows, fold=["examples"])
    else:
        print_line("no problems found\n")


@app.command(no_args_is_help=True)
def convert(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The file to write; with --to refer, the folder.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(
            help="jsonl, mdetr, transvg, transvg-xyxy, seqtr, mcn or refer.  [default: by the file's suffix]",
            show_default=False,
        ),
    ] = None,
    root: Root = None,
    images: Annotated[
        Path | None,
        typer.Option(help="The folder that paths are relative to.  [default: the deepest with all images]"),
    ] = None,
    masks: Annotated[str, typer.Option(help="keep, rle or polygons.")] = "keep",
    pictures: Annotated[Path | None, typer.Option(help="Save images without a file here, as PNG.")] = None,
    limit: Limit = None,
) -> None:
    """Write a data set in another format, and list what that format cannot hold."""
    from deixis.data import parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.convert import FORMS, SUFFIXES
    from deixis.tools.convert import convert as convert_samples

    name, split = parse_dataset_spec(dataset)
    check_writable(out / "instances.json" if to == "refer" and out.is_dir() else out, inputs=[name])
    form = to or SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise ValueError(f"expected --to out of {', '.join(FORMS)} for {str(out)!r}, got none; add it")
    samples = _open(name, split, root, limit)
    with progress_report("samples") as progress:
        done = convert_samples(samples, out, form, images=images, masks=masks, pictures=pictures, progress=progress)
    tell_problems(_problems_of(samples, done.problems))
    typer.echo(str(done))


class Hashing(StrEnum):
    """When image contents are compared: `deixis.tools.leaks.HASHING`."""

    auto = "auto"
    always = "always"
    never = "never"


@app.command(no_args_is_help=True)
def leaks(
    train: Annotated[list[str], typer.Option(metavar="DATASET[:SPLIT]", help="Training data; repeat for more.")],
    evaluation: Annotated[
        list[str], typer.Option("--eval", metavar="DATASET[:SPLIT]", help="Evaluation data; repeat for more.")
    ],
    root: Annotated[Path | None, typer.Option(help="The folder of the data sets' files.")] = None,
    hashing: Annotated[
        Hashing, typer.Option("--hash", help="When to compare image contents; auto: if an image has no known id.")
    ] = Hashing.auto,
    write_exclusions: Annotated[
        Path | None, typer.Option(help="Write the list of images to leave out of training.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find images used for both training and evaluation. Exit status 1 if there are any."""
    if write_exclusions is not None:
        check_writable(write_exclusions)
    from deixis.progress import progress_report
    from deixis.tools.image_keys import write_exclusions as write
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
        print_json({"clean": found.is_clean, "pairs": [leak.report() for leak in found.leaks]})
    else:
        _print_leaks(found)
    if not found.is_clean:
        raise typer.Exit(1)


def _print_leaks(found: LeakCheck) -> None:
    heads = ["training", "evaluation", "shared images", "samples on them", "same box and phrase", "found by"]
    rows = [
        [
            leak.train,
            leak.eval,
            f"{leak.images} of {leak.eval_images}",
            f"{leak.samples} of {leak.eval_samples}",
            str(leak.triples),
            "\n".join(f"{how}: {count}" for how, count in leak.by.items()),
        ]
        for leak in found.leaks
    ]
    print_table(heads, rows, fold=heads[:2])
    for leak in found.leaks:
        for example in leak.examples:
            print_line(f"{leak.train} and {leak.eval}: {example}")
    print_line("no leaks found" if found.is_clean else "some evaluation images are also trained on")


@app.command(no_args_is_help=True)
def stats(
    dataset: Dataset,
    root: Root = None,
    as_json: AsJson = False,
    plot: Annotated[Path | None, typer.Option(help="Write charts to this .png.", show_default=False)] = None,
    limit: ScenesLimit = None,
) -> None:
    """Measure phrases, boxes, words and categories of a data set."""
    if plot is not None:
        check_chart(plot)
    from deixis.charts import draw_panels
    from deixis.data import default_split, parse_dataset_spec
    from deixis.progress import progress_report
    from deixis.tools.statistics import chart_panels, measure_dataset, table_rows

    name, split = parse_dataset_spec(dataset)
    samples = _open_some(name, split, root, limit)
    with progress_report("samples") as progress:
        found = measure_dataset(samples, progress)
    tell_problems(_problems_of(samples, found.problems))
    if not found.samples:
        raise ValueError(f"expected samples to measure in {dataset!r}, got none; choose other data")
    report = {"dataset": name, "split": split or default_split(name), **found.report()}
    if plot is not None:
        write_image(draw_panels(chart_panels(found)), plot)
    if as_json:
        print_json(report)
    else:
        print_table(["measure", "value"], table_rows(report))


@app.command(no_args_is_help=True)
def pack(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The folder to write: new, or a pack to continue.", show_default=False)],
    root: Root = None,
    size: Annotated[int, typer.Option(min=32, max=4096, help="Maximum length of the longer side.")] = 416,
    limit: Limit = None,
) -> None:
    """Copy a data set with its images resized, so that training reads them without decoding.

    An interrupted run continues where it stopped; a damaged pack is repaired.
    """
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"expected a folder to write, got the file {str(out)!r}; choose another name")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder for {str(out)!r}, found none; make it first")
    from deixis.data import default_split, parse_dataset_spec
    from deixis.data.packed import PackedSamples, write_pack
    from deixis.progress import progress_report

    name, split = parse_dataset_spec(dataset)
    samples = _open(name, split, root, limit)
    if isinstance(samples, PackedSamples) and samples.folder.resolve() == out.resolve():
        raise ValueError(f"expected another folder than the pack {str(out)!r} itself; choose another name")
    with progress_report("images") as progress:
        done = write_pack(samples, out, size, dataset=name, split=split or default_split(name), progress=progress)
    tell_problems(done.problems)
    typer.echo(str(done))


@app.command(no_args_is_help=True)
def show(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The image or .html page to write.", show_default=False)],
    n: Annotated[int, typer.Option(min=1, max=400, help="Number of samples.")] = 12,
    root: Root = None,
    columns: Annotated[int, typer.Option(min=1, max=20, help="Samples per row of an image.")] = 4,
) -> None:
    """Draw samples with box, mask and phrase, as one image or as a self-contained page."""
    check_writable(out, suffixes=(*PICTURES, *PAGES))
    from deixis.data import open_dataset, parse_dataset_spec
    from deixis.drawing import draw_sheet
    from deixis.files import atomic_write
    from deixis.tools.contact_sheet import Card, facts_of, write_page

    name, split = parse_dataset_spec(dataset)
    samples = open_dataset(name, split=split, root=root, limit=n)
    problems: list[str] = []
    drawn = _drawn(samples, n, problems)
    first = next(drawn, None)
    if first is None:
        why = f" ({problems[0]})" if problems else ""
        raise ValueError(f"expected samples that can be drawn in {dataset!r}, got none{why}; choose other data")
    if out.suffix.lower() in PAGES:
        with atomic_write(out) as file:
            cards = (Card(picture=p, phrase=s.phrase, facts=facts_of(s)) for p, s in chain([first], drawn))
            count = write_page(file, dataset, cards)
    else:
        images = [image for image, _ in chain([first], drawn)]
        count = len(images)
        write_image(draw_sheet(images, columns=columns), out)
    tell_problems(_problems_of(samples, problems))
    typer.echo(f"{count} samples drawn to {out}")


def _drawn(samples: Sequence[Sample], n: int, problems: list[str]) -> Iterator[tuple[Image.Image, Sample]]:
    """The first samples, each with its image; ``problems`` gets a sentence for each that cannot be read."""
    from deixis.drawing import Mark, draw_marks
    from deixis.geometry.images import read_image
    from deixis.geometry.masks import read_mask

    for number in range(min(n, len(samples))):
        try:
            sample = samples[number]
            pixels = read_image(sample.image)
            mask = None if sample.mask is None else read_mask(sample.mask, pixels.shape[:2])
            words = sample.phrase if sample.box_xyxy_px is not None else f"{sample.phrase} (nothing is meant)"
            image = draw_marks(pixels, [Mark(text=words, box_xyxy_px=sample.box_xyxy_px, mask=mask)])
        except (ValueError, OSError) as error:
            problems.append(f"sample {number}: {error}")
            continue
        yield image, sample


@app.command(no_args_is_help=True)
def phrases(
    instances: Annotated[Path, typer.Argument(metavar="INSTANCES.json", help="A COCO instances file.")],
    out: Annotated[Path, typer.Option(help="The JSONL file to write.", show_default=False)],
    images: Annotated[Path | None, typer.Option(help="The images' folder.  [default: images beside the file]")] = None,
    per_instance: Annotated[int, typer.Option(min=1, help="Maximum number of phrases per instance.")] = 3,
    min_area: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out instances that cover a smaller part of the image.")
    ] = 0.03,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same phrases.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="A CSV with a column expression: compare with people's phrases.")
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
    dataset: Dataset,
    number: Annotated[int, typer.Option(min=1, max=100, help="Number of anchors.")] = 3,
    size: Annotated[int, typer.Option(min=32, help="The side of the model's canvas in pixels.")] = 416,
    as_json: AsJson = False,
    root: Root = None,
    limit: ScenesLimit = None,
) -> None:
    """Find the anchors of an mcn model: the widths and heights that fit the boxes best."""
    import numpy as np

    from deixis.data import default_split, parse_dataset_spec
    from deixis.progress import progress_over
    from deixis.tools.anchors import find_anchors, read_shapes, shape_iou

    name, split = parse_dataset_spec(dataset)
    samples = _open_some(name, split, root, limit)
    shapes = read_shapes(progress_over(samples, "samples"), size)
    tell_problems(_problems_of(samples, shapes.problems))
    found = find_anchors(shapes.sizes_px, number, np.random.default_rng(0))
    iou = shape_iou(shapes.sizes_px, found)
    result: dict[str, Any] = {
        "dataset": name,
        "split": split or default_split(name),
        "n": len(iou),
        "size": size,
        "anchors": [[round(float(side), 1) for side in pair] for pair in found],
        "shares": [float((iou.argmax(1) == one).mean()) for one in range(number)],
        "mean_iou": float(iou.max(1).mean()),
    }
    if as_json:
        print_json(result)
        return
    rows = [
        [str(place), f"{width:.1f}", f"{height:.1f}", f"{share:.1%}"]
        for place, ((width, height), share) in enumerate(zip(result["anchors"], result["shares"], strict=True), start=1)
    ]
    print_table(["anchor", "width px", "height px", "boxes that it fits best"], rows)
    print_line(f"{result['n']} boxes on a canvas of {size} pixels, mean IoU {result['mean_iou']:.3f}")


@making.callback()
def make() -> None:
    """Build a data set from others."""  # typer takes a group of one command for that command; this keeps the group


@making.command(no_args_is_help=True)
def mixed(
    root: Annotated[Path, typer.Option(help="The folder of the data sets' files.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The folder to write.  [default: mixed in the root]")] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(metavar="DATASET:SPLIT", help="What to mix; repeat for more.  [default: SMCIM's, if there]"),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="A list or COCO instances file of images to leave out as well; repeat for more."),
    ] = None,
    keep_measured: Annotated[
        bool, typer.Option("--keep-measured", help="Keep images of val and test splits: results are worthless.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the large pre-training mix, without any image of a val or test split of the data sets below the root."""
    from deixis.progress import progress_report
    from deixis.tools.mix import make_mixed

    folder = out if out is not None else root / "mixed"
    if folder.is_file():
        raise NotADirectoryError(f"expected a folder for the mix, got the file {str(folder)!r}; choose another name")
    with progress_report("samples") as progress:
        mix = make_mixed(
            root, folder, parts=part or (), exclude=exclude or (), keep_measured=keep_measured, progress=progress
        )
    tell_problems(mix.problems)
    if mix.not_there:
        tell(f"not found below {str(root)!r}, so not in the mix: {', '.join(mix.not_there)}")
    if mix.not_known:
        tell(f"not found below {str(root)!r}, so the mix may contain images of: {', '.join(mix.not_known)}")
    if mix.without_keys:
        tell(f"{mix.without_keys} images could not be identified; compare them with: deixis data leaks")
    if as_json:
        print_json(mix.report())
        return
    heads = ["part", "samples", "in val or test", "their images", "repeated", "unusable", "written"]
    rows = []
    for one in mix.parts:
        counts = (one.samples, one.measured_on, one.images_left_out, one.repeated, one.unusable, one.written)
        rows.append([one.spec, *map(str, counts)])
    print_table(heads, rows, fold=["part"])
    print_line(
        f"{mix.written} samples written to {folder}; left out the images of: {', '.join(mix.left_out_for) or 'none'}"
    )
