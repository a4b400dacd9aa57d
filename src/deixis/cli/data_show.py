"""``deixis data show``: samples as one picture, or as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis.cli.ground import PICTURES
from deixis.cli.running import check_writable, tell_problems

if TYPE_CHECKING:
    from PIL import Image

    from deixis.structures import Sample

PAGES = (".html", ".htm")


def show(
    dataset: Annotated[str, typer.Argument(metavar="DATASET[:SPLIT]", help="A name, a file or a folder.")],
    out: Annotated[Path, typer.Option(help="The picture to write, or an .html page.", show_default=False)],
    n: Annotated[int, typer.Option(min=1, max=400, help="So many samples.")] = 12,
    root: Annotated[Path | None, typer.Option(help="The folder of the data set's files.")] = None,
    columns: Annotated[int, typer.Option(min=1, max=20, help="So many side by side in a picture.")] = 4,
) -> None:
    """Draw a sheet of samples: box, tinted mask, phrase; as a picture, or as a page that stands alone."""
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
            cards = (Card(picture=p, phrase=s.phrase, facts=facts_of(s)) for p, s in _with(first, drawn))
            count = write_page(file, dataset, cards)
    else:
        pictures = [picture for picture, _ in _with(first, drawn)]
        count, sheet = len(pictures), draw_sheet(pictures, columns=columns)
        with atomic_write(out) as file:
            sheet.save(file, format=_format(out))
    tell_problems([*samples.problems, *problems])
    typer.echo(f"{count} samples drawn to {out}")


def _with(
    first: tuple[Image.Image, Sample], rest: Iterator[tuple[Image.Image, Sample]]
) -> Iterator[tuple[Image.Image, Sample]]:
    yield first
    yield from rest


def _drawn(samples: Sequence[Sample], n: int, problems: list[str]) -> Iterator[tuple[Image.Image, Sample]]:
    """The first samples, each with its picture; ``problems`` gets a sentence for each that cannot be read."""
    for number in range(min(n, len(samples))):
        try:
            sample = samples[number]
            picture = _picture(sample)
        except (ValueError, OSError) as error:
            problems.append(f"sample {number}: {error}")
            continue
        yield picture, sample


def _picture(sample: Sample) -> Image.Image:
    from deixis.drawing import Mark, draw_marks
    from deixis.geometry.images import read_image
    from deixis.geometry.masks import read_mask

    image = read_image(sample.image)
    mask = None if sample.mask is None else read_mask(sample.mask, image.shape[:2])
    words = sample.phrase if sample.box_xyxy_px is not None else f"{sample.phrase} (nothing is meant)"
    return draw_marks(image, [Mark(text=words, box_xyxy_px=sample.box_xyxy_px, mask=mask)])


def _format(path: Path) -> str:
    from PIL import Image

    return Image.registered_extensions()[path.suffix.lower()]
