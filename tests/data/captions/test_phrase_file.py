import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deixis.data.captions.phrase_file import choose_like_people, phrase_weight, write_phrase_file
from deixis.data.captions.writing import Phrase
from deixis.data.formats.jsonl import read_jsonl

LONG = "the black dog that is next to the small wooden chair"


@pytest.fixture
def coco_file(tmp_path):
    pixels = np.full((100, 200, 3), 90, np.uint8)
    pixels[20:80, 10:80] = (220, 20, 20)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    images = [{"id": i, "file_name": name, "width": 200, "height": 100} for i, name in ((1, "a.png"), (2, "none.png"))]
    boxes = [(1, [10, 20, 70, 60]), (1, [120, 20, 70, 60]), (2, [10, 20, 70, 60])]
    annotations = [{"image_id": i, "category_id": 3, "bbox": box} for i, box in boxes]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]}
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_write_phrase_file_when_an_image_is_missing_then_its_phrases_have_no_colour(coco_file, tmp_path):
    done = []
    out = tmp_path / "phrases.jsonl"
    summary = write_phrase_file(coco_file, out, per_instance=8, progress=lambda n, of: done.append((n, of)))
    samples, problems = read_jsonl(out)

    assert problems == []
    assert len(samples) == summary.phrases > 3
    assert any("red" in s.phrase.split() for s in samples if s.image_id == "1")
    assert not any("red" in s.phrase.split() for s in samples if s.image_id == "2")
    assert (summary.images, summary.instances, summary.large_enough, summary.described) == (2, 3, 3, 3)
    assert summary.without_colours == 1
    assert len(summary.problems) == 1
    assert done == [(1, 2), (2, 2)]
    assert {s.box_xyxy_px for s in samples if s.image_id == "2"} == {(10.0, 20.0, 80.0, 80.0)}
    assert len({s.id for s in samples}) == len(samples)


def test_write_phrase_file_when_written_then_each_line_names_its_images_split(coco_file, tmp_path):
    document = json.loads(coco_file.read_text())
    for number, record in enumerate((document["images"][1], document["annotations"][2])):
        record["id" if number == 0 else "image_id"] = 7
    coco_file.write_text(json.dumps(document))
    write_phrase_file(coco_file, tmp_path / "out.jsonl")

    assert {s.image_id for s in read_jsonl(tmp_path / "out.jsonl", "test")[0]} == {"7"}
    assert {s.image_id for s in read_jsonl(tmp_path / "out.jsonl", "val")[0]} == {"1"}


def test_write_phrase_file_when_one_category_then_every_phrase_has_a_noun(coco_file, tmp_path):
    write_phrase_file(coco_file, tmp_path / "out.jsonl", per_instance=20)
    phrases = [s.phrase for s in read_jsonl(tmp_path / "out.jsonl")[0]]

    assert all("car" in phrase.split() for phrase in phrases), phrases


def test_write_phrase_file_when_seeded_then_the_same_file(coco_file, tmp_path):
    first, second, other = (tmp_path / f"{n}.jsonl" for n in range(3))
    for out, seed in ((first, 5), (second, 5), (other, 6)):
        write_phrase_file(coco_file, out, seed=seed)

    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes() != other.read_bytes()


def test_write_phrase_file_when_compared_then_the_summary_prints_both_columns(coco_file, tmp_path):
    human = tmp_path / "human.csv"
    human.write_text("expression\nleft car\nthe red one\n", encoding="utf-8")
    summary = write_phrase_file(coco_file, tmp_path / "out.jsonl", compare=human)

    assert "words, mean" in str(summary)
    assert "could not be read" in str(summary)
    assert str(summary).startswith(f"{summary.phrases} phrases for 3 of 3 instances")


# the choice among candidates


def test_phrase_weight_when_by_hand_then_place_and_short_count_less_and_long_more():
    assert phrase_weight("black dog") == 0.5
    assert phrase_weight("left dog") == 0.5 * 0.2
    assert phrase_weight("dog next to the chair") == 1.0
    assert phrase_weight(LONG) == 2.2


def test_choose_like_people_when_drawn_often_then_the_share_of_places_is_the_weights():
    phrases = [Phrase(0, "left dog", "location"), Phrase(0, "black dog", "colour")]
    rng = np.random.default_rng(0)
    placed = sum(choose_like_people(phrases, 1, rng)[0].kind == "location" for _ in range(3000))
    assert abs(placed / 3000 - 0.2 / 1.2) < 0.03


def test_choose_like_people_when_there_are_too_few_then_all_stay():
    phrases = [Phrase(2, "left dog", "location"), Phrase(5, "cat", "plain")]
    assert choose_like_people(phrases, 3, np.random.default_rng(0)) == phrases
    assert choose_like_people([], 3, np.random.default_rng(0)) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4), st.integers(0, 9))
def test_choose_like_people_when_any_then_a_part_of_each_thing_at_most_so_many(indices, most, seed):
    phrases = [Phrase(index, f"thing number {n}", "plain") for n, index in enumerate(indices)]
    chosen = choose_like_people(phrases, most, np.random.default_rng(seed))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(phrases)
    for index in set(indices):
        assert sum(p.index == index for p in chosen) == min(most, indices.count(index))
