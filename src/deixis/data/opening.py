"""How data sets are opened: by their name, or by the path of a file or a folder."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from deixis.data.annotation_fields import shorten
from deixis.data.dataset import Dataset
from deixis.data.formats import Format, Request
from deixis.data.formats.json_stream import stream_json
from deixis.data.formats.refer import REFER

MODULES = (
    "packed",
    "formats.jsonl",
    "formats.grefcoco",
    "formats.refer",
    "formats.transvg",
    "formats.seqtr",
    "formats.mdetr",
    "formats.mcn_lines",
    "formats.flickr30k",
    "formats.visual_genome",
    "formats.hf_datasets",
    "formats.mixed",
    "formats.coco",
)
"""The modules of this package that have a ``FORMAT``; a folder goes to the first that recognises it."""
FORMATS: tuple[Format, ...] = tuple(import_module(f"deixis.data.{name}").FORMAT for name in MODULES)

SCENES = ("scenes", "scenes+", "scenesg")
"""Drawn on the fly; they need no files."""
NAMES = (*SCENES, *REFER, *(name for one in FORMATS for name in one.names if name not in REFER))

_BY_NAME = {name: one for one in FORMATS for name in one.names}
_BY_SUFFIX = {one.suffix: one for one in FORMATS if one.suffix}  # of .json the last: COCO instances
_MAX_HEAD = 20_000
_SPLIT = re.compile(r"[A-Za-z0-9_+-]+")


def open_dataset(
    name: str | Path, split: str | None = None, root: str | Path | None = None, limit: int | None = None
) -> Dataset:
    """Open a data set as a sequence of samples.

    Args:
        name: ``scenes``, ``scenes+`` or ``scenesg``; or ``refcoco``, ``refcoco+``, ``refcocog-umd``,
            ``refcocog-google``, ``referit``, ``flickr30k``, ``vg``, ``grefcoco`` or ``mixed``, read from ``root``
            (docs/datasets.md says what to put there); or ``transvg``, ``seqtr``, ``mdetr``, ``mcn`` or ``hf``, for the
            one file of that format below ``root`` whose name ends in the split; or a path: .jsonl; .pth of TransVG;
            .txt of MCN; .json of SeqTR, MDETR, gRefCOCO or Visual Genome, recognised by its first elements, or else a
            COCO instances file, for whose instances phrases are written; or a folder: a release, a pack, or of Hugging
            Face ``datasets``.
        split: for scenes ``train``, ``val``, ``testA`` or ``testB``, by default ``val``; for public releases the
            splits in `deixis.data.formats.refer.SPLITS`, by default ``val``; for COCO instances ``train``, ``val``,
            ``test`` or ``all``, by default ``test``, the images whose id is divisible by 7; for JSONL the lines that
            name this split, by default all lines.
        root: the folder of a public release; or that of the images of a file, by default beside the file. Others
            need none.
        limit: at most so many samples, see `Dataset.limit`. Drawn scenes are in random order already: there, the
            first.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the name, split or limit is unknown, or a file is wrong, or nothing in it is right; the sentence
            says where.

    What a file holds beside good samples is left out, with a sentence each in `Dataset.problems`.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"expected a limit of at least 1 sample, got {limit!r}; leave it out to take all")
    text, folder = str(name), None if root is None else Path(root)
    if text in SCENES:
        from deixis.data.scenes import open_scenes

        return open_scenes(text, split or "val", n=limit)
    if text in _BY_NAME:
        opened, path = _BY_NAME[text], _located(text, split, folder)
    else:
        opened, path = _format_of(text), Path(text)
    name = text if text in _BY_NAME else ""
    request = Request(path=path, name=name, split=split, images=folder, need_images=bool(name), limit=limit)
    return opened.read(request).limit(limit)


def default_split(name: str | Path) -> str | None:
    """The split that is opened where none is named; None where all samples are."""
    if str(name) in SCENES:
        return "val"
    try:
        return (_BY_NAME.get(str(name)) or _format_of(str(name))).default_split
    except (OSError, ValueError):  # opening says why
        return "test" if Path(name).suffix.lower() == ".json" else None


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


def _located(name: str, split: str | None, root: Path | None) -> Path:
    """What a name means below a root."""
    if root is None:
        raise ValueError(f"expected a root, the files' folder, got none for {name!r}; name it with root or --root")
    known = _BY_NAME[name]
    if known.locate is not None and (path := known.locate(root)) is not None:
        return path
    return _find_file(root, known.suffix, split or "val", f"{name} file") if known.suffix else root


def _format_of(text: str) -> Format:
    """The format of a path."""
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _json_format(path)
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if path.is_dir():
        found = next((one for one in FORMATS if one.is_folder is not None and one.is_folder(path)), None)
        if found is not None:
            return found
        raise ValueError(
            f"expected a folder with refs(*).p, grefs(unc).json, Sentences and Annotations, region_descriptions.json, "
            f".arrow or .parquet files, got {text!r} with {shorten(sorted(one.name for one in path.iterdir())[:8])}; "
            "name the file to read"
        )
    near = [one for one in NAMES if one.startswith(f"{text}-")] or difflib.get_close_matches(text, NAMES, n=1)
    hint = f"perhaps {' or '.join(map(repr, near))} is meant" if near else "choose one of these"
    raise ValueError(
        f"expected a data set out of {', '.join(NAMES)}, a path ending in {', '.join(_BY_SUFFIX)}, or a folder, got "
        f"{text!r}; {hint}"
    )


def _json_format(path: Path) -> Format:
    """The format whose mark comes first in a .json file; COCO's, whose reader says what is wrong, where none comes."""
    for number, element in enumerate(stream_json(path)):
        found = next((one for one in FORMATS if one.is_head is not None and one.is_head(element)), None)
        if found is not None:
            return found
        if number >= _MAX_HEAD:
            break
    return _BY_SUFFIX[".json"]


def _find_file(root: Path, suffix: str, split: str, what: str) -> Path:
    """The one file below a root whose name ends in the split and ``suffix``, or the only one with that suffix.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several; the sentence names them.
    """
    found = sorted(path for path in _below(root, suffix) if path.is_file())
    of_split = [path for path in found if path.stem == split or path.stem.endswith((f"_{split}", f"-{split}"))]
    chosen = of_split or (found if len(found) == 1 else [])
    if len(chosen) == 1:
        return chosen[0]
    names = shorten([path.relative_to(root).as_posix() for path in chosen or found])
    if not found:
        raise FileNotFoundError(f"expected a {what} ending in {suffix} below {str(root)!r}, got none; put it there")
    raise ValueError(f"expected one {what} of the split {split!r} below {str(root)!r}, got {names}; name its path")


def _below(root: Path, suffix: str) -> Iterator[Path]:
    return (path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}*{suffix}"))
