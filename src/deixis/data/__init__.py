"""Data sets: every one is a sequence of `Sample`, opened by its name or its path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from deixis.data import opening
from deixis.data.opening import REFER, Opener
from deixis.structures import Sample

SCENES = ("scenes", "scenes+", "scenesg")
"""Drawn on the fly; they need no files."""
PUBLIC = ("flickr30k", "vg", "grefcoco", "mixed")
"""Other public releases, read from a root."""
FORMS = ("transvg", "seqtr", "mdetr", "mcn", "hf")
"""Forms of files, by whose name the one file of a split below a root is read."""

_LIMIT_SEED = 0
_SPLIT = re.compile(r"[A-Za-z0-9_+-]+")


def open_dataset(
    name: str | Path, split: str | None = None, root: str | Path | None = None, limit: int | None = None
) -> Sequence[Sample]:
    """Open a data set as a sequence of samples.

    Args:
        name: ``scenes``, ``scenes+`` or ``scenesg``; or ``refcoco``, ``refcoco+``, ``refcocog-umd``,
            ``refcocog-google``, ``referit``, ``flickr30k``, ``vg``, ``grefcoco`` or ``mixed``, read from ``root``
            (docs/datasets.md says what to put there); or ``transvg``, ``seqtr``, ``mdetr``, ``mcn`` or ``hf``, for the
            one file of that form below ``root`` whose name tells the split; or a path: .jsonl; .pth of TransVG; .txt
            of MCN; .json of SeqTR, MDETR, gRefCOCO or Visual Genome, which its head tells, or else a COCO instances
            file, for whose instances phrases are written; or a folder of a release or of Hugging Face ``datasets``.
        split: for scenes ``train``, ``val``, ``testA`` or ``testB``, by default ``val``; for public releases the
            splits in `deixis.data.formats.refer.SPLITS`, by default ``val``; for COCO instances ``train``, ``val``,
            ``test`` or ``all``, by default ``test``, the images whose id is divisible by 7; for JSONL the lines that
            name this split, by default all lines.
        root: the folder of a public release; or that of the images of a file, by default beside the file. Others
            need none.
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
        return opener(text, split, root, limit)
    if Path(text).is_dir():
        return opening.open_folder(text, split, root, limit)
    known = f"{', '.join([*SCENES, *REFER, *PUBLIC, *FORMS])}, a path ending in .jsonl, .json, .pth or .txt, a folder"
    names = [*SCENES, *REFER, *PUBLIC, *FORMS]
    near = [one for one in names if one.startswith(f"{text}-")] or difflib.get_close_matches(text, names, n=1)
    hint = f"perhaps {' or '.join(map(repr, near))} is meant" if near else "choose one of these"
    raise ValueError(f"expected a data set out of {known}, got {text!r}; {hint}")


def default_split(name: str | Path) -> str | None:
    """The split that is opened where none is named; None where all lines are."""
    text, suffix = str(name), Path(name).suffix.lower()
    if suffix == ".json" and Path(name).is_file():
        return opening.default_json_split(text)
    return _DEFAULT_SPLITS.get(text) or _DEFAULT_SPLITS.get(suffix)


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

    return open_scenes(name, split or "val", n=limit)


def _open_lines(name: str, split: str | None, root: str | Path | None, limit: int | None) -> Sequence[Sample]:
    from deixis.data.formats.jsonl import ReadSamples, read_jsonl

    samples, problems = read_jsonl(name, split)
    if problems and not samples:
        wrong = sum(problem.startswith("line ") for problem in problems)
        told = next((problem for problem in problems if not problem.startswith("line ")), problems[0])
        raise ValueError(f"{name!r}, {told}" + (f"; lines that are wrong: {wrong}" if wrong else ""))
    return ReadSamples(_first_by_image(samples, limit), [f"{name!r}, {problem}" for problem in problems])


_OPENERS: dict[str, Opener] = {
    **dict.fromkeys(SCENES, _open_scenes),
    **dict.fromkeys(REFER, opening.open_refer_release),
    **dict.fromkeys((*PUBLIC, *FORMS), opening.open_public),
    ".jsonl": _open_lines,
    ".json": opening.open_json,
    ".pth": opening.open_torch,
    ".txt": opening.open_text,
}
"""By a data set's name, or by how its file's name ends."""
_DEFAULT_SPLITS = {
    "mixed": "train",
    **dict.fromkeys((*SCENES, *REFER, "flickr30k", "grefcoco"), "val"),
    "vg": "all",
    ".json": "test",
}


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
