"""A data set written in another format, with a list of what that format cannot hold."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deixis.data.formats.image_folders import image_id_of
from deixis.data.formats.jsonl import write_jsonl
from deixis.files import atomic_folder, atomic_write, write_text
from deixis.geometry.images import image_hw
from deixis.geometry.masks import encode_rle, polygons_from_mask, read_mask
from deixis.structures import BoxXyxy, Instance, Mask, Sample

Record = dict[str, object]

FORMS = ("jsonl", "mdetr", "transvg", "transvg-xyxy", "seqtr", "mcn", "refer")
MASKS = ("keep", "rle", "polygons")
SUFFIXES = {".jsonl": "jsonl", ".pth": "transvg", ".txt": "mcn"}
"""The format by the suffix of a file; a .json may be of two."""
_KEEPS: dict[str, frozenset[str]] = {
    "jsonl": frozenset({"id", "image_id", "nothing", "mask", "split", "category", "kind"}),
    "mdetr": frozenset({"id", "image_id", "nothing", "mask", "split", "category", "kind"}),
    "transvg": frozenset(),
    "seqtr": frozenset({"id", "image_id", "mask", "split", "category", "kind"}),
    "mcn": frozenset({"mask"}),
    "refer": frozenset({"id", "image_id", "mask", "split", "category", "instances"}),
}
"""What a format holds beside image, phrase and box; ``nothing`` is a phrase that means nothing."""
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
        done.written = write_jsonl(out, (row.sample for row in chain([first], rows)))
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


class Row(NamedTuple):
    """A sample, the name of its image relative to the folder of images, and the image's (height, width)."""

    sample: Sample
    file: str
    hw: tuple[int, int]


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


def write_mdetr(out: Path, rows: Sequence[Row], report: Conversion) -> None:
    """COCO JSON with captions, see `deixis.data.formats.mdetr`; an image entry a sample."""
    names = dict.fromkeys(row.sample.category or "object" for row in rows)
    category_ids = {name: number for number, name in enumerate(names, start=1)}
    images: list[Record] = []
    annotations: list[Record] = []
    for number, (sample, file, hw) in enumerate(rows, start=1):
        image: Record = {"id": number, "file_name": file, "height": hw[0], "width": hw[1], "caption": sample.phrase}
        image |= {"original_img_id": sample.image_id, "dataset_name": "refexp", "sample_id": sample.id}
        optional = {"split": sample.split, "category": sample.category, "kind": sample.kind}
        images.append(image | {key: value for key, value in optional.items() if value})
        if sample.box_xyxy_px is None:
            continue
        x, y, w, h = to_xywh(sample.box_xyxy_px)
        thing: Record = {"id": len(annotations) + 1, "image_id": number, "bbox": [x, y, w, h], "area": w * h}
        thing |= {"iscrowd": 0, "category_id": category_ids[sample.category or "object"]}
        thing["tokens_positive"] = [[0, len(sample.phrase)]]
        annotations.append(thing if sample.mask is None else thing | {"segmentation": sample.mask})
    categories = [{"id": number, "name": name} for name, number in category_ids.items()]
    _write_json(out, {"images": images, "annotations": annotations, "categories": categories})
    report.written = len(rows)


def write_transvg(out: Path, rows: Sequence[Row], report: Conversion, *, corners: bool = False) -> None:
    """TransVG's .pth of tuples; the second field is the sample's id."""
    import torch

    tuples = [
        (file, sample.id, list(_box(sample) if corners else to_xywh(_box(sample))), sample.phrase, [])
        for sample, file, _ in rows
    ]
    if len({row.sample.id for row in rows}) < len(rows) or not all(row.sample.id.strip() for row in rows):
        report.lost["id"] += len(rows)
    buffer = io.BytesIO()
    torch.save(tuples, buffer)
    with atomic_write(out) as file:
        file.write(buffer.getvalue())
    report.written = len(rows)


def write_transvg_xyxy(out: Path, rows: Sequence[Row], report: Conversion) -> None:
    """The same with corners for boxes."""
    if "xyxy" not in out.stem and not out.stem.startswith(("referit", "flickr")):
        raise ValueError(
            f"expected a name with 'xyxy', or one that starts with referit, got {out.name!r}: readers know the form of "
            "the boxes by it; choose another name"
        )
    write_transvg(out, rows, report, corners=True)


def write_seqtr(out: Path, rows: Sequence[Row], report: Conversion) -> None:
    """SeqTR's and SimREC's instances.json; an entry a run of samples of one thing."""
    splits: dict[str, list[Record]] = {}
    for group in _runs(rows):
        sample, file, hw = group[0]
        entry: Record = {
            "image_id": _key(sample.image_id),
            "width": hw[1],
            "height": hw[0],
            "bbox": list(to_xywh(_box(sample))),
            "expressions": [row.sample.phrase for row in group],
            "ids": [row.sample.id for row in group],
            "file_name": file,
        }
        optional = {"mask": sample.mask, "category": sample.category, "kind": sample.kind}
        entry |= {key: value for key, value in optional.items() if value is not None}
        if not sample.split:
            report.lost["split: the samples of none are called train"] += len(group)
        splits.setdefault(sample.split or "train", []).append(entry)
    _write_json(out, splits)
    report.written = len(rows)


