"""gRefCOCO: grefs(unc).json beside instances.json. A phrase may mean several instances, or none.

A phrase that means none becomes a sample without a box, as everywhere in Deixis. One that means several becomes a
sample with the box around all and the union of their masks, which is what REC and RES can ask of it, and its ``kind``
says so: ``several``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deixis.data.annotation_fields import box_around
from deixis.data.annotation_masks import PackedMask, merge_masks
from deixis.data.formats import Format, Request
from deixis.data.formats.coco import Annotation, CocoInstances
from deixis.data.formats.image_folders import folders_above
from deixis.data.formats.json_stream import Element, stream_json
from deixis.data.formats.refer import Expression, ImagePlaces, ReferReader, add_image
from deixis.data.table import SampleTable

SPLITS = ("train", "val", "testA", "testB")
KINDS = ("one", "several", "none")
REFERENCES = "grefs(unc).json"


def read_grefcoco(
    folder: str | Path, split: str = "val", images: str | Path | None = None, *, need_images: bool = False
) -> SampleTable:
    """Open one split.

    Args:
        folder: the folder with ``grefs(unc).json`` and ``instances.json``, or that ``.json`` of references itself.
        split: out of `SPLITS`.
        images: the folder to look for the images below; by default the folder and the two above.
        need_images: whether to refuse to go on without images.

    Returns:
        The sentences as samples; ``kind`` is out of `KINDS`.

    Raises:
        FileNotFoundError: a file is not there, or none of the images where they are needed.
        ValueError: there is no such split, a file is malformed, or nothing in it can be used.
    """
    if split not in SPLITS:
        raise ValueError(f"expected a split out of {', '.join(SPLITS)}, got {split!r}; choose one")
    path = Path(folder)
    path = path if path.suffix.lower() == ".json" else path / REFERENCES
    instances = path.parent / "instances.json"
    for one in (path, instances):
        if not one.is_file():
            raise FileNotFoundError(
                f"expected {REFERENCES!r} and 'instances.json' in {str(path.parent)!r}, got no {one.name!r} there; "
                "put the files of gRefCOCO there"
            )
    reader = ReferReader(path, split, several=True)
    expressions = reader.expressions(_references(path))
    coco = CocoInstances.read(instances, needed={one.image for one in expressions})
    places: dict[object, ImagePlaces] = {}
    for one in expressions:
        if reader.is_complete(one, coco):
            if one.image not in places:
                places[one.image] = add_image(reader.table, coco, one.image, "coco")
            _add(reader, one, coco, places[one.image])
    reader.tell_others(expressions, coco)
    table = reader.table
    table.clipped_boxes = coco.clipped_boxes
    if not table.problems and not len(table):
        table.problems.append(f"the splits there are {sorted(reader.splits)!r}")
    bases = [Path(images)] if images is not None else folders_above(path)
    return table.finish(bases, need_images=need_images, what=f"expressions of the split {split!r}")


def _references(path: Path) -> Iterator[object]:
    for element in stream_json(path):
        if element.number is not None and not element.key:
            yield element.value
        elif element.value != [] or element.key:
            raise ValueError(
                f"expected a list of references in {str(path)!r}, got a key {element.key[:40]!r}; check it"
            )


def _add(reader: ReferReader, one: Expression, coco: CocoInstances, places: ImagePlaces) -> None:
    meant = [coco.annotations[one.image][coco.places[one.image, annotation]] for annotation in one.annotations]
    categories = {annotation.category for annotation in meant}
    reader.table.add(
        places.image,
        one.phrase,
        box_around([annotation.box_xyxy_px for annotation in meant]),
        name=one.id,
        mask=reader.table.mask(_merged(meant, coco.by_id[one.image].hw)),
        group=places.group,
        split=reader.split,
        category=categories.pop() if len(categories) == 1 else None,
        kind=KINDS[0] if len(meant) == 1 else KINDS[1] if meant else KINDS[2],
        referent=one.referent,
    )


def _merged(meant: list[Annotation], hw: tuple[int, int]) -> PackedMask:
    """The union of the masks; where one cannot be drawn that one, so that whoever draws it learns why."""
    masks = [annotation.mask for annotation in meant]
    try:
        return merge_masks(masks, hw)
    except ValueError:
        return next(mask for mask in masks if not isinstance(mask, tuple))


def _read(request: Request) -> SampleTable:
    return read_grefcoco(request.path, request.split or "val", request.images, need_images=request.need_images)


def _is_head(element: Element) -> bool:
    value = element.value
    is_listed = element.number is not None and not element.key
    return is_listed and isinstance(value, dict) and "ann_id" in value and "sentences" in value


FORMAT = Format(
    read=_read,
    names=("grefcoco",),
    default_split="val",
    is_head=_is_head,
    is_folder=lambda folder: (folder / REFERENCES).is_file(),
    locate=lambda root: root if (root / REFERENCES).is_file() else root / "grefcoco",
)
