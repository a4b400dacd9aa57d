"""Visual Genome's region descriptions: ``region_descriptions.json`` beside ``image_data.json``.

Five million phrases of regions. The file is read image by image. About half of the images are COCO's too;
`VisualGenome.coco_ids` tells which, so that those of a test split can be left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deixis.data.annotation_fields import four_numbers, shorten, stated_hw
from deixis.data.formats.image_folders import Key
from deixis.data.formats.json_stream import stream_json
from deixis.data.formats.refer_instances import read_key
from deixis.data.formats.sample_table import SampleTable
from deixis.data.photos import in_split

SPLITS = ("all", "train", "val", "test")
"""``all``, or by the image's id as `deixis.data.photos` has it: Visual Genome has no splits of its own."""


class _ImageData(NamedTuple):
    file_name: str
    hw: tuple[int, int] | None


class VisualGenome(SampleTable):
    """Samples of regions; ``coco_ids`` holds by ``Sample.image_id`` the id in COCO of the images that are there too."""

    coco_ids: dict[str, int]


def read_visual_genome(
    folder: str | Path,
    split: str = "all",
    images: str | Path | None = None,
    *,
    limit: int | None = None,
    need_images: bool = False,
) -> VisualGenome:
    """Read the regions.

    Args:
        folder: the folder with both files (or the ``region_descriptions.json`` itself); ``vg``, ``visual-genome`` or
            ``annotations`` below it is looked into too. Without ``image_data.json`` boxes are not cut at the border.
        split: out of `SPLITS`.
        images: the folder to look for ``VG_100K`` and ``VG_100K_2`` below; by default the folder and the one above.
        limit: at most so many samples, see `SampleTable.finish`.
        need_images: whether to refuse to go on without images.

    Raises:
        FileNotFoundError: there is no ``region_descriptions.json``, or no images where they are needed.
        ValueError: there is no such split, a file is malformed, or nothing in it can be used.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split out of {', '.join(SPLITS)}, got {split!r}; choose one")
    path = _regions_file(Path(folder))
    table = VisualGenome(path)
    table.coco_ids = {}
    known = _read_image_data(table, path.with_name("image_data.json"))
    for element in stream_json(path):
        if element.key or element.number is None:
            raise ValueError(f"expected a list of images in {str(path)!r}, got {element.where!r}; check the file")
        _add_image(table, element.where, element.value, known, split)
    bases = [Path(images)] if images is not None else [path.parent, path.parent.parent]
    table.finish(bases, limit=limit, need_images=need_images, what=f"regions of the split {split!r}")
    return table


def _regions_file(folder: Path) -> Path:
    if folder.suffix.lower() == ".json" and folder.is_file():
        return folder
    for name in ("", "vg", "visual-genome", "visual_genome", "VG", "annotations", "vg/annotations"):
        if (path := folder / name / "region_descriptions.json").is_file():
            return path
    raise FileNotFoundError(
        f"expected 'region_descriptions.json' in {str(folder)!r}, got none; put Visual Genome's file there, with "
        "'image_data.json' beside it"
    )


def _read_image_data(table: VisualGenome, path: Path) -> dict[Key, _ImageData]:
    known: dict[Key, _ImageData] = {}
    if not path.is_file():
        table.problems.append(
            f"expected {path.name!r} beside the regions, got none; without it nothing tells which images are COCO's"
        )
        return known
    for element in stream_json(path):
        try:
            record = element.value
            if not isinstance(record, dict):
                raise ValueError(f"expected a JSON object, got {shorten(record)}; correct it")
            image = read_key(record, "image_id" if "image_id" in record else "id")
            known[image] = _ImageData(_file_name(image, record.get("url")), stated_hw(record))
            if record.get("coco_id") is not None:
                coco = read_key(record, "coco_id")
                if isinstance(coco, str):
                    raise ValueError(f"expected a whole number as 'coco_id', got {coco!r}; correct it")
                table.coco_ids[str(image)] = coco
        except ValueError as error:
            table.problems.append(f"image_data {element.where}: {error}")
    return known


def _file_name(image: Key, url: object) -> str:
    """``VG_100K_2/1.jpg``, as the two folders of images unpack."""
    parts = url.split("/")[-2:] if isinstance(url, str) else []
    usable = len(parts) == 2 and parts[0] not in ("", ".", "..") and parts[1] == f"{image}.jpg" and "\0" not in parts[0]
    return "/".join(parts) if usable else f"{image}.jpg"


def _add_image(table: VisualGenome, where: str, record: object, known: dict[Key, _ImageData], split: str) -> None:
    regions = record.get("regions") if isinstance(record, dict) else None
    count = len(regions) if isinstance(regions, list) else 1
    told_split = "" if split == "all" else split
    with table.telling(where, count):
        if not isinstance(record, dict) or not isinstance(regions, list):
            raise ValueError(f"expected an object with a list 'regions', got {shorten(record)}; correct it")
        image = read_key(record, "id" if "id" in record else "image_id")
        if split != "all" and not (isinstance(image, int) and in_split(image, split)):
            return
        data = known.get(image) or _ImageData(f"{image}.jpg", None)
        place = table.image(image, data.file_name, "vg")
        for number, region in enumerate(regions):
            with table.telling(f"{where}, region {number}"):
                if not isinstance(region, dict):
                    raise ValueError(f"expected a JSON object, got {shorten(region)}; correct it")
                sides = [region.get(name) for name in ("x", "y", "width", "height")]
                x, y, w, h = four_numbers(sides, "x, y, width, height")
                box = table.inside((x, y, x + w, y + h), data.hw)
                name = read_key(region, "region_id" if "region_id" in region else "id")
                table.add(place, region.get("phrase"), box, name=name, split=told_split, referent=name)
