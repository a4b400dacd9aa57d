"""Phrases to token ids, for each text encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PhraseTokenizer(Protocol):
    """What a text encoder needs from its tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, phrases: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [B, T] and token_valid [B, T] (True = real), T the longest phrase of the batch."""
        ...

    def save(self, folder: Path) -> None:
        """Write the vocabulary into a checkpoint folder."""
        ...


def _pad(rows: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    width = max(len(row) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    valid = np.zeros((len(rows), width), np.bool_)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        valid[index, : len(row)] = True
    return ids, valid


class WordPieceTokenizer:
    """Lower-cased WordPiece with [CLS] and [SEP], read from a ``tokenizer.json``."""

    def __init__(self, path: Path, *, max_tokens: int) -> None:
        from tokenizers import Tokenizer

        if not path.is_file():
            raise FileNotFoundError(f"expected the vocabulary {str(path)!r}, got no such file")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"expected a tokenizer in {str(path)!r}, got {error}; fetch it again") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self._tokenizer.get_vocab_size()

    def encode(self, phrases: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [B, T] and token_valid [B, T]."""
        return _pad([encoding.ids for encoding in self._tokenizer.encode_batch(list(phrases))])

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``."""
        self._tokenizer.save(str(folder / "tokenizer.json"))


class WordTokenizer:
    """Whole lower-cased words; id 0 pads, id 1 stands for every unknown word."""

    def __init__(self, words: Sequence[str], *, max_tokens: int) -> None:
        self.words = list(words)
        self.max_tokens = max_tokens
        self._ids = {word: index + 2 for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path, *, max_tokens: int) -> WordTokenizer:
        """From a ``vocab.txt``, one word a line."""
        if not path.is_file():
            raise FileNotFoundError(f"expected the vocabulary {str(path)!r}, got no such file")
        try:
            words = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"expected words in UTF-8 in {str(path)!r}, got {error}; fetch it again") from error
        return cls(words, max_tokens=max_tokens)

    @property
    def vocab_size(self) -> int:
        """Number of ids, padding and unknown included."""
        return len(self.words) + 2

    def encode(self, phrases: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids [B, T] and token_valid [B, T]."""
        rows = []
        for phrase in phrases:
            words = re.findall(r"[a-z0-9]+", phrase.lower())[: self.max_tokens]
            rows.append([self._ids.get(word, 1) for word in words] or [1])
        return _pad(rows)

    def save(self, folder: Path) -> None:
        """Write ``vocab.txt``."""
        (folder / "vocab.txt").write_text("\n".join(self.words) + "\n", encoding="utf-8")
