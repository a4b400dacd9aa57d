"""The everyday words for a category, and which categories a word may mean. COCO's 80 are known.

Other categories name themselves.
"""

from __future__ import annotations

from functools import lru_cache

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
"""Words per category; a word's share of the list is how often it is chosen."""

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
"""Words that people use much but that assert what a category does not tell (sex, age). For training only."""

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
"""Categories that a listener might also take the word to mean; they count as rivals, never as referents."""


def words_for(category: str, *, loose: bool = False) -> tuple[str, ...]:
    """The everyday words for ``category``; a repeated word is a frequent one. Never empty.

    An unknown category names itself, in lower case and with spaces. ``loose`` adds words that assert
    what the category does not tell ("woman", "boy" for a person).
    """
    if loose and category in LOOSE_WORDS:
        return LOOSE_WORDS[category]
    return CATEGORY_WORDS.get(category) or (category.replace("_", " ").strip().lower() or "thing",)


def hypernyms_for(category: str) -> tuple[str, ...]:
    """The group words that take in ``category`` ("animal" for a dog); often none."""
    return tuple(word for word, members in HYPERNYMS.items() if category in members)


@lru_cache(maxsize=4096)
def categories_meant_by(word: str) -> frozenset[str]:
    """All categories that a listener may take ``word`` to mean, confusable ones included."""
    meant = {category for category, words in CATEGORY_WORDS.items() if word in words}
    meant.update(category for category, words in LOOSE_WORDS.items() if word in words)
    meant.update(HYPERNYMS.get(word, ()))
    meant.update(CONFUSABLE.get(word, ()))
    return frozenset(meant)
