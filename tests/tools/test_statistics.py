"""Statistics of a data set, counted by hand, and the page of samples."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deixis.data import Samples
from deixis.structures import Sample
from deixis.tools.contact_sheet import PICTURE_PX, Card, facts_of, write_page
from deixis.tools.statistics import BINS, measure_dataset


def sample(number, phrase, box, image="a", **fields):
    pixels = np.zeros((100, 200, 3), np.uint8)
    return Sample(id=str(number), image=pixels, image_id=image, phrase=phrase, box_xyxy_px=box, **fields)


class Failing(Samples):
    """Its second sample cannot be read."""

    def __getitem__(self, index):
        if index == 1:
            raise ValueError("expected a sample, got none")
        return super().__getitem__(index)


@pytest.fixture
def samples():
    return Samples(
        [
            sample(0, "the left dog", (0, 0, 100, 50), category="dog", mask=[[0, 0, 9, 0, 9, 9]], split="val"),
            sample(1, "Left, dog!", (0, 0, 200, 100), category="dog", split="val"),
            sample(2, "a cat", (10, 10, 20, 20), image="b", category="cat", kind="plain"),
            sample(3, "zebra", None, image="b"),
        ]
    )


def test_measure_dataset_when_hand_counted_then_exact(samples):
    report = measure_dataset(samples).report()
    assert (report["samples"], report["images"], report["nothing_meant"], report["with_mask"]) == (4, 2, 1, 1)
    assert report["words"] == {
        "mean": 2.0, "median": 2.0, "least": 1, "most": 3, "histogram": {1: 1, 2: 2, 3: 1}
    }  # fmt: skip
    assert report["phrases_an_image"]["histogram"] == {2: 2}
    assert report["categories"] == {"dog": 2, "cat": 1}
    assert report["kinds"] == {"plain": 1}
    assert report["splits"] == {"val": 2, "": 2}
    assert report["phrases"]["says left"] == 0.5
    assert report["phrases"]["has an article"] == 0.5


def test_measure_dataset_when_boxes_are_known_then_sizes_and_shares(samples):
    found = measure_dataset(samples)
    assert found.sizes() == {"small": 1, "medium": 1, "large": 1}  # 100, 5,000 and 20,000 pixels
    assert found.side_shares == pytest.approx([0.5, 1.0, (100 / 20_000) ** 0.5])
    histogram = found.side_histogram()
    assert len(histogram) == BINS
    assert (histogram[10], histogram[BINS - 1], histogram[1], sum(histogram)) == (1, 1, 1, 3)


def test_measure_dataset_when_words_repeat_then_vocabulary(samples):
    vocabulary = measure_dataset(samples).report()["vocabulary"]
    assert (vocabulary["words"], vocabulary["once"]) == (6, 4)  # left and dog stand twice; the, a, cat, zebra once
    assert vocabulary["most"][:2] == [("left", 2), ("dog", 2)]
    assert (vocabulary["for_half"], vocabulary["for_90_percent"]) == (2, 6)


def test_measure_dataset_when_a_sample_or_an_image_cannot_be_read_then_counted(samples, tmp_path):
    done = []
    found = measure_dataset(Failing(list(samples)), lambda one, total: done.append((one, total)))
    assert (found.samples, found.left_out) == (3, 1)
    assert found.problems == ["sample 1: expected a sample, got none"]
    assert done == [(one, 4) for one in range(1, 5)]
    missing = Sample(id="0", image=tmp_path / "none.png", image_id="n", phrase="dog", box_xyxy_px=(0, 0, 5, 5))
    report = measure_dataset([missing, missing]).report()
    assert report["boxes"]["small"] == 2
    assert report["boxes"]["side_share"]["mean"] is None


def test_measure_dataset_when_the_data_knows_its_sizes_then_no_image_is_opened(tmp_path):
    class Sized(Samples):
        def image_hw(self, index):
            return (10, 10)

    missing = Sample(id="0", image=tmp_path / "none.png", image_id="n", phrase="dog", box_xyxy_px=(0, 0, 5, 5))
    assert measure_dataset(Sized([missing])).side_shares == [0.5]


def test_measure_dataset_when_empty_then_a_report_of_nothing():
    report = measure_dataset([]).report()
    assert report["samples"] == 0
    assert report["phrases"] == {}
    assert report["vocabulary"]["for_half"] == 0


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def page_of(*cards, title="t"):
    file = io.BytesIO()
    assert write_page(file, title, cards) == len(cards)
    return file.getvalue().decode("utf-8")


@pytest.mark.parametrize(
    "phrase", ['<script>alert("x")</script>', '" onerror="y', "&lt;b&gt; 'dög'", "a\ud800b", "{x}"]
)
def test_write_page_when_words_look_like_html_then_they_stay_words(phrase):
    picture = Image.new("RGB", (20, 10))
    text = page_of(Card(picture=picture, phrase=phrase, facts=(("id", phrase),)), title=phrase)
    page, shown = Page(text), phrase.replace("\ud800", "?")
    assert {tag for tag, _ in page.tags} <= set(
        "html head meta title style body h1 main figure img figcaption bdi dl dt dd".split()  # noqa: SIM905
    )
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert set(image) == {"src", "alt"}
    assert image["alt"] == shown
    assert page.words.count(shown) == 4  # title, heading, caption and fact


def test_write_page_when_written_then_it_stands_alone_and_pictures_are_small():
    text = page_of(Card(picture=Image.new("RGB", (2000, 1000), "red"), phrase="red"))
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/jpeg;base64,")
    assert "default-src 'none'" in text
    import base64

    with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as picture:
        assert picture.size == (PICTURE_PX, PICTURE_PX // 2)


def test_facts_of_when_nothing_is_meant_then_said():
    assert ("box", "nothing is meant") in facts_of(sample(3, "zebra", None))
    facts = dict(facts_of(sample(0, "dog", (0, 0, 100.25, 50), category="dog")))
    assert facts == {"id": "0", "image": "a", "category": "dog", "box": "0.0, 0.0, 100.2, 50.0", "mask": "none"}
