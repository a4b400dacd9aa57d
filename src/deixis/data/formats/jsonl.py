"""Samples as JSON lines: ``{"image", "phrase", "box": [x1, y1, x2, y2] | null, "mask"?, "id"?, "split"?}`` a line.

``image`` and a mask's file are relative to the file's folder. ``"box": null`` says that the phrase means nothing in
the image. Further keys that are read and written: ``image_id``, ``category``, ``kind``. Read alone is ``instances``,
``[{"category", "box", "is_crowd"?}, ...]``: all things that are known to be in the image, what is meant among them.
``is_crowd`` is true where it may be several things, or none for sure: it is a rival, and nothing is learnt of its box.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from deixis.data.annotation_fields import (
    Record,
    four_numbers,
    has_half_letters,
    mask_from_json,
    parse_json,
    record_of,
    shorten,
)
from deixis.data.dataset import Samples
from deixis.data.formats import Format, Request
from deixis.files import atomic_write
from deixis.structures import Instance, Sample, check_box


def read_jsonl(path: str | Path, split: str | None = None) -> tuple[list[Sample], list[str]]:
    """Read the samples of a file, and one sentence with its line number for each line that is wrong.

    Args:
        path: a file of JSON lines in UTF-8; blank lines are passed over.
        split: only the lines that name this split; None for all lines.

    Returns:
        The samples in the file's order, and the problems. A sample's id is its line number where it names none, its
        image_id the name of its image. Images and mask files are not opened.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of JSON lines, got {str(path)!r}, which is no file; check the path")
    samples: list[Sample] = []
    problems: list[str] = []
    splits: set[str] = set()
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            sample = sample_of_line(line, number, path.parent)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        splits.add(sample.split)
        if split is None or sample.split == split:
            samples.append(sample)
    if split is not None and splits and not samples:
        found = (
            f"the splits {sorted(splits)!r}; choose one of these" if splits != {""} else "lines without one; name none"
        )
        problems.append(f"expected lines of the split {split!r}, got {found}")
    return samples, problems


def write_jsonl(path: str | Path, samples: Iterable[Sample]) -> int:
    """Write the samples, whole or not at all: into a file beside ``path`` that then takes its place.

    Images and mask files under the file's folder are named relative to it, others by their absolute path. Annotated
    things other than the referent are not written.

    Returns:
        How many lines were written.

    Raises:
        ValueError: a sample's image is pixels and no file; ``path`` stays what it was.
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    count = 0
    with atomic_write(path) as file:
        for sample in samples:
            row = json.dumps(_record_of(sample, path.parent), ensure_ascii=False, allow_nan=False)
            file.write(row.encode("utf-8") + b"\n")
            count += 1
    return count


def sample_of_line(line: bytes, number: int, folder: Path) -> Sample:
    """The sample of one line, whose images lie in ``folder``; ValueError where it is none."""
    return _sample(_record(line), number, folder)


def _record(line: bytes) -> Record:
    try:
        value = parse_json(line.decode("utf-8"), unique_keys=True)
    except ValueError as error:
        raise ValueError(f"expected a JSON object in UTF-8, got {shorten(line)} ({error}); correct the line") from error
    return record_of(value)


def _sample(record: Record, number: int, folder: Path) -> Sample:
    image = _text(record, "image")
    if "box" not in record:
        raise ValueError("expected a 'box' [x1, y1, x2, y2], or null for a phrase that means nothing, got none; add it")
    box = None
    if record["box"] is not None:
        box = four_numbers(record["box"], "a box [x1, y1, x2, y2]")
        check_box(box)
    mask = None if record.get("mask") is None else mask_from_json(record["mask"], folder)
    if mask is not None and box is None:
        raise ValueError("expected no mask beside the box null, got one; add the box or drop the mask")
    return Sample(
        id=_name(record, "id") or str(number),
        image=folder / image,
        image_id=_name(record, "image_id") or image,
        phrase=_text(record, "phrase"),
        box_xyxy_px=box,
        mask=mask,
        split=_name(record, "split") or "",
        category=_name(record, "category"),
        kind=_name(record, "kind"),
        instances=_instances(record),
    )


def _instances(record: Record) -> tuple[Instance, ...]:
    stated = record.get("instances")
    if stated is None:
        return ()
    if not isinstance(stated, list) or not all(isinstance(one, dict) for one in stated):
        raise ValueError(f"expected a list of {{'category', 'box'}} as 'instances', got {shorten(stated)}; correct it")
    things = [cast(Record, one) for one in stated]
    box = "a box [x1, y1, x2, y2] in 'instances'"
    return tuple(
        Instance(
            category=_text(one, "category"),
            box_xyxy_px=four_numbers(one.get("box"), box),
            is_crowd=bool(one.get("is_crowd", False)),
        )
        for one in things
    )


def _text(record: Record, key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value or has_half_letters(value):
        raise ValueError(f"expected words as {key!r}, got {shorten(value)}; add them")
    return value


def _name(record: Record, key: str) -> str | None:
    """An optional text, or a whole number as text."""
    value = record.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or has_half_letters(str(value)):
        raise ValueError(f"expected text or a whole number as {key!r}, got {shorten(value)}; correct it")
    return str(value)


def _record_of(sample: Sample, folder: Path) -> Record:
    if not isinstance(sample.image, Path):
        raise ValueError(f"expected an image file in sample {sample.id!r}, got pixels; save the image first")
    record: Record = {
        "image": _relative(sample.image, folder),
        "phrase": sample.phrase,
        "box": None if sample.box_xyxy_px is None else [float(v) for v in sample.box_xyxy_px],
    }
    if sample.mask is not None:
        record["mask"] = _relative(sample.mask, folder) if isinstance(sample.mask, Path) else sample.mask
    record |= {"id": sample.id, "image_id": sample.image_id}
    optional = {"split": sample.split or None, "category": sample.category, "kind": sample.kind}
    return record | {key: value for key, value in optional.items() if value is not None}


def _relative(path: Path, folder: Path) -> str:
    whole, base = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return whole.relative_to(base).as_posix() if whole.is_relative_to(base) else str(whole)


def _read(request: Request) -> Samples:
    samples, problems = read_jsonl(request.path, request.split)
    name = repr(str(request.path))
    if problems and not samples:
        wrong = sum(problem.startswith("line ") for problem in problems)
        first = next((problem for problem in problems if not problem.startswith("line ")), problems[0])
        raise ValueError(f"{name}, {first}" + (f"; lines that are wrong: {wrong}" if wrong else ""))
    return Samples(samples, [f"{name}, {problem}" for problem in problems])


FORMAT = Format(read=_read, suffix=".jsonl")
