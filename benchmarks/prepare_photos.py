"""Turn folders of photos with human expressions into what a recipe's ``phrased`` and ``pseudo_instances`` read.

    python benchmarks/prepare_photos.py FOLDER ... --out OUT

A folder holds ``refs.json`` (``images``; ``annotations`` with bbox x, y, w, h in pixels and a kind: ``referring`` with
an expression, ``person`` or ``instance``), the photos in ``images/`` or where an image's ``images_in`` says, relative
to a folder above, and perhaps ``pseudo_detections.json`` (a detector's boxes with scores). It writes

- OUT/human.jsonl: the expressions. Photos that a detector saw list their known things, unsure ones (0.2, told as
  crowds) too, so that what is not among them is surely absent.
- OUT/pseudo.json: COCO instances: persons as annotated, other things as detected (0.5 and more). Photos of
  ``images_in`` are left out: they have an instances file of their own.

Splits go by the photo's id, as `deixis.data.dataset.split_of` says. Prints how much was written.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from deixis.data.dataset import split_of
from deixis.geometry.boxes import box_iou
from deixis.structures import BoxXyxy

Record = dict[str, Any]
SURE, UNSURE = 0.5, 0.2
"""Scores: of a box that phrases are written for, and of one that forbids to call its category absent."""
SAME_CATEGORY, ANY_CATEGORY = 0.5, 0.7
"""IoU from which two boxes are one thing."""
MEANT = 0.6
"""IoU from which a known thing is what an expression means."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(json.dumps(prepare(args.folders, args.out), indent=2))


def prepare(folders: list[Path], out: Path) -> Record:
    """Write both files and return the counts, all together and of each folder."""
    lines: list[Record] = []
    photos: list[Record] = []
    counts: Record = {}
    for folder in folders:
        told, seen = read_folder(folder.resolve())
        lines += told
        photos += seen
        counts[folder.name] = {"expressions": len(told), "photos with boxes": len(seen)}
    document = coco_of(photos)
    out.mkdir(parents=True, exist_ok=True)
    (out / "human.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (out / "pseudo.json").write_text(json.dumps(document), encoding="utf-8")
    names = {one["id"]: one["name"] for one in document["categories"]}
    counts["human.jsonl"] = {
        "splits": dict(Counter(line["split"] for line in lines)),
        "with a category": sum("category" in line for line in lines),
        "with known things": sum("instances" in line for line in lines),
    }
    counts["pseudo.json"] = {
        "photos": dict(Counter(split_of(photo["id"]) for photo in photos)),
        "persons": sum(names[one["category_id"]] == "person" for one in document["annotations"]),
        "other things": sum(names[one["category_id"]] != "person" for one in document["annotations"]),
    }
    return counts


def read_folder(folder: Path) -> tuple[list[Record], list[Record]]:
    """A folder's expressions, as JSON lines, and its photos with the ``things`` for COCO instances."""
    document = json.loads((folder / "refs.json").read_text(encoding="utf-8"))
    by_image: dict[int, list[Record]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    detections = detections_of(folder / "pseudo_detections.json", {image["id"]: image for image in document["images"]})
    lines, photos = [], []
    for image in document["images"]:
        annotations = by_image[image["id"]]
        known = [
            thing_of(one, image) for one in annotations if one["kind"] != "referring" and box_of(one, image) is not None
        ]
        seen = None if detections is None else detections.get(image["id"], [])
        path = image_path(folder, image)
        unsure = without_doubles(known, seen or [], UNSURE, any_category=math.inf)
        sure = without_doubles(known, seen or [], SURE)
        referring = [one for one in annotations if one["kind"] == "referring" and box_of(one, image) is not None]
        lines += [line_of(one, image, path, sure, None if seen is None else unsure, folder.name) for one in referring]
        things = known + [one for one in sure[len(known) :] if one["category"] != "person"]
        if things and "images_in" not in image:
            photos.append({**image, "file_name": str(path), "things": things})
    return lines, photos


def detections_of(path: Path, images: dict[int, Record]) -> dict[int, list[Record]] | None:
    """The detector's things of each image, the surest first; None where it saw none of the folder's photos."""
    if not path.is_file():
        return None
    by_image: dict[int, list[Record]] = {}
    for one in sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda one: -one["score"]):
        image = images[one["image_id"]]
        if box_of(one, image) is not None:
            by_image.setdefault(image["id"], []).append(thing_of(one, image))
    return by_image


def image_path(folder: Path, image: Record) -> Path:
    """Where the photo lies; FileNotFoundError where it does not."""
    inside = image.get("images_in")
    places = [folder / "images"] if inside is None else [above / inside for above in folder.parents]
    for place in places:
        if (place / image["file_name"]).is_file():
            return place / image["file_name"]
    raise FileNotFoundError(f"expected the photo {image['file_name']!r} in {str(places[0])!r}, found none; bring it")


def box_of(annotation: Record, image: Record) -> BoxXyxy | None:
    """The box as xyxy in pixels, cut at the border; None where nothing is left of it."""
    x, y, width, height = annotation["bbox"]
    x1, y1 = max(0.0, float(x)), max(0.0, float(y))
    x2, y2 = min(float(image["width"]), x + width), min(float(image["height"]), y + height)
    return None if x1 >= x2 or y1 >= y2 else (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2))


