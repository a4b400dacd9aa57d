import pytest

from deixis.language.synonyms import CATEGORY_WORDS, categories_meant_by, hypernyms_for, is_surely_absent, words_for


def test_words_for_when_coco_then_all_eighty_categories_have_words():
    assert len(CATEGORY_WORDS) == 80
    assert all(words and all(w == w.lower().strip() for w in words) for words in CATEGORY_WORDS.values())


def test_words_for_when_unknown_then_the_name_itself():
    assert words_for("Garden_Gnome") == ("garden gnome",)
    assert words_for(" ") == ("thing",)


def test_words_for_when_loose_then_sex_and_age_are_asserted_for_persons_only():
    assert "woman" in words_for("person", loose=True)
    assert "woman" not in words_for("person")
    assert words_for("dog", loose=True) == words_for("dog")


def test_categories_meant_by_when_a_word_is_shared_then_all_that_it_may_mean():
    assert categories_meant_by("bike") == {"bicycle", "motorcycle"}
    assert {"dog", "cat"} <= categories_meant_by("animal")
    assert {"bear", "teddy bear"} == categories_meant_by("bear")
    assert categories_meant_by("gnome") == frozenset()


def test_categories_meant_by_when_any_word_of_a_category_then_the_category_is_among_them():
    for category in CATEGORY_WORDS:
        for word in (*words_for(category, loose=True), *hypernyms_for(category)):
            assert category in categories_meant_by(word)


@pytest.mark.parametrize(
    ("phrase", "category", "present", "expected"),
    [
        ("left dog", "dog", ["car", "person"], True),
        ("left dog", "dog", ["dog"], False),
        ("left one", "dog", ["car"], False),  # it may be said of anything
        ("the hotdog", "dog", ["car"], False),  # whole words only
        ("left bear", "bear", ["teddy bear"], False),
        ("the teddy bear", "teddy bear", ["bear"], False),
        ("Car on the left", "car", ["truck"], False),
        ("glass", "wine glass", ["vase"], False),
        ("left chair", "chair", ["couch"], False),
        ("the phone", "cell phone", ["remote"], False),
        ("cake", "cake", ["donut"], False),
        ("tv", "tv", ["laptop"], False),
        ("animal dog", "dog", ["zebra"], False),
        ("person on the left", "person", ["dog"], True),
        ("cup by the rider", "cup", ["person"], False),
        ("cup by the bears", "cup", ["bear"], False),
        ("the truck", "truck", ["fire_truck"], False),
        ("orange cat", "cat", ["orange"], False),
        ("red square", "square", ["circle", "star"], True),
        ("left donut", "donut", ["ring"], False),
        ("thing", "", ["dog"], False),
        ("left dog", "dog", [], True),
    ],
)
def test_is_surely_absent_when_asked_then_only_if_no_word_may_mean_what_is_there(phrase, category, present, expected):
    assert is_surely_absent(phrase, category, present) is expected
