"""``deixis ground``: phrases in one image, or a file of many."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deixis import DEFAULT_MODEL
from deixis.cli.running import check_writable

if TYPE_CHECKING:
    from deixis.grounder import EncodedImage, Grounding

_WIDTH_IN_FILES = 110  # characters a line of a table that goes to a file or a pipe
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Precision(StrEnum):
    """The number format of the computation."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


def ground(
    image: Annotated[str | None, typer.Argument(metavar="IMAGE", help="An image file.", show_default=False)] = None,
    phrases: Annotated[
        list[str] | None,
        typer.Argument(metavar="PHRASE...", help="One or more phrases to point at.", show_default=False),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="A bundled name, a checkpoint folder, or hf-hub:org/repo.")
    ] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per phrase and line.")] = False,
    overlay: Annotated[Path | None, typer.Option(help="Write an image with box, mask and text of each phrase.")] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Write the mask as a PNG of 0 and 255; several phrases give F-1.png, F-2.png...")
    ] = None,
    attention: Annotated[
        Path | None,
        typer.Option(
            help="Write an image of where the box and mask branches attend (for smcim also to which words); several "
            "phrases give F-1.png, F-2.png..."
        ),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="bfloat16 is faster on processors that support it.")] = (
        Precision.auto
    ),
    batch: Annotated[
        Path | None, typer.Option(help='Read JSONL lines {"image", "phrase", "id"} instead of IMAGE and PHRASE.')
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --batch: the JSONL file of results, one per line.")] = None,
    overlays: Annotated[Path | None, typer.Option(help="With --batch: a folder for an overlay of each line.")] = None,
) -> None:
    """Point at what each PHRASE means in IMAGE.

    A phrase that begins with a dash goes after "--".
    """
    if batch is not None:
        if image is not None or as_json or any(path is not None for path in (overlay, mask, attention)):
            raise typer.BadParameter("--batch goes with --out and --overlays only, without IMAGE, PHRASE or --json")
        if out is None:
            raise typer.BadParameter("--batch needs --out OUT.jsonl for its results")
        from deixis.cli.batch import run_batch

        raise typer.Exit(run_batch(batch, out, model=model, precision=precision.value, overlays=overlays))
    if out is not None or overlays is not None:
        raise typer.BadParameter("--out and --overlays go with --batch")
    if image is None or not phrases:
        raise typer.BadParameter("expected IMAGE and at least one PHRASE, or --batch IN.jsonl --out OUT.jsonl")
    _check_outputs(image, overlay=overlay, mask=mask, attention=attention, count=len(phrases))
    encoded = _look(image, model=model, precision=precision.value)
    found = encoded.ground_all(phrases)
    _check_branches(encoded, found[0], mask=mask, attention=attention)
    if as_json:
        for one in found:
            typer.echo(json.dumps(one.to_json(image), allow_nan=False))
    else:
        _print_table(found)
    _write_images(found, overlay=overlay, mask=mask)
    if attention is not None:
        _write_attention(encoded, found, attention)


def _check_outputs(image: str, *, overlay: Path | None, mask: Path | None, attention: Path | None, count: int) -> None:
    """Refuse output files that cannot be written or that would overwrite each other."""
    owners: dict[str, str] = {}
    for option, path in (("--overlay", overlay), ("--mask", mask), ("--attention", attention)):
        if path is None:
            continue
        check_writable(path, suffixes=(".png",) if option == "--mask" else PICTURES, inputs=[image])
        numbered = [] if option == "--overlay" else [_numbered(path, index, count) for index in range(1, count + 1)]
        for file in (path, *numbered):
            owner = owners.setdefault(os.path.realpath(file), option)
            if owner != option:
                raise typer.BadParameter(
                    f"expected a file for {owner} and another one for {option}, got {str(file)!r} for both; "
                    "choose another name"
                )


def _check_branches(encoded: EncodedImage, answer: Grounding, *, mask: Path | None, attention: Path | None) -> None:
    """Refuse images of what the model does not give, before anything is printed or written."""
    if mask is not None and answer.mask is None:
        raise ValueError(f"expected a model that gives masks for --mask, got {answer.model!r}; use another model")
    if attention is not None and not encoded.attention(answer.phrase):
        raise ValueError(
            f"expected a model with attention maps for --attention, got {answer.model!r}, which has none; "
            "use another model (of the mcn family, one with cem on)"
        )


def _look(image: str, *, model: str, precision: str) -> EncodedImage:
    """Encode the image; refuse an unreadable one before the model is loaded."""
    from deixis.geometry.images import read_image

    pixels = read_image(image)
    from deixis import grounder

    return grounder.load(model, precision=precision).look(pixels)


def _print_table(found: Sequence[Grounding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("phrase", "box x1 y1 x2 y2", "score", "agreement", "verdict", "ms")
    for one in found:
        box = "-" if one.box is None else " ".join(f"{edge:.0f}" for edge in one.box)
        table.add_row(
            Text(one.phrase), box, f"{one.score:.2f}", f"{one.agreement:.2f}", one.verdict, f"{one.ms:.0f}",
        )  # fmt: skip
    on_terminal = sys.stdout is not None and sys.stdout.isatty()  # None where it was closed, as by >&-
    Console(width=None if on_terminal else _WIDTH_IN_FILES).print(table)


def _write_images(found: Sequence[Grounding], *, overlay: Path | None, mask: Path | None) -> None:
    if overlay is not None:
        from deixis import draw

        draw(found).save(overlay)
    if mask is not None:
        import numpy as np
        from PIL import Image

        for index, one in enumerate(found, start=1):
            assert one.mask is not None
            Image.fromarray(one.mask.astype(np.uint8) * 255).save(_numbered(mask, index, len(found)))


def _write_attention(encoded: EncodedImage, found: Sequence[Grounding], path: Path) -> None:
    from deixis.drawing import draw_attention
    from deixis.evaluate.word_attention import words_reaching_cls

    for index, one in enumerate(found, start=1):
        words = words_reaching_cls(encoded, one.phrase)
        drawn = draw_attention(encoded.image, encoded.attention(one.phrase), one.phrase, words=words)
        drawn.save(_numbered(path, index, len(found)))


def _numbered(path: Path, index: int, count: int) -> Path:
    """``path`` for a single phrase, else with the phrase's number: F-1.png."""
    return path if count == 1 else path.with_name(f"{path.stem}-{index}{path.suffix}")
