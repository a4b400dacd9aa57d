"""Which words reach the [CLS] token of SMCIM, as in the word attention maps of its Fig. 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import torch

from deixis.grounder import EncodedImage
from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.smcim.model import SmcimModel, SmcimScene


def words_reaching_cls(encoded: EncodedImage, phrase: str) -> list[tuple[str, float]]:
    """Each word of the phrase with its share of what reaches [CLS] in the last block.

    Args:
        encoded: an image.
        phrase: with at least one word.

    Returns:
        As `shares_of_words`; nothing for a model of another family.
    """
    model = encoded.grounder.model
    if not isinstance(model, SmcimModel):
        return []
    ids, valid = (torch.from_numpy(one) for one in encoded.grounder.tokenizer.encode([phrase]))
    row = cast(SmcimScene, encoded.features).pick(torch.zeros(1, dtype=torch.long))
    with torch.inference_mode():
        shares = model.word_attention(row, ids, valid)[0].tolist()
    return shares_of_words(phrase, encoded.grounder.tokenizer, shares)


def shares_of_words(phrase: str, tokenizer: PhraseTokenizer, shares: Sequence[float]) -> list[tuple[str, float]]:
    """Shares of word pieces added up for whole words, which blanks part.

    Args:
        phrase: the words.
        tokenizer: puts one special token before the pieces and the others behind them.
        shares: one for each token of the phrase, of sum 1.

    Returns:
        ``[CLS]``, the words, ``[SEP]``; a word that was cut off, the phrase being too long, has 0.
    """
    ends = [match.end() for match in re.finditer(r"\S+", phrase)]
    counts = [int(one.sum()) for one in tokenizer.encode(["", *(phrase[:end] for end in ends)])[1]]
    behind = counts[0] - 1
    edges = [count - behind for count in counts]
    words = phrase.split()
    found = [(word, sum(shares[a:b])) for word, a, b in zip(words, edges, edges[1:], strict=False)]
    return [("[CLS]", shares[0]), *found, ("[SEP]", sum(shares[edges[-1] :]))]
