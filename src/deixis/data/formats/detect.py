"""Which reader a file or a folder is for, told from its head."""

from __future__ import annotations

from pathlib import Path

from deixis.data.annotation_fields import shorten
from deixis.data.formats.hf_datasets import is_hf_folder
from deixis.data.formats.json_stream import Element, stream_json
from deixis.data.formats.mdetr import is_captioned

_MAX_HEAD = 20_000


def json_form(path: str | Path) -> str:
    """The form of a JSON file: ``coco``, ``mdetr``, ``seqtr``, ``grefcoco`` or ``vg``.

    The first elements tell it; a file that is none of the others counts as ``coco``, whose reader says what is wrong.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: its beginning is no JSON.
    """
    for number, element in enumerate(stream_json(path)):
        form = _form_of(element)
        if form is not None:
            return form
        if number >= _MAX_HEAD:
            break
    return "coco"


def _form_of(element: Element) -> str | None:
    value = element.value
    if not isinstance(value, dict):
        return None
    if is_captioned(element):
        return "mdetr"
    if element.number is None:
        return None
    if element.key in ("images", "annotations", "categories"):
        return "coco" if element.key == "images" else None
    if "bbox" in value and ("expressions" in value or "refs" in value):
        return "seqtr"
    if not element.key and "regions" in value:
        return "vg"
    return "grefcoco" if not element.key and "ann_id" in value and "sentences" in value else None


def folder_form(folder: Path) -> str | None:
    """The form of a folder: ``refer``, ``grefcoco``, ``flickr30k``, ``vg`` or ``hf``; None for others."""
    if (folder / "grefs(unc).json").is_file():
        return "grefcoco"
    if any(folder.glob("refs(*).p")):
        return "refer"
    if (folder / "Sentences").is_dir() and (folder / "Annotations").is_dir():
        return "flickr30k"
    if (folder / "region_descriptions.json").is_file():
        return "vg"
    return "hf" if is_hf_folder(folder) else None


def find_file(root: Path, suffix: str, split: str, what: str) -> Path:
    """The one file below a root whose name ends in ``suffix`` and tells the split, or that stands alone.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several; the sentence names them.
    """
    found = sorted(path for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}*{suffix}") if path.is_file())
    of_split = [path for path in found if path.stem == split or path.stem.endswith((f"_{split}", f"-{split}"))]
    chosen = of_split or (found if len(found) == 1 else [])
    if len(chosen) == 1:
        return chosen[0]
    names = shorten([path.relative_to(root).as_posix() for path in chosen or found])
    if not found:
        raise FileNotFoundError(f"expected a {what} ending in {suffix} below {str(root)!r}, got none; put it there")
    raise ValueError(f"expected one {what} of the split {split!r} below {str(root)!r}, got {names}; name its path")
