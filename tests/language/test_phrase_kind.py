"""What a phrase rests on, by its words."""

import pytest

from deixis.language.phrase_kind import WORDS, phrase_kind, words_said


@pytest.mark.parametrize(
    ("phrase", "kind"),
    [
        ("guy not wearing a hat", "negation"),
        ("Second dog from the left", "ordinal"),
        ("3rd cup", "ordinal"),
        ("woman holding the umbrella", "relation"),
        ("dog right behind the couch", "relation"),
        ("left guy", "location"),
        ("GRAY cat", "attribute"),
        ("biggest bear", "attribute"),
        ("zebra", "plain"),
        ("bright notebook", "plain"),
        ("", "plain"),
    ],
)
def test_phrase_kind_when_read_then_the_first_that_holds(phrase, kind):
    assert phrase_kind(phrase) == kind


def test_phrase_kind_when_the_data_says_so_then_believed():
    assert phrase_kind("left guy", "superlative") == "superlative"
    assert phrase_kind("left guy", "colour") == "attribute"
    assert phrase_kind("left guy", "size") == "attribute"


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("Leftmost dog", ["left"]),
        ("rt guy", ["right"]),
        ("bottomleft cup", ["left"]),
        ("right behind the couch", ["relation", "no place word"]),
        ("center of the table, right side", ["right", "middle"]),
        ("left of the tall man", ["left", "size", "relation"]),
        ("top shelf", ["other place"]),
        ("front car", ["other place"]),
        ("dog in front of the grey cat", ["colour", "relation", "no place word"]),
        ("3rd cup", ["ordinal"]),
        ("second red shirt from left", ["left", "ordinal", "colour"]),
        ("biggest bear", ["size", "no place word"]),
        ("zebra", ["no place word"]),
        ("colored tallboy in a bright laptop", ["no place word"]),
    ],
)
def test_words_said_when_read_then_every_kind_that_is_there(phrase, said):
    assert list(words_said(phrase)) == said
    assert set(said) <= set(WORDS)
