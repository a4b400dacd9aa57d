from deixis.data.captions.relations import relations_between, roles_of
from deixis.data.captions.spatial_facts import place_of

HW = (100, 100)


def at(category, x1, y1, x2, y2):
    return place_of(category, (x1, y1, x2, y2), HW, is_crowd=False)


def words(a, b):
    return {word for relation in relations_between(a, b) for word in relation.words}


def test_relations_between_when_side_by_side_then_next_to_and_the_right_side():
    left, right = at("person", 10, 10, 30, 90), at("dog", 32, 60, 50, 90)

    assert {"next to", "left of"} <= words(left, right)
    assert {"next to", "right of"} <= words(right, left)
    assert "right of" not in words(left, right)


def test_relations_between_when_far_apart_then_nothing():
    assert words(at("person", 0, 10, 10, 90), at("dog", 80, 60, 99, 90)) == set()


def test_relations_between_when_a_person_rides_then_on_but_not_when_standing_by():
    bike = at("motorcycle", 20, 50, 70, 95)

    assert "riding" in words(at("person", 35, 20, 55, 80), bike)
    assert "riding" not in words(at("person", 35, 20, 55, 96), bike)


def test_relations_between_when_a_thing_is_inside_the_person_then_with():
    person = at("person", 20, 10, 60, 95)

    assert "with" in words(person, at("handbag", 45, 50, 58, 65))
    assert "with" not in words(person, at("chair", 45, 50, 58, 65))
    assert "with" not in words(person, at("handbag", 80, 50, 95, 65))


def test_relations_between_when_a_cup_stands_on_the_table_then_on():
    table = at("dining table", 0, 50, 100, 100)

    assert "on" in words(at("cup", 40, 45, 50, 70), table)
    assert "on" not in words(at("cup", 40, 10, 50, 30), table)


def test_roles_of_when_somebody_has_a_surfboard_then_a_surfer():
    places = [at("person", 20, 10, 60, 95), at("surfboard", 30, 40, 58, 60), at("person", 80, 10, 99, 95)]

    assert roles_of(places, 0) == [("surfer", frozenset({0}))]
    assert roles_of(places, 2) == []


def test_roles_of_when_a_word_fits_two_things_then_both_their_riders_are_meant():
    places = [at("person", 10, 10, 25, 60), at("horse", 5, 40, 35, 95),
              at("person", 75, 10, 90, 60), at("motorcycle", 70, 40, 99, 95)]  # fmt: skip

    assert roles_of(places, 0) == [("rider", frozenset({0, 2}))]
    assert dict(roles_of(places, 2)) == {
        "motorcyclist": frozenset({2}), "biker": frozenset({2}), "rider": frozenset({0, 2})
    }  # fmt: skip
