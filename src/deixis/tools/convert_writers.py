"""How each form is written. A writer gets rows that the form can hold and tells what it had to change."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from deixis.data.formats.jsonl import write_jsonl
from deixis.files import atomic_write
from deixis.geometry.masks import read_mask
from deixis.structures import BoxXyxy, Instance, Sample

Record = dict[str, object]


class Row(NamedTuple):
    """A sample, the name of its image relative to the folder of images, and the image's (height, width)."""

    sample: Sample
    file: str
    hw: tuple[int, int]


class Report(Protocol):
    """Where a writer tells what it did."""

    written: int
    lost: Counter[str]


def write_samples_jsonl(out: Path, samples: Iterable[Sample], report: Report) -> None:
    """JSON lines, see `deixis.data.formats.jsonl`."""
    report.written = write_jsonl(out, samples)


def write_mdetr(out: Path, rows: Sequence[Row], report: Report) -> None:
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


def write_transvg(out: Path, rows: Sequence[Row], report: Report, *, corners: bool = False) -> None:
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


def write_transvg_xyxy(out: Path, rows: Sequence[Row], report: Report) -> None:
    """The same with corners for boxes."""
    if "xyxy" not in out.stem and not out.stem.startswith(("referit", "flickr")):
        raise ValueError(
            f"expected a name with 'xyxy', or one that starts with referit, got {out.name!r}: readers know the form of "
            "the boxes by it; choose another name"
        )
    write_transvg(out, rows, report, corners=True)


def write_seqtr(out: Path, rows: Sequence[Row], report: Report) -> None:
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


def write_mcn(out: Path, rows: Sequence[Row], report: Report) -> None:
    """MCN's text lines, with the masks as arrays in ``<out>.masks``."""
    lines: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".part", dir=out.parent))
    try:
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
        with atomic_write(out) as target:
            target.write("".join(lines).encode("utf-8"))
        _replace_folder(folder, out.with_name(f"{out.name}.masks"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.written = len(rows)


def write_refer(out: Path, rows: Sequence[Row], report: Report) -> None:
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
    with atomic_write(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def _replace_folder(fresh: Path, path: Path) -> None:
    """Put the files of ``fresh`` in the place of the folder ``path``; none where there are none."""
    if path.is_dir():
        shutil.rmtree(path)
    if any(fresh.iterdir()):
        os.replace(fresh, path)
        path.chmod(0o755)


WRITERS: dict[str, Callable[[Path, Sequence[Row], Report], None]] = {
    "mdetr": write_mdetr,
    "transvg": write_transvg,
    "transvg-xyxy": write_transvg_xyxy,
    "seqtr": write_seqtr,
    "mcn": write_mcn,
    "refer": write_refer,
}
"""By form; JSON lines are written as they come."""
