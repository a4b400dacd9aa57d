import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.language.directions import mirror_phrase, named_sides, names_direction

WORDS = (
    "left right leftmost rightmost left-hand righthand lefthand lft rt Left RIGHT left's lefts bright copyright "
    "leftover all now over next to behind in front of on the dog man 2nd from top corner upper-left "
    ", . ' right, (left) rightish"
)
PHRASES = st.lists(st.sampled_from(WORDS.split(" ")), max_size=9).map(" ".join)


@pytest.mark.parametrize(
    ("phrase", "mirrored"),
    [
        ("left bright shirt", "right bright shirt"),
        ("RIGHT dog, Leftmost", "LEFT dog, Rightmost"),
        ("the left-hand one's left's", "the right-hand one's right's"),
        ("guy lft of the rt pole", "guy rt of the lft pole"),
        ("upper-left (right) corner", "upper-right (left) corner"),
        ("rightmost of the lefts, looking leftward", "leftmost of the rights, looking rightward"),
        ("leftover copyright upright frightened", "leftover copyright upright frightened"),
        ("all right sign", "all right sign"),
        ("slice left over", "slice left over"),
        ("man right behind the dog", "man right behind the dog"),
        ("dog right next to the left cat", "dog right next to the right cat"),
        ("man on right behind the dog", "man on left behind the dog"),
        ("the cow on the left next to the wire", "the cow on the right next to the wire"),
        ("second from right in front", "second from left in front"),
        ("far left in front", "far right in front"),
        ("right now the left girl", "right now the right girl"),
        ("left left3 left_x", "right left3 right_x"),
        ("what is left of the cake", "what is left of the cake"),
        ("right of way sign on left", "right of way sign on right"),
        ("", ""),
    ],
)
def test_mirror_phrase_when_words_name_sides_then_only_these_are_swapped(phrase, mirrored):
    assert mirror_phrase(phrase) == mirrored
    assert mirror_phrase(mirrored) == phrase


@settings(max_examples=300, deadline=None)
@given(PHRASES)
def test_mirror_phrase_when_done_twice_then_gives_the_phrase_back(phrase):
    assert mirror_phrase(mirror_phrase(phrase)) == phrase


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_mirror_phrase_when_any_text_then_twice_gives_it_back_or_changes_case_only(text):
    assert mirror_phrase(mirror_phrase(text)).lower() == text.lower()


@settings(max_examples=200, deadline=None)
@given(PHRASES)
def test_names_direction_when_mirrored_then_answer_the_same(phrase):
    assert names_direction(mirror_phrase(phrase)) == names_direction(phrase)
    assert ("middle" in named_sides(mirror_phrase(phrase))) == ("middle" in named_sides(phrase))


@pytest.mark.parametrize(
    ("phrase", "answer"),
    [
        ("left dog", True),
        ("TOP shelf", True),
        ("upper-left", True),
        ("middle one", True),
        ("centre", True),
        ("corner", True),
        ("lft guy", True),
        ("stop sign", False),
        ("laptop", False),
        ("bright shirt", False),
        ("dog right behind the man", False),
        ("dog in a red coat", False),
    ],
)
def test_names_direction_when_whole_words_are_looked_at_then_says_so(phrase, answer):
    assert names_direction(phrase) is answer
