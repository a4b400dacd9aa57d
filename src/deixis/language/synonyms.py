"""The everyday words for a category, and the categories that a word may mean.

COCO's 80 categories are known; any other is called by its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")

CATEGORY_WORDS: dict[str, tuple[str, ...]] = {
    "person": (*("person",) * 9, *("guy",) * 3, "figure", "human"),
    "bicycle": ("bicycle", "bike", "bike"),
    "car": ("car", "car", "car", "vehicle"),
    "motorcycle": ("motorcycle", "motorcycle", "bike", "motorbike"),
    "airplane": ("airplane", "plane", "plane", "aircraft"),
    "bus": ("bus",),
    "train": ("train",),
    "truck": ("truck", "truck", "truck", "vehicle"),
    "boat": ("boat",),
    "traffic light": ("traffic light", "stoplight", "light"),
    "fire hydrant": ("fire hydrant", "hydrant"),
    "stop sign": ("stop sign", "sign"),
    "parking meter": ("parking meter", "meter"),
    "bench": (*("bench",) * 4, "seat"),
    "bird": ("bird",),
    "cat": ("cat", "cat", "kitty"),
    "dog": ("dog", "dog", "pup"),
    "horse": ("horse",),
    "sheep": ("sheep",),
    "cow": ("cow",),
    "elephant": ("elephant",),
    "bear": ("bear",),
    "zebra": ("zebra",),
    "giraffe": ("giraffe",),
    "backpack": ("backpack", "bag"),
    "umbrella": ("umbrella",),
    "handbag": ("handbag", "bag", "purse"),
    "tie": ("tie", "necktie"),
    "suitcase": ("suitcase", "luggage", "bag"),
    "frisbee": ("frisbee", "disc"),
    "skis": ("skis",),
    "snowboard": ("snowboard", "board"),
    "sports ball": ("ball",),
    "kite": ("kite",),
    "baseball bat": ("baseball bat", "bat"),
    "baseball glove": ("baseball glove", "glove", "mitt"),
    "skateboard": ("skateboard", "board"),
    "surfboard": ("surfboard", "surfboard", "board", "surf board"),
    "tennis racket": ("tennis racket", "racket"),
    "bottle": ("bottle",),
    "wine glass": ("wine glass", "glass"),
    "cup": (*("cup",) * 4, "mug"),
    "fork": ("fork",),
    "knife": ("knife",),
    "spoon": ("spoon",),
    "bowl": (*("bowl",) * 5, "dish"),
    "banana": ("banana",),
    "apple": ("apple",),
    "sandwich": ("sandwich",),
    "orange": ("orange",),
    "broccoli": ("broccoli",),
    "carrot": ("carrot",),
    "hot dog": ("hot dog", "hotdog"),
    "pizza": ("pizza",),
    "donut": ("donut", "doughnut"),
    "cake": ("cake",),
    "chair": (*("chair",) * 5, "seat"),
    "couch": ("couch", "couch", "sofa"),
    "potted plant": ("plant", "plant", "potted plant"),
    "bed": ("bed",),
    "dining table": ("table",),
    "toilet": ("toilet",),
    "tv": ("tv", "tv", "screen", "monitor", "television"),
    "laptop": ("laptop", "laptop", "computer"),
    "mouse": ("mouse", "computer mouse"),
    "remote": ("remote", "remote", "controller", "remote control"),
    "keyboard": ("keyboard",),
    "cell phone": ("phone", "cell phone", "cellphone"),
    "microwave": ("microwave",),
    "oven": ("oven", "oven", "stove"),
    "toaster": ("toaster",),
    "sink": ("sink",),
    "refrigerator": ("fridge", "refrigerator"),
    "book": ("book",),
    "clock": ("clock",),
    "vase": ("vase",),
    "scissors": ("scissors",),
    "teddy bear": ("teddy bear", "teddy", "stuffed animal", "stuffed bear", "bear"),
    "hair drier": ("hair dryer", "blow dryer"),
    "toothbrush": ("toothbrush",),
}
"""Words per category; a repeated word is chosen more often."""

LOOSE_WORDS: dict[str, tuple[str, ...]] = {
    "person": (
        *("man",) * 12,
        *("guy",) * 6,
        *("person",) * 7,
        *("woman",) * 6,
        *("girl",) * 4,
        *("lady",) * 2,
        *("boy",) * 2,
        *("kid",) * 2,
        *("dude", "player", "child", "figure"),
    )
}
"""Words that people often use but that assert more than a category states (sex, age). For training only."""

HYPERNYMS: dict[str, tuple[str, ...]] = {
    "animal": ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    "vehicle": ("car", "motorcycle", "bus", "train", "truck"),
    "fruit": ("banana", "apple", "orange"),
    "food": ("sandwich", "hot dog", "pizza", "cake", "donut", "broccoli", "carrot", "banana", "apple", "orange"),
}
"""Words for a whole group of categories."""

CONFUSABLE: dict[str, tuple[str, ...]] = {
    "car": ("truck",),
    "screen": ("laptop", "cell phone"),
    "monitor": ("laptop",),
    "computer": ("tv", "keyboard"),
    "seat": ("couch", "toilet"),
    "vehicle": ("bicycle", "boat", "airplane"),
    "dish": ("cup",),
    "glass": ("cup", "bottle", "vase"),
    "animal": ("teddy bear",),
    "sofa": ("chair",),
    "phone": ("remote",),
    "plant": ("vase",),
    "stove": ("microwave",),
    "board": ("skis",),
    "pup": ("cat",),
}
"""Categories that a listener might also take the word to mean; they count as distractors, never as referents."""

ROLE_WORDS: dict[str, tuple[str, ...]] = {
    "tennis racket": ("tennis player", "player"),
    "baseball bat": ("batter", "player"),
    "surfboard": ("surfer",),
    "skis": ("skier",),
    "snowboard": ("snowboarder",),
    "skateboard": ("skateboarder", "skater"),
    "motorcycle": ("motorcyclist", "biker", "rider"),
    "bicycle": ("cyclist", "biker", "bicyclist"),
    "horse": ("rider",),
}
"""What a person is called who rides or plays with an instance of the category."""

_MORE_PERSON_WORDS = frozenset(("people", "men", "women", "children", "baby", "someone", "somebody", "adult", "female"))
_LOOK_ALIKE: tuple[frozenset[str], ...] = (
    frozenset(("car", "truck", "bus", "train")),
    frozenset(("bicycle", "motorcycle")),
    frozenset(("cup", "wine glass", "bottle", "bowl", "vase")),
    frozenset(("vase", "potted plant")),
    frozenset(("fork", "knife", "spoon")),
    frozenset(("couch", "chair", "bench", "bed")),
    frozenset(("cell phone", "remote")),
    frozenset(("cake", "donut", "sandwich", "pizza", "hot dog")),
    frozenset(("apple", "orange")),
    frozenset(("tv", "laptop")),
    frozenset(("laptop", "keyboard")),
    frozenset(("oven", "microwave", "toaster")),
    frozenset(("handbag", "backpack", "suitcase")),
    frozenset(("skateboard", "surfboard", "snowboard", "skis")),
    frozenset(("airplane", "kite")),
    frozenset(("ring", "donut")),  # a ring is a drawn shape, as is a circle
    frozenset(("circle", "ring", "sports ball", "frisbee")),
)
"""Categories that listeners or annotators confuse; nothing is called absent if a look-alike is present."""


def words_for(category: str, *, loose: bool = False) -> tuple[str, ...]:
    """The everyday words for ``category``, frequent ones repeated; never empty.

    An unknown category names itself, in lower case and with spaces. ``loose`` gives words that assert more than the
    category states ("woman", "boy" for a person).
    """
    if loose and category in LOOSE_WORDS:
        return LOOSE_WORDS[category]
    return CATEGORY_WORDS.get(category) or (category.replace("_", " ").strip().lower() or "thing",)


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of ``choices``, which are not empty, each equally likely; much faster than ``Generator.choice``."""
    return choices[int(rng.random() * len(choices))]


