"""Flickr30k Entities: ``Sentences/<image>.txt``, ``Annotations/<image>.xml`` and lists of images ``val.txt``.

A sentence marks its phrases, ``[/EN#283585/people Two young guys] with shaggy hair``; the number leads to the boxes of
that entity in the XML. Several boxes of one phrase are joined to one, as the papers do that report one box a phrase,
and ``kind`` says so: ``several``. An entity without a box (a scene, or something not visible) gives no sample, which
is reported.

A box in the XML counts pixels from 1 and both ends belong to it, so its edges here are xmin - 1, ymin - 1, xmax, ymax.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from deixis.data.annotation_fields import box_around, shorten, stated_hw
from deixis.data.formats import Format, Request
from deixis.data.formats.mdetr import SEVERAL
from deixis.data.table import SampleTable, TableWriter
from deixis.structures import BoxXyxy

SPLITS = ("train", "val", "test")
_MARK = b"[/EN#"
_PHRASE = re.compile(r"\[/EN#(\d{1,18})/([^\s\[\]]+)\s+([^\[\]]*)\]")
_FOLDERS = ("Flickr30kEntities", "flickr30k_entities", "flickr30k", "annotations", "flickr30k/annotations")
_MAX_BYTES = 4 * 2**20
_MAX_DEPTH = 20
_NUMBER = re.compile(r"\s*-?\d{1,9}(?:\.\d{1,9})?\s*")


def read_flickr30k(
    folder: str | Path,
    split: str = "val",
    images: str | Path | None = None,
    *,
    need_images: bool = False,
) -> SampleTable:
    """Open one split.

    Args:
        folder: the folder that holds ``Sentences``, ``Annotations`` and ``train.txt``, ``val.txt``, ``test.txt``, or
            the one above, where these are in ``Flickr30kEntities``, ``flickr30k_entities``, ``flickr30k`` or
            ``annotations``.
        split: out of `SPLITS`; ``all`` takes every file of sentences.
        images: the folder to look for the images below; by default the folder and the one above.
        need_images: whether to refuse to go on without images.

    Returns:
        A sample a marked phrase with a box. Its id is ``<image>-<sentence>-<phrase>``; the category is the entity's
        kind, such as people or clothing.

    Raises:
        FileNotFoundError: a file is not there, or none of the images where they are needed.
        ValueError: there is no such split, or nothing in it can be used.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"expected a split out of {', '.join(SPLITS)}, all, got {split!r}; choose one")
    base = _base(Path(folder))
    table = TableWriter(base)
    for name in _names(base, split):
        _add_image(table, base, name, "" if split == "all" else split)
    bases = [Path(images)] if images is not None else [base, base.parent]
    return table.finish(bases, need_images=need_images, what=f"phrases of the split {split!r}")


def _base(folder: Path) -> Path:
    for one in (folder, *(folder / name for name in _FOLDERS)):
        if (one / "Sentences").is_dir() and (one / "Annotations").is_dir():
            return one
    raise FileNotFoundError(
        f"expected the folders 'Sentences' and 'Annotations' of Flickr30k Entities in {str(folder)!r}, got none; "
        "unpack them there, or name the folder that holds them"
    )


