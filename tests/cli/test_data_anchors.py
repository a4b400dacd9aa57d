"""``deixis data anchors``: what it prints, and how it ends."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.structures import Sample


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def pairs(tmp_path):
    """Eight boxes in two photos of 104 x 52 pixels, four times smaller than the canvas: two shapes and a stray."""
    Image.fromarray(np.zeros((52, 104, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((52, 104, 3), np.uint8)).save(tmp_path / "b.png")
    rows = [
        {"image": image, "phrase": "dog", "box": [x, 5, x + width, 5 + height], "split": split}
        for image, split in (("a.png", "train"), ("b.png", "val"))
        for x, width, height in ((0, 10, 20), (30, 10, 20), (40, 11, 19), (50, 40, 10))
    ]
    rows.append({"image": "a.png", "phrase": "unicorn", "box": None, "split": "train"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_anchors_json_when_boxes_are_known_then_their_shapes_on_the_canvas(pairs):
    result = run("data", "anchors", pairs, "--number", 2, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert set(found) == {"dataset", "split", "n", "size", "anchors", "shares", "mean_iou"}
    assert found["dataset"] == str(pairs)
    assert found["split"] is None
    assert (found["n"], found["size"]) == (8, 416)
    assert found["anchors"] == [[40.0, 80.0], [160.0, 40.0]]
    assert found["shares"] == [0.75, 0.25]
    # six boxes equal their anchor, two are 11 x 19 against 10 x 20: 190 shared of 200 + 209 - 190
    assert found["mean_iou"] == pytest.approx((6 + 2 * 190 / 219) / 8)


def test_anchors_when_split_and_size_are_given_then_of_that_split_on_that_canvas(pairs):
    found = json.loads(run("data", "anchors", f"{pairs}:val", "--number", 2, "--size", 208, "--json").stdout)
    assert (found["split"], found["n"]) == ("val", 4)
    assert found["anchors"] == [[20.0, 40.0], [80.0, 20.0]]


def test_anchors_when_printed_then_a_table_and_the_mean_iou(pairs):
    result = run("data", "anchors", pairs, "--number", 2)
    assert result.exit_code == 0
    for word in ("40.0", "160.0", "75.0%", "8 boxes on a canvas of 416 pixels"):
        assert word in result.stdout


def test_anchors_when_scenes_then_the_default_split_and_the_same_twice():
    first, again = (run("data", "anchors", "scenes", "--limit", 12, "--json").stdout for _ in range(2))
    assert first == again
    found = json.loads(first)
    assert (found["split"], found["n"], len(found["anchors"])) == ("val", 12, 3)


def test_anchors_when_coco_instances_and_root_then_its_images_are_found(pairs, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (52, 104, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    boxes = [[2, 10, 25, 30], [60, 10, 40, 20]]
    document = {
        "images": [{"id": 7, "file_name": "c.png", "height": 52, "width": 104}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 1, "bbox": box, "iscrowd": 0} for i, box in enumerate(boxes)
        ],
    }
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "instances.json").write_text(json.dumps(document))
    result = run("data", "anchors", folder / "instances.json", "--root", tmp_path, "--number", 2, "--json")
    assert json.loads(result.stdout)["anchors"] == [[100.0, 120.0], [160.0, 80.0]]


def test_anchors_when_more_than_boxes_of_different_shape_then_one_sentence(pairs):
    result = run("data", "anchors", pairs, "--number", 4)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("deixis: expected")
    assert "got 4 for 3" in line


def test_anchors_when_lines_and_images_are_wrong_then_told_and_left_out(pairs):
    missing = [{"image": f"gone{i}.png", "phrase": "cat", "box": [0, 0, 5, 5]} for i in range(6)]
    with pairs.open("a") as file:
        file.write("{not json\n" + "".join(json.dumps(row) + "\n" for row in missing))
    result = run("data", "anchors", pairs, "--number", 2, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["n"] == 8
    told = result.stderr.splitlines()
    assert len(told) == 6
    assert "line 10" in told[0]
    assert "gone0.png" in told[1]
    assert told[-1] == "deixis: and 2 more left out"


@pytest.fixture
def quick_scenes(monkeypatch):
    """Drawn scenes of which one costs nothing."""
    image = np.zeros((64, 64, 3), np.uint8)

    def draw(name, split, index, size=256, **_options):
        box = (0.0, 0.0, 10.0 + index % 7, 20.0 + index % 5)
        return Sample(id=str(index), image=image, image_id=str(index), phrase="dog", box_xyxy_px=box)

    monkeypatch.setattr("deixis.data.scenes.draw_sample", draw)


def test_anchors_when_a_hundred_thousand_scenes_could_be_drawn_then_two_thousand_are_and_it_says_so(quick_scenes):
    result = run("data", "anchors", "scenes:train", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n"] == 2000
    assert "deixis: drawing 2000 of 100000 scenes; --limit sets how many" in result.stderr.splitlines()


@pytest.mark.parametrize(("arguments", "n"), [(["scenes:train", "--limit", 2500], 2500), (["scenes:val"], 1000)])
def test_anchors_when_the_limit_is_named_or_there_are_fewer_then_all_of_them(quick_scenes, arguments, n):
    result = run("data", "anchors", *arguments, "--json")
    assert json.loads(result.stdout)["n"] == n
    assert "--limit" not in result.stderr


@pytest.mark.parametrize("options", [["--number", "0"], ["--size", "0"], ["--limit", "0"], ["--number", "many"]])
def test_anchors_when_usage_is_wrong_then_status_2(options):
    assert run("data", "anchors", "scenes", *options).exit_code == 2


def test_anchors_when_name_is_unknown_then_one_sentence():
    result = run("data", "anchors", "nowhere")
    assert result.exit_code == 1
    assert "nowhere" in result.stderr