def hypernyms_for(category: str) -> tuple[str, ...]:
    """The words for groups that include ``category`` ("animal" for a dog); often none."""
    return tuple(word for word, members in HYPERNYMS.items() if category in members)


@lru_cache(maxsize=4096)
def categories_meant_by(word: str) -> frozenset[str]:
    """All categories that a listener may take ``word`` to mean, confusable ones included."""
    meant = {category for category, words in CATEGORY_WORDS.items() if word in words}
    meant.update(category for category, words in LOOSE_WORDS.items() if word in words)
    meant.update(HYPERNYMS.get(word, ()))
    meant.update(CONFUSABLE.get(word, ()))
    return frozenset(meant)


def is_surely_absent(phrase: str, category: str, present: Iterable[str]) -> bool:
    """Whether a phrase written for an instance in one image certainly means nothing in another image.

    Args:
        phrase: any words.
        category: that of the instance; a phrase that does not name it may be true of anything.
        present: the categories of everything in the other image.

    Returns:
        True if the phrase has the last word of ``category``, and none of its words may mean a category in ``present``
        or a look-alike.
    """
    tokens = phrase.lower().split()
    named = category.replace("_", " ").lower().split()
    return bool(named) and named[-1] in tokens and not any(_may_be_called(c, phrase) for c in {*present})


@lru_cache(maxsize=16384)
def _may_be_called(category: str, phrase: str) -> bool:
    """Whether a word of ``phrase`` may mean ``category``, by its own names or those of its look-alikes."""
    alike = {category}.union(*(group for group in _LOOK_ALIKE if category in group))
    names = {word for one in alike for word in words_for(one)}
    if category not in CATEGORY_WORDS:  # "fire truck" is a truck
        names.update(name.split()[-1] for name in words_for(category))
    if category == "person":
        names.update(_MORE_PERSON_WORDS, *ROLE_WORDS.values())
    spoken = _parts_of(phrase)
    return not names.isdisjoint(spoken) or any(category in categories_meant_by(part) for part in spoken)


def _parts_of(phrase: str) -> set[str]:
    """All runs of one to three words, with and without a final s: "bears" may be a bear."""
    words = "".join(c if c.isalnum() else " " for c in phrase.lower()).split()
    parts = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, min(i + 3, len(words)) + 1)}
    return parts | {part.removesuffix("s") for part in parts}