def _names(base: Path, split: str) -> list[str]:
    if split == "all":
        return sorted((path.stem for path in (base / "Sentences").glob("*.txt")), key=lambda name: (len(name), name))
    path = next((one for folder in (base, base.parent) if (one := folder / f"{split}.txt").is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"expected the list of images '{split}.txt' in {str(base)!r}, got no file; put the release's list there, "
            "or read split 'all'"
        )
    names = path.read_text(encoding="utf-8-sig", errors="replace").split()
    return list(dict.fromkeys(name.removesuffix(".jpg") for name in names))


def _add_image(table: TableWriter, base: Path, name: str, split: str) -> None:
    if not re.fullmatch(r"[\w-]{1,80}", name):
        table.leave_out(f"image {shorten(name)}", "expected the number of an image; correct the list")
        return
    try:
        sentences = _read(base / "Sentences" / f"{name}.txt")
    except (OSError, ValueError) as error:
        table.leave_out(f"Sentences/{name}.txt", _reason(error, "expected sentences in UTF-8"))
        return
    found = list(_phrases(table, name, sentences))
    try:
        boxes = read_boxes(_read(base / "Annotations" / f"{name}.xml"))
    except (OSError, ValueError) as error:
        table.leave_out(f"Annotations/{name}.xml", _reason(error, "expected XML"), len(found))
        return
    place = table.image(int(name) if name.isdecimal() and name.isascii() else name, f"{name}.jpg", "flickr")
    without = 0
    for one in found:
        where = f"{name}, sentence {one.sentence}, phrase {one.number}"
        of_entity = boxes.boxes.get(one.entity)
        if of_entity is None:
            without += 1
            continue
        with table.telling(where):
            around = box_around(of_entity)
            table.add(
                place,
                one.phrase,
                around and table.inside(around, boxes.hw),
                name=f"{name}-{one.sentence}-{one.number}",
                split=split,
                category=one.kind.split("/")[0],
                kind=SEVERAL if len(of_entity) > 1 else None,
                referent=f"{name}-{one.entity}",
            )
    if without:
        table.leave_out(f"Annotations/{name}.xml", "no box for the entity of a phrase, such as a scene", without)
    table.problems += [f"Annotations/{name}.xml: {problem}" for problem in boxes.problems]


class _Phrase(NamedTuple):
    sentence: int
    number: int
    entity: str
    kind: str
    phrase: str


def _phrases(table: TableWriter, name: str, sentences: bytes) -> Iterator[_Phrase]:
    """The marked phrases; marks that cannot be read are reported."""
    for number, line in enumerate(sentences.removeprefix(b"\xef\xbb\xbf").split(b"\n")):
        where, marks = f"Sentences/{name}.txt, sentence {number}", line.count(_MARK)
        try:
            found = list(_PHRASE.finditer(line.decode("utf-8")))
        except UnicodeDecodeError:
            table.leave_out(where, f"expected text in UTF-8, got {shorten(line)}; get it again", marks or 1)
            continue
        for order, match in enumerate(found):
            yield _Phrase(number, order, match[1], match[2], match[3].strip())
        if marks > len(found):
            expected = f"expected each mark as [/EN#1/people a man], got {shorten(line)}; correct it"
            table.leave_out(where, expected, marks - len(found))


def _read(path: Path) -> bytes:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"expected at most {_MAX_BYTES} bytes, got more; check what file it is")
    return path.read_bytes()


def _reason(error: Exception, expected: str) -> str:
    if isinstance(error, OSError):
        return f"{expected}, got no file that can be read ({error.strerror}); add it"
    return f"{expected}, got something else ({error}); get it again" if isinstance(error, UnicodeError) else str(error)


class EntityBoxes(NamedTuple):
    """The boxes by entity, [x1, y1, x2, y2] in pixels of the image of ``hw`` (height, width)."""

    hw: tuple[int, int] | None
    boxes: dict[str, list[BoxXyxy]]
    problems: list[str]


def read_boxes(data: bytes) -> EntityBoxes:
    """Read an XML of annotations. A document type is refused before any entity of it could be opened.

    Raises:
        ValueError: it is no XML, declares a document type, or is nested too deep.
    """
    objects, size = _tree_of(data)
    found = EntityBoxes(stated_hw({name: text.strip() for name, text in size.items()}), {}, [])
    for number, one in enumerate(objects):
        if not one["bndbox"]:
            continue
        numbers = [one["bndbox"].get(side, "") for side in ("xmin", "ymin", "xmax", "ymax")]
        if not all(_NUMBER.fullmatch(value) for value in numbers) or not one["name"]:
            found.problems.append(
                f"object {number}: expected a name and a bndbox of four numbers, got {shorten(numbers)}; correct it"
            )
            continue
        x1, y1, x2, y2 = map(float, numbers)
        if x2 < x1 or y2 < y1:
            found.problems.append(f"object {number}: expected a box with an area, got {numbers!r}; correct or drop it")
            continue
        for entity in one["name"]:
            found.boxes.setdefault(entity, []).append((x1 - 1, y1 - 1, x2, y2))
    return found


def _tree_of(data: bytes) -> tuple[list[dict[str, dict[str, str]]], dict[str, str]]:
    """The objects of a document, each its names and its box, and the image's size."""
    objects: list[dict[str, dict[str, str]]] = []
    size: dict[str, str] = {}
    path: list[str] = []
    letters: list[str] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        letters.clear()
        if len(path) > _MAX_DEPTH:
            raise ValueError(f"expected XML at most {_MAX_DEPTH} deep, got deeper; get the file again")
        if path[1:] == ["object"]:
            objects.append({"name": {}, "bndbox": {}})

    def end(tag: str) -> None:
        text = "".join(letters).strip()
        if path[1:-1] == ["object"] and tag == "name" and text:
            objects[-1]["name"][text] = text
        elif path[1:-1] == ["object", "bndbox"]:
            objects[-1]["bndbox"][tag] = text
        elif path[1:-1] == ["size"]:
            size[tag] = text
        path.pop()
        letters.clear()

    def refuse(*_: object) -> None:
        raise ValueError("expected XML without a document type, got one, which was not opened; get another copy")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = letters.append
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError(f"expected XML, got something else ({error}); get it again") from error
    return objects, size


def _open(request: Request) -> SampleTable:
    return read_flickr30k(request.path, request.split or "val", request.images, need_images=request.need_images)


FORMAT = Format(
    read=_open,
    names=("flickr30k",),
    default_split="val",
    is_folder=lambda folder: (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir(),
)
