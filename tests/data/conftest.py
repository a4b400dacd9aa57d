"""Photos of a red cup and a blue dog, and the COCO file that annotates them."""

import json

import numpy as np
import pytest
from PIL import Image

RED, BLUE, GRASS = (200, 30, 30), (30, 40, 200), (90, 140, 80)


def save_photo(folder, image_id):
    """A red cup on the left, a blue dog on the right, 120 x 80 pixels."""
    pixels = np.full((80, 120, 3), GRASS, np.uint8)
    pixels[20:60, 10:50] = RED
    pixels[10:70, 70:110] = BLUE
    Image.fromarray(pixels).save(folder / f"{image_id}.png")
    return pixels


def _annotations(image_id):
    cup = {"category_id": 1, "bbox": [10, 20, 40, 40], "segmentation": [[10, 20, 50, 20, 50, 60, 10, 60]]}
    dog = {"category_id": 2, "bbox": [70, 10, 40, 60]}
    return [
        {"id": 2 * image_id + n, "image_id": image_id, "area": 1600, "iscrowd": 0, **thing}
        for n, thing in enumerate((cup, dog))
    ]


def write_coco(folder, image_ids):
    images = folder / "images"
    images.mkdir()
    for image_id in image_ids:
        save_photo(images, image_id)
    path = folder / "instances.json"
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 120, "height": 80, "license": 4} for i in image_ids],
        "annotations": [a for i in image_ids for a in _annotations(i)],
        "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "dog"}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco_of(tmp_path):
    """Writes a COCO file of photos with these ids."""
    return lambda image_ids: write_coco(tmp_path, image_ids)


@pytest.fixture
def photo_file(tmp_path):
    """The photo 3.png of 120 x 80 pixels alone."""
    save_photo(tmp_path, 3)
    return tmp_path / "3.png"


@pytest.fixture
def coco_json(tmp_path):
    return write_coco(tmp_path, [1, 2, 7, 8, 14, 15])
