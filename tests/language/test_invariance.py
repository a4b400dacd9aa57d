import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.language.directions import mirror_phrase
from deixis.language.invariance import can_mirror, crop_effect, names_order, why_not_mirror

WORDS = (
    "left right leftmost left-hand rt lft bright copyright upright left-handed behind over next to what is now all "
    "second last middle clock facing east 5 2nd letter near us the dog of in front way off , who has been"
)
PHRASES = st.lists(st.sampled_from(WORDS.split(" ")), min_size=1, max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("phrase", "mirrored"),
    [
        ("left dog", "right dog"),
        ("leftmost cup", "rightmost cup"),
        ("lft guy by rt pole", "rt guy by lft pole"),  # how people type on RefCOCO's task
        ("the cup on the left-hand side", "the cup on the right-hand side"),  # a side of the picture
        ("man's left hand", "man's right hand"),  # the mirror gives him the other one
        ("second from left", "second from right"),
        ("2nd from right", "2nd from left"),  # a figure that is an ordinal need not be read in the image
        ("just left of the cup", "just right of the cup"),
        ("tallest animal which is left of others", "tallest animal which is right of others"),
    ],
)
def test_mirror_when_sides_change_places_then_the_words_swap(phrase, mirrored):
    assert can_mirror(phrase)
    assert mirror_phrase(phrase) == mirrored


@pytest.mark.parametrize(
    "phrase",
    [
        "bright shirt",  # ends in the letters of "right", as do the next ones
        "copyright sign",
        "upright piano",
        "frightened girl",
        "dog right behind him",  # "right" says how close, not where
        "right next to the sink",
        "all right sign",
        "the one hit right now",
        "right of way sign",
        "leftover pizza",
        "stop sign",  # still a stop sign
        "biggest one",
    ],
)
def test_mirror_when_no_side_is_named_then_the_words_stay(phrase):
    assert can_mirror(phrase)
    assert mirror_phrase(phrase) == phrase


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("number 5 jersey", "to be read"),
        ("player 7", "number"),
        ("bus 421", "number"),
        ("the word stop", "to be read"),
        ("the sign that says exit", "to be read"),
        ("the letter a", "to be read"),
        ('box with "milk" on it', "to be read"),
        ("clock", "'clock'"),  # its hands turn the other way
        ("dog at 3 o'clock", "number"),
        ("at three oclock", "oclock"),
        ("man facing us", "facing"),
        ("plane facing east", "facing"),
        ("the northwest corner", "northwest"),
        ("westbound bus", "westbound"),
        ("right-handed batter", "right-handed"),  # his own hand, or the one seen on that side
        ("starboard side", "starboard"),
        ("driver's side door", "driver's side"),
        ("guy left behind", "left behind"),  # forsaken, or behind on the left
        ("man left next to dog", "may or may not be a side"),
        ("what is left of the cake", "what is left"),  # the rest of it, or beside it
        ("what's right of the cake", "what's right"),
        ("bag that has been left", "been left"),
        ("girl being left out", "being left"),
        ("right in front", "right in front"),  # close, or on the right
        ("rigth guy", "rigth"),
    ],
)
def test_mirror_when_the_phrase_may_be_untrue_of_it_then_it_breaks_and_says_why(phrase, reason):
    assert not can_mirror(phrase)
    assert reason in why_not_mirror(phrase)


@pytest.mark.parametrize(
    ("phrase", "crop"),
    [
        ("left dog", "breaks"),
        ("top shelf", "breaks"),
        ("middle cup", "breaks"),
        ("tower at three oclock", "breaks"),
        ("south building", "breaks"),
        ("rigth guy", "breaks"),
        ("third cup", "needs others"),
        ("2nd cup", "needs others"),
        ("last one", "needs others"),
        ("dog next to the cat", "needs others"),
        ("cup in front of him", "needs others"),
        ("boy nearest the sink", "needs others"),
        ("leaning over the table", "needs others"),
        ("bright shirt", "stays"),
        ("stop sign", "stays"),
        ("laptop", "stays"),
        ("biggest pizza", "stays"),  # distractors can only go
        ("dog nearest to us", "stays"),  # the viewer is in no picture
        ("cow closest to the camera", "stays"),
        ("seconds plate", "stays"),
        ("man in front", "stays"),
    ],
)
def test_crop_when_the_phrase_needs_more_than_its_referent_then_marked(phrase, crop):
    assert crop_effect(phrase) == crop


@settings(max_examples=200, deadline=None)
@given(PHRASES)
def test_invariance_when_a_phrase_is_mirrored_then_the_mirror_image_is_marked_alike(phrase):
    other = mirror_phrase(phrase)
    assert can_mirror(other) == can_mirror(phrase)
    assert crop_effect(other) == crop_effect(phrase)
    assert names_order(other) == names_order(phrase)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_invariance_when_any_text_then_judged(text):
    assert can_mirror(text) in (True, False)
    assert crop_effect(text) in ("stays", "needs others", "breaks")


@pytest.mark.parametrize("phrase", ["bottomleft dog", "guy onleft", "topleft", "lowerleftmost cup", "theright one"])
def test_glued_side_when_read_then_never_mirrored_and_a_place(phrase):
    assert not can_mirror(phrase)
    assert crop_effect(phrase) == "breaks"


@pytest.mark.parametrize(
    "phrase", ["bright shirt", "upright copyrighted fright", "playwright", "leftovers", "brightest one"]
)
def test_words_that_only_spell_a_side_when_read_then_mirrored_as_they_are(phrase):
    assert can_mirror(phrase)
    assert crop_effect(phrase) == "stays"
