"""Data sets: every one is a sequence of `Sample`, opened by its name or its path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from deixis.structures import Sample

SCENES = ("scenes", "scenes+", "scenesg")
"""Drawn on the fly; they need no files."""
REFER = {
    "refcoco": ("refcoco", "unc"),
    "refcoco+": ("refcoco+", "unc"),
    "refcocog-umd": ("refcocog", "umd"),
    "refcocog-google": ("refcocog", "google"),
    "referit": ("refclef", "berkeley"),
}
"""Data sets of the `refer` release: the folder below the root, and who made the splits."""
PUBLIC = ("flickr30k", "vg", "mixed")
"""Public releases, whose readers are still to come."""

_LIMIT_SEED = 0
_SPLIT = re.compile(r"[A-Za-z0-9_+-]+")


def open_dataset(
    name: str | Path, split: str | None = None, root: str | Path | None = None, limit: int | None = None
) -> Sequence[Sample]:
    """Open a data set as a sequence of samples.

    Args:
        name: ``scenes``, ``scenes+`` or ``scenesg``; or ``refcoco``, ``refcoco+``, ``refcocog-umd``,
            ``refcocog-google`` or ``referit``, read from ``root`` (docs/datasets.md says what to put there); or a path
            ending in .jsonl; or a path to a COCO instances file ending in .json, for whose instances phrases are
            written.
        split: for scenes ``train``, ``val``, ``testA`` or ``testB``, by default ``val``; for public releases the
            splits in `deixis.data.refer.SPLITS`, by default ``val``; for COCO instances ``train``, ``val``, ``test``
            or ``all``, by default ``test``, the images whose id is divisible by 7; for JSONL the lines that name this
            split, by default all lines.
        root: the folder of a public release; or that of the images of a COCO instances file, by default beside the
            file. Others need none.
        limit: at most so many samples: the first of a seeded shuffle of the images, so the same at every call, and
            all phrases of an image stay together. Drawn scenes are in random order already: there, the first.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the name, split or limit is unknown, or a file is wrong, or nothing in it is right; the sentence
            says where.

    What a file holds beside good samples is left out and told, a sentence each, in ``problems`` of the sequence.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least 1 sample, got {limit!r}; leave it out to take all")
    text = str(name)
    opener = _OPENERS.get(text) or _OPENERS.get(Path(text).suffix.lower())
    if opener is not None:
        return opener(text, split or default_split(text), root, limit)
    known = f"{', '.join([*SCENES, *REFER])}, a path ending in .jsonl or a COCO instances file ending in .json"
    why = "has no reader yet" if text in PUBLIC else "is none of them"
    raise ValueError(f"expected a data set out of {known}, got {text!r}, which {why}; choose one of these")


def default_split(name: str | Path) -> str | None:
    """The split that is opened where none is named; None where all lines are."""
    return _DEFAULT_SPLITS.get(str(name)) or _DEFAULT_SPLITS.get(Path(name).suffix.lower())


def parse_dataset_spec(spec: str) -> tuple[str, str | None]:
    r"""Split DATASET[:SPLIT] into name and split; the split is None where none is named.

    A colon belongs to the path where it follows a drive's letter, or where what follows is no word.

    >>> parse_dataset_spec("scenes+:testA")
    ('scenes+', 'testA')
    >>> parse_dataset_spec(r"C:\data\instances.json:test")
    ('C:\\data\\instances.json', 'test')
    >>> parse_dataset_spec("C:/data/pairs.jsonl")
    ('C:/data/pairs.jsonl', None)

    Raises:
        ValueError: the name or, after a colon at the end, the split is empty.
    """
    name, colon, split = spec.rpartition(":")
    if not spec.strip() or (colon and not (name.strip() and split.strip())):
        raise ValueError(f"expected DATASET or DATASET:SPLIT, such as scenes:val, got {spec!r}; name both parts")
    is_drive = len(name) == 1 and name.isalpha()
    if not colon or is_drive or not _SPLIT.fullmatch(split):
        return spec, None
    return name, split


def _open_scenes(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.scenes import open_scenes

    assert split is not None
    return open_scenes(name, split, n=limit)


def _open_refer(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.refer import open_refer

    assert split is not None
    dataset, split_by = REFER[name]
    if root is None:
        raise ValueError(
            f"expected a root, the folder that holds {dataset!r} and the images, got none for {name!r}; "
            "name it with root or --root"
        )
    return open_refer(root, dataset, split_by, split, limit=limit)


def _open_lines(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.jsonl import ReadSamples, read_jsonl

    samples, problems = read_jsonl(name, split)
    if problems and not samples:
        raise ValueError(f"{name!r}, {problems[0]}; lines that are wrong: {len(problems)}")
    return ReadSamples(_first_by_image(samples, limit), [f"{name!r}, {problem}" for problem in problems])


def _open_written(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.written import WrittenPhrases

    assert split is not None
    return WrittenPhrases(name, root, split=split, limit=limit)


_Opener = Callable[[str, str | None, str | Path | None, int | None], Sequence[Sample]]
_OPENERS: dict[str, _Opener] = {
    **dict.fromkeys(SCENES, _open_scenes),
    **dict.fromkeys(REFER, _open_refer),
    ".jsonl": _open_lines,
    ".json": _open_written,
}
"""By a data set's name, or by how its file's name ends: (name, split, root, limit) -> samples."""
_DEFAULT_SPLITS = {**dict.fromkeys((*SCENES, *REFER), "val"), ".json": "test"}


def _first_by_image(samples: list[Sample], limit: int | None) -> list[Sample]:
    if limit is None:
        return samples
    import numpy as np

    by_image: dict[str, list[Sample]] = {}
    for sample in samples:
        by_image.setdefault(sample.image_id, []).append(sample)
    groups = list(by_image.values())
    order = np.random.default_rng(_LIMIT_SEED).permutation(len(groups))
    return [sample for i in order for sample in groups[i]][:limit]
