"""The words of the drawn scenes: what can be said of an instance, and how people say it.

The writer shares these tables, and nothing else, with the checker in the tests. In each table the key is the meaning
and the value lists its surface forms, the commonest first.
"""

from __future__ import annotations

FLAVOURS = ("scenes", "scenes+", "scenesg")
SPLITS = ("train", "val", "testA", "testB")
KINDS_OF: dict[str, dict[str, float]] = {
    "scenes": {
        "location": 0.50,
        "superlative": 0.11,
        "ordinal": 0.11,
        "attribute": 0.11,
        "relation": 0.12,
        "negation": 0.05,
    },
    "scenes+": {"attribute": 0.50, "superlative": 0.25, "negation": 0.25},
    "scenesg": {
        "relation": 0.70,
        "location": 0.07,
        "ordinal": 0.06,
        "superlative": 0.06,
        "negation": 0.06,
        "attribute": 0.05,
    },
}
"""How often each flavour tries each kind of phrase."""

SHAPES: dict[str, tuple[str, ...]] = {
    "circle": ("circle",),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus"),
    "ring": ("ring", "donut"),
    "diamond": ("diamond",),
    "crescent": ("crescent", "moon"),
    "arrow": ("arrow",),
}
COLOURS: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "gray": ("gray", "grey"),
    "white": ("white",),
    "black": ("black",),
}
SIZES: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium sized"),
    "large": ("big", "large", "huge"),
}
TEXTURES: dict[str, tuple[str, ...]] = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "polka dot"),
    "checkered": ("checkered", "checked", "chequered"),
}
TEXTURES_AFTER: dict[str, tuple[str, ...]] = {
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
    "checkered": ("with checks",),
}
TEXTURES_LACKED: dict[str, tuple[str, ...]] = {
    "striped": ("without stripes",),
    "dotted": ("without dots", "without spots"),
    "checkered": ("without checks",),
}
ANY_SHAPE = ("thing", "one", "object", "shape")

SIDES: dict[str, tuple[str, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "top": ("top", "upper"),
    "bottom": ("bottom", "lower"),
}
MIDDLE = ("middle", "center", "centre")
MOST: dict[str, tuple[str, ...]] = {
    "left": ("leftmost", "left most", "far left"),
    "right": ("rightmost", "right most", "far right"),
    "top": ("topmost", "top most", "highest"),
    "bottom": ("lowest", "bottom most"),
}
SIZE_MOST: dict[str, tuple[str, ...]] = {
    "largest": ("biggest", "largest"),
    "smallest": ("smallest", "tiniest"),
}
ORDINALS: dict[int, tuple[str, ...]] = {
    2: ("second", "2nd"),
    3: ("third", "3rd"),
    4: ("fourth", "4th"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "behind": ("behind",),
    "front": ("in front of",),
    "inside": ("inside", "in", "inside of"),
    "next": ("next to", "beside"),
}

HELD_OUT_PAIRS = frozenset(
    (shape, colour)
    for i, shape in enumerate(SHAPES)
    for j, colour in enumerate(COLOURS)
    if (3 * i + 5 * j) % 8 == 0  # about one pair in eight, at least one a shape
)
"""The (shape, colour) pairs that only testB draws."""
