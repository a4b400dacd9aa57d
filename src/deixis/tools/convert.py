"""Samples of any data set into any form, with a list of what the form cannot hold."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from deixis.data.formats.image_folders import image_id_of
from deixis.data.formats.image_sizes import image_hw
from deixis.geometry.masks import encode_rle, polygons_from_mask, read_mask
from deixis.structures import Mask, Sample
from deixis.tools.convert_writers import WRITERS, Row, write_samples_jsonl

FORMS = ("jsonl", "mdetr", "transvg", "transvg-xyxy", "seqtr", "mcn", "refer")
MASKS = ("keep", "rle", "polygons")
SUFFIXES = {".jsonl": "jsonl", ".pth": "transvg", ".txt": "mcn"}
"""The form that a file's name tells; a .json may be of two."""
_KEEPS: dict[str, frozenset[str]] = {
    "jsonl": frozenset({"id", "image_id", "nothing", "mask", "split", "category", "kind"}),
    "mdetr": frozenset({"id", "image_id", "nothing", "mask", "split", "category", "kind"}),
    "transvg": frozenset(),
    "seqtr": frozenset({"id", "image_id", "mask", "split", "category", "kind"}),
    "mcn": frozenset({"mask"}),
    "refer": frozenset({"id", "image_id", "mask", "split", "category", "instances"}),
}
"""What a form holds beside image, phrase and box; ``nothing`` is a phrase that means nothing."""
_SPLIT_END = re.compile(r"(?:^|[_-])(trainval|train|val|testA|testB|test)$")


@dataclass
class Conversion:
    """What a conversion did: ``written + left_out`` is how many samples came; ``lost`` counts them by what is gone."""

    path: Path
    form: str
    images: Path | None
    """The folder to which the names of images are relative; None where the form names files by itself."""
    written: int = 0
    left_out: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.written} samples written to {self.path} as {self.form}, {self.left_out} left out"]
        if self.images is not None:
            lines.append(f"images are named relative to {self.images}: give it as the root when you read the file")
        lines += [f"lost: {what} ({count} samples)" for what, count in self.lost.most_common()]
        return "\n".join(lines if self.lost else [*lines, "nothing was lost"])


