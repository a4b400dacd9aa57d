"""What a phrase rests on, by its words."""

import pytest

from deixis.language.phrase_kind import PHRASE_KINDS, phrase_kind


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
    assert kind in PHRASE_KINDS


def test_phrase_kind_when_the_data_says_so_then_believed():
    assert phrase_kind("left guy", "superlative") == "superlative"
    assert phrase_kind("left guy", "colour") == "attribute"
    assert phrase_kind("left guy", "size") == "attribute"
