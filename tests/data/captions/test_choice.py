import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.captions.choice import choose_like_people, phrase_weight
from deixis.data.captions.writing import Phrase

LONG = "the black dog that is next to the small wooden chair"


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
