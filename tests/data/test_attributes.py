import pytest

from deixis.data.attributes import UNKNOWN, WORD_GROUPS, word_labels
from deixis.data.scenes import draw_scene

KINDS, COLOURS, TEXTURES = WORD_GROUPS


def told(labels):
    return [None if label == UNKNOWN else group[label] for group, label in zip(WORD_GROUPS, labels, strict=True)]


def test_groups_when_read_then_no_word_stands_twice_in_one():
    for group in WORD_GROUPS:
        assert len(set(group)) == len(group)


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        ("circle", ("red", "striped"), ["circle", "red", "striped"]),
        ("circle", ("striped", "red"), ["circle", "red", "striped"]),
        ("dog", (), ["dog", None, None]),
        ("zeppelin", ("blue",), [None, "blue", None]),
        ("dog", ("fluffy", "small"), ["dog", None, None]),
        ("dog", ("dog", "cat"), ["dog", None, None]),
        ("red", (), [None, None, None]),
        ("orange", (), ["orange", None, None]),
        ("orange", ("orange",), ["orange", "orange", None]),
        ("star", ("orange",), ["star", "orange", None]),
        ("star", ("green", "blue"), ["star", "green", None]),
        ("", (), [None, None, None]),
    ],
)
def test_labels_when_words_are_told_then_each_in_its_group(kind, attributes, expected):
    labels = word_labels(kind, attributes)
    assert told(labels) == expected
    assert labels.dtype == "int64"
    assert told(word_labels(kind, iter(attributes))) == expected


def test_labels_when_of_a_drawn_thing_then_all_three_are_known():
    for index in range(5):
        for thing in draw_scene("scenes+", "train", index, 64, 1)[1][0].instances:
            assert told(word_labels(thing.category, thing.attributes)) == [thing.category, *thing.attributes]
