import json

import pytest

from deixis.data.captions.written import WrittenPhrases
from deixis.geometry.masks import read_mask


def test_written_phrases_when_two_things_then_both_are_spoken_of(coco_json):
    samples = WrittenPhrases(coco_json, split="test")
    assert {s.image_id for s in samples} == {"7", "14"}
    assert {s.category for s in samples} == {"cup", "dog"}
    assert len({s.id for s in samples}) == len(samples)
    for sample in samples:
        assert sample.split == "test"
        assert sample.kind
        assert [i.category for i in sample.instances] == ["cup", "dog"]
        expected = (10, 20, 50, 60) if sample.category == "cup" else (70, 10, 110, 70)
        assert sample.box_xyxy_px == expected
        assert (sample.mask is None) == (sample.category == "dog")


def test_written_phrases_when_the_mask_is_read_then_it_is_the_files(coco_json):
    sample = next(s for s in WrittenPhrases(coco_json, split="val") if s.category == "cup")
    assert sample.mask is not None
    assert read_mask(sample.mask, (80, 120)).sum() == 40 * 40


def test_written_phrases_when_made_again_then_the_same_and_with_another_seed_others(coco_json):
    def words(seed):
        return [(s.id, s.phrase) for s in WrittenPhrases(coco_json, split="all", seed=seed)]

    assert words(0) == words(0)
    assert len({tuple(words(seed)) for seed in range(4)}) > 1


def test_written_phrases_when_a_photo_is_in_another_split_then_its_phrases_are_the_same(coco_json):
    whole = {s.id: s.phrase for s in WrittenPhrases(coco_json, split="all")}
    part = {s.id: s.phrase for s in WrittenPhrases(coco_json, split="val")}
    assert part
    assert part.items() <= whole.items()


@pytest.mark.parametrize("per_instance", [1, 2])
def test_written_phrases_when_per_instance_then_no_thing_has_more(coco_json, per_instance):
    samples = WrittenPhrases(coco_json, split="all", per_instance=per_instance)
    counts = [sum((s.image_id, s.category) == (i, c) for s in samples) for i in ("1", "7") for c in ("cup", "dog")]
    assert max(counts) == per_instance


def test_written_phrases_when_min_area_is_large_then_small_things_are_not_meant(coco_json):
    # the cup's box takes 1600 of 9600 pixels, the dog's 2400
    assert {s.category for s in WrittenPhrases(coco_json, split="all", min_area=0.2)} == {"dog"}


def test_written_phrases_when_limited_then_the_first_of_shuffled_photos(coco_json):
    whole = {s.id for s in WrittenPhrases(coco_json, split="all")}
    calls = []
    few = WrittenPhrases(coco_json, split="all", limit=3, progress=lambda done, total: calls.append((done, total)))
    assert len(few) == 3
    assert {s.id for s in few} < whole
    assert calls[0] == (1, 6)
    assert len(calls) < 6  # no photo is decoded that is not needed
    assert [s.id for s in few] == [s.id for s in WrittenPhrases(coco_json, split="all", limit=3)]


def test_written_phrases_when_sliced_then_a_list(coco_json):
    samples = WrittenPhrases(coco_json, split="val")
    assert list(samples[:2]) == [samples[0], samples[1]]
    assert samples[-1] is samples[len(samples) - 1]


def test_written_phrases_when_a_record_is_wrong_then_it_is_told_and_the_rest_is_there(coco_json):
    content = json.loads(coco_json.read_text())
    content["annotations"][0]["bbox"] = [10, 20, -4, 40]
    coco_json.write_text(json.dumps(content))
    samples = WrittenPhrases(coco_json, split="val")
    assert len(samples.problems) == 1
    assert {(s.image_id, s.category) for s in samples} == {("1", "dog"), ("15", "cup"), ("15", "dog")}


def test_written_phrases_when_a_photo_or_mask_is_bad_then_it_is_told_and_the_rest_is_there(coco_json):
    (coco_json.parent / "images" / "1.png").write_bytes(b"no image")
    content = json.loads(coco_json.read_text())
    broken = next(a for a in content["annotations"] if a["image_id"] == 15 and a["category_id"] == 1)
    broken["segmentation"] = {"size": [8, 12], "counts": [96]}
    coco_json.write_text(json.dumps(content))
    samples = WrittenPhrases(coco_json, split="all")
    assert {s.image_id for s in samples} == {"2", "7", "8", "14"}
    assert [problem.split(":")[0] for problem in samples.problems] == ["image 1", "image 15"]


def test_written_phrases_when_all_photos_are_missing_then_file_not_found(coco_json, tmp_path):
    with pytest.raises(FileNotFoundError):
        WrittenPhrases(coco_json, tmp_path, split="all")


def test_written_phrases_when_the_file_has_one_category_then_every_phrase_has_its_noun(coco_json):
    content = json.loads(coco_json.read_text())
    content["categories"] = [{"id": 1, "name": "cup"}]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 1]
    coco_json.write_text(json.dumps(content))
    phrases = [s.phrase for n in range(20) for s in WrittenPhrases(coco_json, split="all", seed=n)]
    assert all({"cup", "mug"} & set(phrase.split()) for phrase in phrases)


def test_written_phrases_when_an_id_is_negative_then_it_works(coco_of):
    assert {s.image_id for s in WrittenPhrases(coco_of([-7]), split="test")} == {"-7"}
