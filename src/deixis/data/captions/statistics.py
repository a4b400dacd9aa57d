"""Compare written phrases with how people speak: length, location words, vocabulary."""

from __future__ import annotations

import csv
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deixis.language.colours import COLOURS
from deixis.language.directions import names_direction

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    ("says left", frozenset(("left", "leftmost", "lefthand", "lft"))),
    ("says right", frozenset(("right", "rightmost", "righthand", "rt"))),
    ("says top or upper", frozenset(("top", "upper", "topmost"))),
    ("says bottom or lower", frozenset(("bottom", "lower", "bottommost"))),
    ("says middle or center", frozenset(("middle", "center", "centre"))),
    ("says front, back or closest", frozenset(("front", "back", "closest", "nearest", "background", "foreground"))),
    ("has an ordinal", frozenset(("first", "second", "third", "fourth", "1st", "2nd", "3rd", "4th"))),
    (
        "has a size word",
        frozenset("big bigger biggest large larger largest small smaller smallest little tall tallest".split(" ")),  # noqa: SIM905
    ),
    ("has a colour word", frozenset((*COLOURS, "grey"))),
    ("has an article", frozenset(("a", "an", "the"))),
)


@dataclass(frozen=True, kw_only=True)
class StatisticsRow:
    """One measure of both collections; ``is_share`` says that the figures are fractions in 0..1."""

    name: str
    written: float
    human: float
    is_share: bool = True


def compare_statistics(phrases: Iterable[str], human: Iterable[str]) -> list[StatisticsRow]:
    """Measure both collections alike.

    The rows: mean and median number of words, the share of one to three words and of ten or more, the share with
    a word of place (see `names_direction`), with each side, with an ordinal, size, colour or article, and the share
    of all human words that also the written phrases use.

    Raises:
        ValueError: one of the two has no phrase.
    """
    written_tokens, human_tokens = [words_of(p) for p in phrases], [words_of(p) for p in human]
    if not written_tokens or not human_tokens:
        raise ValueError(
            f"expected phrases on both sides, got {len(written_tokens)} written and {len(human_tokens)} human ones; "
            "give at least one of each"
        )
    rows = [
        StatisticsRow(name=name, written=a, human=b, is_share=is_share)
        for (name, a, is_share), (_, b, _) in zip(
            measure_words(written_tokens), measure_words(human_tokens), strict=True
        )
    ]
    covered = _coverage(human_tokens, {token for tokens in written_tokens for token in tokens})
    rows.append(StatisticsRow(name="human words that are also written", written=covered, human=1.0))
    return rows


def format_statistics(rows: Sequence[StatisticsRow]) -> str:
    """The rows as an aligned text table, shares in percent."""

    def figure(value: float, is_share: bool) -> str:
        return f"{100 * value:.1f} %" if is_share else f"{value:.2f}"

    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'written':>8}  {'human':>8}"]
    lines += [f"{r.name:{width}}  {figure(r.written, r.is_share):>8}  {figure(r.human, r.is_share):>8}" for r in rows]
    return "\n".join(lines)


def read_expressions(path: str | Path) -> list[str]:
    """The column ``expression`` of a CSV file; empty cells are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8, or has no such column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"expected a CSV of expressions, got {str(path)!r}, which is no file; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            if "expression" not in (reader.fieldnames or ()):
                raise ValueError(
                    f"expected a column 'expression' in {str(path)!r}, got {reader.fieldnames!r}; name the column so"
                )
            return [row["expression"] for row in reader if (row["expression"] or "").strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"expected a CSV in UTF-8, got {str(path)!r} ({error}); save it as such") from error


def words_of(phrase: str) -> list[str]:
    """The words of a phrase in small letters, without punctuation."""
    return _TOKEN.findall(phrase.lower())


def measure_words(phrases: Sequence[list[str]]) -> list[tuple[str, float, bool]]:
    """Of at least one phrase, given as `words_of` it: each measure's name and value, and whether it is a share."""
    lengths = [len(tokens) for tokens in phrases]

    def share(holds: Iterable[bool]) -> float:
        return sum(holds) / len(phrases)

    rows = [
        ("words, mean", statistics.fmean(lengths), False),
        ("words, median", float(statistics.median(lengths)), False),
        ("three words or fewer", share(n <= 3 for n in lengths), True),
        ("ten words or more", share(n >= 10 for n in lengths), True),
        ("names a place", share(names_direction(" ".join(tokens)) for tokens in phrases), True),
    ]
    sets = [set(tokens) for tokens in phrases]
    return rows + [(name, share(not words.isdisjoint(tokens) for tokens in sets), True) for name, words in _GROUPS]


def _coverage(human: Sequence[list[str]], vocabulary: set[str]) -> float:
    counts = Counter(token for tokens in human for token in tokens)
    return sum(n for token, n in counts.items() if token in vocabulary) / max(counts.total(), 1)
