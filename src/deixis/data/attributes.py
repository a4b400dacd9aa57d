"""What an instance is, in words that the image alone should reveal: kind, colour, texture."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deixis.data.scenes.vocabulary import COLOURS, SHAPES, TEXTURES
from deixis.language.synonyms import CATEGORY_WORDS

WORD_GROUPS: Final = ((*SHAPES, *CATEGORY_WORDS), tuple(COLOURS), tuple(TEXTURES))
"""Of each group one word holds for an instance, or it is not known which."""

NUM_WORDS: Final = sum(len(group) for group in WORD_GROUPS)

UNKNOWN: Final = -1


def word_labels(kind: str, attributes: Iterable[str]) -> NDArray[np.int64]:
    """The place of the instance's word in each of `WORD_GROUPS`, `UNKNOWN` where none is given.

    The kind counts in the first group only: "orange" is a fruit there and a colour in the second.
    """
    labels = np.full(len(WORD_GROUPS), UNKNOWN, np.int64)
    given = list(attributes)
    for row, words in enumerate(WORD_GROUPS):
        known = [words.index(word) for word in ([kind] if row == 0 else given) if word in words]
        if known:
            labels[row] = known[0]
    return labels