def convert(
    samples: Sequence[Sample],
    out: str | Path,
    form: str,
    *,
    images: str | Path | None = None,
    masks: str = "keep",
    pictures: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Write samples in another form, whole or not at all.

    Args:
        samples: of any data set.
        out: the file to write; for ``refer`` the folder, named as the release names it (``refcoco``), for
            ``refs(unc).p`` and ``instances.json``. For ``mcn`` the masks go into ``<out>.masks``.
        form: out of `FORMS`; ``transvg`` writes boxes as x, y, width, height.
        images: the folder to which images are named; by default the deepest that holds all.
        masks: ``keep`` them as they are, or write all as ``rle`` or as ``polygons``.
        pictures: a folder for the pixels of samples that have no image file, such as drawn scenes.
        progress: called with (done, total).

    Returns:
        What was written, left out and lost.

    Raises:
        ValueError: the form or the kind of masks is unknown, or nothing could be written; the sentence says why.
        OSError: the folder cannot be written to.
    """
    if form not in FORMS or masks not in MASKS:
        raise ValueError(f"expected a form out of {FORMS!r} and masks out of {MASKS!r}, got {(form, masks)!r}; choose")
    out = Path(out)
    base = None if form == "jsonl" else Path(images) if images is not None else _common_folder(samples, pictures)
    done = Conversion(out, form, base)
    run = _Run(done, masks, None if pictures is None else Path(pictures))
    rows = run.rows(samples, progress)
    first = next(rows, None)
    if first is None:
        why = done.problems[0] if done.problems else "there are none"
        raise ValueError(f"expected samples that {form} can hold, got none ({why}); choose another form")
    if form == "jsonl":
        write_samples_jsonl(out, (row.sample for row in chain([first], rows)), done)
    else:
        WRITERS[form](out, [first, *rows], done)
    return done


def _common_folder(samples: Sequence[Sample], pictures: str | Path | None) -> Path:
    """The deepest folder that holds all images; ``pictures`` counts where there are samples without a file."""
    folders: set[str] = set()
    for sample in samples:
        if isinstance(sample.image, Path):
            folders.add(os.path.abspath(sample.image.parent))
        elif pictures is not None:
            folders.add(os.path.abspath(pictures))
    try:
        return Path(os.path.commonpath(sorted(folders))) if folders else Path.cwd()
    except ValueError:  # on two drives
        raise ValueError("expected images on one drive, got several; name their folder with images") from None


class _Run:
    """One conversion: makes samples fit the form and counts."""

    def __init__(self, done: Conversion, masks: str, pictures: Path | None) -> None:
        self.done, self.masks, self.pictures = done, masks, pictures
        self.keeps = _KEEPS[done.form.removesuffix("-xyxy")]
        match = _SPLIT_END.search(done.path.stem)
        self.told_split = match[1] if match else ""
        self.sizes: dict[object, tuple[int, int]] = {}

    def rows(self, samples: Sequence[Sample], progress: Callable[[int, int], None] | None) -> Iterator[Row]:
        for number in range(len(samples)):
            try:
                sample = samples[number]
                row = self._row(sample)
            except (OSError, ValueError) as error:
                self.done.left_out += 1
                self.done.problems.append(f"sample {number}: {error}")
                continue
            finally:
                if progress is not None:
                    progress(number + 1, len(samples))
            yield row

    def _row(self, sample: Sample) -> Row:
        if sample.box_xyxy_px is None and "nothing" not in self.keeps:
            raise ValueError(f"expected a box, got none: {self.done.form} cannot say that a phrase means nothing")
        picture = sample.image if isinstance(sample.image, Path) else self._saved(sample)
        if self.done.form == "jsonl":
            file, hw = picture.name, (0, 0)
        else:
            file = _relative(picture, self.done.images or Path())
            hw = self._hw(picture)
        mask = self._mask(sample.mask, picture) if "mask" in self.keeps else None
        things = sample.instances if "instances" in self.keeps else ()
        if self.masks != "keep":
            things = tuple(replace(one, mask=self._mask(one.mask, picture)) for one in things)
        self._count_lost(sample, file)
        return Row(replace(sample, image=picture, mask=mask, instances=things), file, hw)

    def _saved(self, sample: Sample) -> Path:
        if self.pictures is None:
            raise ValueError(f"expected an image file in sample {sample.id!r}, got pixels; name a folder for pictures")
        from PIL import Image

        path = self.pictures / f"{re.sub(r'[^A-Za-z0-9_.+-]+', '_', sample.image_id)[:100] or 'image'}.png"
        if path not in self.sizes:
            self.pictures.mkdir(parents=True, exist_ok=True)
            assert not isinstance(sample.image, Path)
            Image.fromarray(sample.image).save(path)
            self.sizes[path] = image_hw(sample.image)
        return path

    def _hw(self, picture: Path) -> tuple[int, int]:
        if picture not in self.sizes:
            self.sizes[picture] = image_hw(picture)
        return self.sizes[picture]

    def _mask(self, mask: Mask | None, picture: Path) -> Mask | None:
        wants = self.masks if self.masks != "keep" else "rle" if isinstance(mask, Path) and self._inlines else "keep"
        is_there = {"keep": True, "rle": isinstance(mask, dict), "polygons": isinstance(mask, list)}[wants]
        if mask is None or is_there:
            return mask
        pixels = read_mask(mask, self._hw(picture))
        return encode_rle(pixels) if wants == "rle" else polygons_from_mask(pixels)

    @property
    def _inlines(self) -> bool:
        return self.done.form != "jsonl"

    def _count_lost(self, sample: Sample, file: str) -> None:
        lost, keeps = self.done.lost, self.keeps
        if "image_id" not in keeps and image_id_of(file) != sample.image_id:
            lost["image_id"] += 1
        if "split" not in keeps and sample.split != self.told_split:
            lost["split"] += 1
        if self.done.form == "mcn":
            lost["id"] += 1
            lost["box, cut to whole pixels"] += any(value != int(value) for value in sample.box_xyxy_px or ())
            lost["mask, drawn as pixels"] += sample.mask is not None
        for name in ("mask", "category", "kind"):
            lost[name] += name not in keeps and getattr(sample, name) not in (None, "")
        lost["the other things of the image"] += "instances" not in keeps and len(sample.instances) > 0
        for name in [name for name, count in lost.items() if not count]:
            del lost[name]


def _relative(picture: Path, base: Path) -> str:
    whole, folder = Path(os.path.abspath(picture)), Path(os.path.abspath(base))
    if not whole.is_relative_to(folder):
        raise ValueError(f"expected an image below {str(folder)!r}, got {str(whole)!r}; name another folder of images")
    return whole.relative_to(folder).as_posix()
