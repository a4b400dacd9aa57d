"""A warning where a model may have been trained on what it is measured on: by names and records, opening no data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deixis.data import parse_dataset_spec
from deixis.data.image_keys import COLLECTIONS
from deixis.data.mixed import MEASURED, read_record

_MAX_STARTS = 8
_COCO = frozenset(name for name, collection in COLLECTIONS.items() if collection == "coco")
_GOOGLE = frozenset({"refcocog-google", "refcoco-google"})


def leak_warning(trained: object, dataset: str | None = None, split: str | None = None) -> str | None:
    """One sentence where images measured on may be among those trained on; None where names show none.

    Names tell of public data sets only; for the user's own files ``deixis data leaks`` looks.

    Args:
        trained: the fields of a recipe, or the ``config.json`` of a checkpoint that holds them as ``recipe``. What it
            started from is followed through the checkpoints that are still there.
        dataset: the name of the data set to be measured on; None for all that papers measure on.
        split: its split.
    """
    targets = [f"{dataset}:{split}" if split else dataset] if dataset is not None else list(MEASURED)
    found: dict[str, list[str]] = {}
    for fields in _chain(_fields(trained)):
        for target in targets:
            reason = _reason(fields, target)
            if reason is not None:
                found.setdefault(reason, []).append(target)
    if not found:
        return None
    told = "; ".join(f"{reason} ({', '.join(dict.fromkeys(targets))})" for reason, targets in found.items())
    return f"images that are measured on may be among those trained on: {told}; look with: deixis data leaks"


def _chain(fields: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The recipe, and those of the checkpoints that it started from."""
    for _ in range(_MAX_STARTS):
        yield fields
        start = fields.get("start")
        if not isinstance(start, str) or not start:
            return
        try:
            fields = _fields(json.loads((Path(start) / "config.json").read_bytes()))
        except (OSError, ValueError, RecursionError):
            return


def _fields(trained: object) -> Mapping[str, Any]:
    fields = trained if isinstance(trained, Mapping) else getattr(trained, "__dict__", {})
    inner = fields.get("recipe")
    return inner if isinstance(inner, Mapping) else fields


def _reason(fields: Mapping[str, Any], target: str) -> str | None:
    dataset, split = parse_dataset_spec(target)
    weights = str(fields.get("image_weights") or "")
    if dataset in _COCO and "yolov3" in Path(weights).name.lower():
        return f"the detector {Path(weights).name!r} has seen all of COCO's train2014"
    phrased = fields.get("phrased")
    if not isinstance(phrased, str) or not phrased.strip():
        return None
    name, part = parse_dataset_spec(phrased)
    part = part or (None if Path(name).suffix else "train")
    if name == "mixed":
        return _mixed_reason(str(fields.get("root") or ""), target)
    if name == dataset:
        if part == split:
            return f"{phrased!r} is the split itself"
        return f"the splits of {name!r} divide things and not images" if name in _GOOGLE else None
    if {name, dataset} <= _COCO:
        return f"{phrased!r} has images of COCO too, split otherwise"
    if (name == "vg" and dataset in _COCO) or (dataset == "vg" and name in _COCO):
        return "about half of Visual Genome's images are COCO's"
    return None


def _mixed_reason(root: str, target: str) -> str | None:
    if target not in MEASURED:
        return None
    record = read_record(root)
    if record is None:
        return "the mix has no readable mix.json, which would tell what it left out"
    left_out = record.get("left_out_for")
    if not isinstance(left_out, list) or target not in left_out:
        return "the mix was made without leaving them out"
    return "of some images in the mix nothing tells which they are" if record.get("without_keys") else None