def write_mcn(out: Path, rows: Sequence[Row], report: Conversion) -> None:
    """MCN's text lines, with the masks as arrays in ``<out>.masks``."""
    lines: list[str] = []
    masks = out.with_name(f"{out.name}.masks")
    with atomic_folder(masks) as folder:
        for number, group in enumerate(_runs(rows), start=1):
            sample, file, hw = group[0]
            whole = ",".join(str(math.trunc(value)) for value in _whole_pixels(_box(sample)))
            sentences = [" ".join(row.sample.phrase.replace("~", " ").split()) for row in group]
            changed = sum(a != row.sample.phrase for a, row in zip(sentences, group, strict=True))
            if changed:
                report.lost["spaces and ~ in phrases"] += changed
            lines.append(f"{file} {whole},0,{number} ~ {' ~ '.join(sentences)}\n")
            if sample.mask is not None:
                np.save(folder / f"{number}.npy", read_mask(sample.mask, hw).astype(np.uint8))
        write_text(out, "".join(lines))
    if not any(masks.iterdir()):
        masks.rmdir()
    report.written = len(rows)


def write_refer(out: Path, rows: Sequence[Row], report: Conversion) -> None:
    """The two files of the `refer` release in the folder ``out``; a referent a run of samples of one thing."""
    document = _Document()
    refs: list[Record] = []
    for number, group in enumerate(_runs(rows), start=1):
        sample = group[0].sample
        annotation = document.add(group[0])
        sentences = [
            {"sent_id": _key(one.sample.id), "sent": one.sample.phrase, "raw": one.sample.phrase,
             "tokens": one.sample.phrase.split()}
            for one in group
        ]  # fmt: skip
        if not sample.split:
            report.lost["split: the samples of none are called train"] += len(group)
        if sample.category is None:
            report.lost["category: those without are called object"] += len(group)
        refs.append(
            {"ref_id": number, "ann_id": annotation, "image_id": _key(sample.image_id),
             "split": sample.split or "train",
             "category_id": document.category_ids[sample.category or "object"], "sentences": sentences,
             "sent_ids": [one["sent_id"] for one in sentences], "file_name": group[0].file}
        )  # fmt: skip
    out.mkdir(exist_ok=True)
    _write_json(out / "instances.json", document.whole())
    with atomic_write(out / "refs(unc).p") as file:
        file.write(pickle.dumps(refs, protocol=2))
    report.written = len(rows)


class _Document:
    """A release's instances.json as it grows."""

    def __init__(self) -> None:
        self.category_ids: dict[str, int] = {}
        self._images: dict[str, Record] = {}
        self._annotations: list[Record] = []
        self._known: dict[tuple[str, BoxXyxy, str, str], int] = {}

    def add(self, row: Row) -> int:
        """The id of the annotation that a sample means; the image's other things are added with it."""
        sample = row.sample
        if sample.image_id not in self._images:
            size: Record = {"height": row.hw[0], "width": row.hw[1]}
            self._images[sample.image_id] = {"id": _key(sample.image_id), "file_name": row.file, **size}
            for thing in sample.instances:
                self._annotation(sample.image_id, thing)
        category = sample.category or "object"
        meant = Instance(category=category, box_xyxy_px=_box(sample), mask=sample.mask)
        return self._annotation(sample.image_id, meant)

    def _annotation(self, image: str, thing: Instance) -> int:
        key = image, thing.box_xyxy_px, thing.category, repr(thing.mask)
        if key not in self._known:
            number = self._known[key] = len(self._annotations) + 1
            x, y, w, h = to_xywh(thing.box_xyxy_px)
            category = self.category_ids.setdefault(thing.category, len(self.category_ids) + 1)
            self._annotations.append(
                {"id": number, "image_id": _key(image), "category_id": category, "bbox": [x, y, w, h], "area": w * h,
                 "segmentation": [] if thing.mask is None or isinstance(thing.mask, Path) else thing.mask,
                 "iscrowd": int(thing.is_crowd)}
            )  # fmt: skip
        return self._known[key]

    def whole(self) -> Record:
        categories = [{"id": number, "name": name} for name, number in self.category_ids.items()]
        return {"images": list(self._images.values()), "annotations": self._annotations, "categories": categories}


def to_xywh(box: BoxXyxy) -> tuple[float, float, float, float]:
    """(x, y, width, height) whose sums give back the corners: to the last bit where they once were such sums."""
    x1, y1, x2, y2 = box
    return x1, y1, _extent(x1, x2), _extent(y1, y2)


def _extent(start: float, end: float) -> float:
    extent = end - start
    for nearby in (extent, math.nextafter(extent, math.inf), math.nextafter(extent, -math.inf)):
        if start + nearby == end:
            return nearby
    return extent


def _whole_pixels(box: BoxXyxy) -> tuple[int, int, int, int]:
    """As MCN's own lists: corner and size are each cut to whole pixels; a size of none becomes one pixel."""
    x, y, w, h = (math.trunc(value) for value in to_xywh(box))
    return x, y, x + max(w, 1), y + max(h, 1)


def _box(sample: Sample) -> BoxXyxy:
    assert sample.box_xyxy_px is not None
    return sample.box_xyxy_px


def _key(text: str) -> int | str:
    is_number = text.isascii() and text.isdigit() and len(text) < 19 and str(int(text)) == text
    return int(text) if is_number else text


def _runs(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Samples that follow each other and mean the same thing."""

    def meant(row: Row) -> tuple[object, ...]:
        one = row.sample
        return row.file, one.image_id, one.box_xyxy_px, one.split, one.category, one.kind, repr(one.mask)

    for _, group in itertools.groupby(rows, key=meant):
        yield list(group)


def _write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False))


WRITERS: dict[str, Callable[[Path, Sequence[Row], Conversion], None]] = {
    "mdetr": write_mdetr,
    "transvg": write_transvg,
    "transvg-xyxy": write_transvg_xyxy,
    "seqtr": write_seqtr,
    "mcn": write_mcn,
    "refer": write_refer,
}
"""By format; JSON lines are written as they come."""