def thing_of(annotation: Record, image: Record) -> Record:
    """Its category, box and score; an annotation of a person or an instance has the score 1."""
    return {
        "category": annotation["category"],
        "box": box_of(annotation, image),
        "score": float(annotation.get("score", 1.0)),
    }


def without_doubles(
    known: list[Record], seen: list[Record], least: float, any_category: float = ANY_CATEGORY
) -> list[Record]:
    """What is annotated, and after it what a detector saw with that score and lies on none of the ones before.

    ``any_category`` is the IoU from which things of two categories are one.
    """
    kept = [*known]
    for one in seen:
        limits = [SAME_CATEGORY if one["category"] == other["category"] else any_category for other in kept]
        overlaps = [overlap(one["box"], other["box"]) for other in kept]
        if one["score"] >= least and all(iou < limit for iou, limit in zip(overlaps, limits, strict=True)):
            kept.append(one)
    return kept


def overlap(one: BoxXyxy, other: BoxXyxy) -> float:
    """The IoU of two boxes."""
    return float(box_iou([one], [other]).max())


def line_of(
    annotation: Record, image: Record, path: Path, sure: list[Record], known: list[Record] | None, source: str
) -> Record:
    """The expression as a JSON line, with the category of the thing that lies where it points."""
    box = box_of(annotation, image)
    assert box is not None
    line: Record = {
        "image": str(path),
        "phrase": annotation["expression"],
        "box": box,
        "id": f"{source}-{annotation['id']}",
        "image_id": image["id"],
        "split": split_of(image["id"]),
    }
    iou, place = max(((overlap(box, one["box"]), -at) for at, one in enumerate(sure)), default=(0.0, 0))
    if category := annotation.get("category") or (sure[-place]["category"] if iou >= MEANT else None):
        line["category"] = category
    if known is not None:
        line["instances"] = [
            {"category": one["category"], "box": one["box"]} | ({} if one["score"] >= SURE else {"is_crowd": True})
            for one in known
        ]
    return line


def coco_of(photos: list[Record]) -> Record:
    """COCO instances: detected things with their score, annotated ones without."""
    names = sorted({thing["category"] for photo in photos for thing in photo["things"]})
    annotations = []
    for photo in photos:
        for thing in photo["things"]:
            x1, y1, x2, y2 = thing["box"]
            record = {
                "id": len(annotations) + 1,
                "image_id": photo["id"],
                "category_id": names.index(thing["category"]) + 1,
                "bbox": [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)],
            }
            annotations.append(record if thing["score"] == 1 else {**record, "score": thing["score"]})
    keys = ("id", "file_name", "width", "height")
    return {
        "images": [{key: photo[key] for key in keys} for photo in photos],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
    }


if __name__ == "__main__":
    main()
