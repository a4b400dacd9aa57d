"""Drawn scenes, augmented photos and training batches against committed figures, seed by seed.

Of each image the mean colours of 4 x 4 tiles are kept, which another version of Pillow moves by a grey level at most;
of each phrase its words, its box and how much its mask covers. Where a change is meant, rewrite them, and say why:

    DEIXIS_WRITE_GOLDEN=1 python -m pytest tests/data/test_pictures_golden.py
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deixis.data.batches import BatchShape, CanvasRules
from deixis.data.scenes import draw_scene
from deixis.geometry.masks import read_mask
from deixis.train.recipes import recipe
from deixis.train.setup import start_data

GOLDEN = Path(__file__).parent / "golden" / "pictures.json"
NO_SHARES = {"instances_share": 0.0, "partial_share": 0.0, "pseudo_share": 0.0, "scenes_share": 0.0}
NAMES = {"circle": "dog", "square": "car", "triangle": "cat", "star": "person", "heart": "cup"}
SQUASHED = CanvasRules(8, "nearest", 7, "squash")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A COCO file whose photos are drawn scenes, with masks, and each shape a category of COCO."""
    folder, images, annotations = tmp_path_factory.mktemp("photos"), [], []
    for index in range(12):
        pixels, samples = draw_scene("scenes", "train", index, 200, 1)
        pixels = pixels[: 150 + 4 * index]
        Image.fromarray(pixels).save(folder / f"{index}.png")
        images.append({"id": 2 + 14 * index, "file_name": f"{index}.png", "width": 200, "height": len(pixels)})
        for one in samples[0].instances:
            x1, y1, x2, y2 = one.box_xyxy_px
            if y2 >= len(pixels):
                continue
            category = list(NAMES.values()).index(NAMES.get(one.category, "cup"))
            annotations.append({"id": len(annotations), "image_id": images[-1]["id"], "category_id": category,
                                "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0,
                                "segmentation": polygon_of(read_mask(one.mask, (200, 200)))})  # fmt: skip
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES.values())]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return str(path)


def polygon_of(mask):
    """Along the left end of each row, and back along the right one."""
    rows = np.flatnonzero(mask.any(1))
    left = [(int(mask[row].argmax()), int(row)) for row in rows]
    right = [(int(mask.shape[1] - mask[row, ::-1].argmax()), int(row)) for row in rows]
    return [[float(value) for point in left + right[::-1] for value in point]]


def figures_of(batch):
    """What is kept of a batch."""
    images, side = batch.pixels.shape[:2]
    tiles = batch.pixels.reshape(images, 4, side // 4, 4, side // 4, 3).mean(axis=(2, 4))
    return {
        "tiles": tiles.round(1).tolist(),
        "content": batch.content.round(4).tolist(),
        "phrases": batch.phrases,
        "image_index": batch.image_index.tolist(),
        "boxes": batch.boxes.round(4).tolist(),
        "mask_shares": batch.masks.mean(axis=(1, 2)).round(4).tolist(),
        "present": batch.present.tolist(),
        "instances": np.column_stack([batch.boxed_index, batch.boxed_boxes.round(4), batch.boxed_labels]).tolist(),
        "things": np.column_stack([batch.thing_index, batch.thing_cells.argmax(1), batch.thing_labels]).tolist(),
        "complete": batch.complete.tolist(),
    }


def data_of(name, photos):
    """The data of a case by its name: what is drawn, or the augmentation of images that bring their phrases."""
    if name in ("scenes", "photos", "rehearsed"):
        mine = {
            "scenes": {**NO_SHARES, "scenes_share": 1.0},
            "photos": {**NO_SHARES, "instances": photos, "instances_share": 1.0, "paste_share": 0.6},
            "rehearsed": {"phrased": photos, "rehearsal": 0.5, "augment": "transvg", "one_per": "image"},
        }[name]
        return start_data(recipe("debug", **mine)), CanvasRules()
    augment, one_per = name.split("-")
    made = recipe("debug", phrased=photos, augment=augment, one_per=one_per)
    return start_data(made), SQUASHED if one_per == "expression" else CanvasRules()


CASES = [
    "scenes", "photos", "rehearsed", "mcn-referent", "smcim-referent", "smcim-expression", "transvg-image",
    "transvg-expression",
]  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_batches_when_drawn_by_seed_then_they_are_the_committed_ones(name, photos):
    source, rules = data_of(name, photos)
    shape = BatchShape(images=3, phrases=2, size=128, absent=0.6, rules=rules)
    found = [figures_of(source.batch(3, step, shape)) for step in range(2)]
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("DEIXIS_WRITE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({**golden, name: found}) + "\n")
        pytest.skip(f"wrote {name}")
    for ours, committed in zip(found, golden[name], strict=True):
        for key, tolerance in (("tiles", 2.0), ("boxes", 2e-3), ("content", 2e-3), ("mask_shares", 2e-3)):
            np.testing.assert_allclose(ours.pop(key), committed.pop(key), rtol=0, atol=tolerance, err_msg=key)
        for key in ("instances", "things"):
            np.testing.assert_allclose(ours.pop(key), committed.pop(key), rtol=0, atol=2e-3, err_msg=key)
        assert ours == committed
