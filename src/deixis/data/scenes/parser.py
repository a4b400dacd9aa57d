"""Read a phrase of the drawn scenes back into meanings. Half of the checker: it knows the words, not the writer.

Words become lexemes by the longest match; articles, 'that is' and 'of the picture' carry nothing and are skipped.
A phrase is a noun phrase: colours, sizes, textures, places and ranks around a noun, then what follows the noun.
What follows a landmark ('the star left of the circle that is not red') may belong to the landmark or to what stands
before it, so a phrase may have several readings; all are returned.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deixis.data.scenes.vocabulary import (
    ANY_SHAPE,
    COLOURS,
    MIDDLE,
    MOST,
    ORDINALS,
    RELATIONS,
    SHAPES,
    SIDES,
    SIZE_MOST,
    SIZES,
    TEXTURES,
    TEXTURES_AFTER,
    TEXTURES_LACKED,
)

_SKIPPED = frozenset({"the", "a", "an", "that", "which", "is", "but"})
_OWNERS = frozenset({"picture", "image", "photo", "scene"})
_PREPOSITIONS = ("on", "at", "in", "to")


@dataclass(frozen=True)
class Pick:
    """The part of a meaning that compares: 'left', 'second from the left', 'biggest'."""

    name: str
    """'side', 'corner', 'middle', 'most', 'largest', 'smallest' or 'rank'."""
    sides: tuple[str, ...] = ()
    rank: int = 0


@dataclass
class Meaning:
    """What a noun phrase demands of a thing."""

    wanted: list[tuple[str, str]] = field(default_factory=list)
    """(field, value) pairs that must hold."""
    unwanted: list[tuple[str, str]] = field(default_factory=list)
    """(field, value) pairs that must not hold."""
    picks: list[Pick] = field(default_factory=list)
    relations: list[tuple[str, tuple[Meaning, ...]]] = field(default_factory=list)
    """(relation, landmarks): two landmarks for 'between', one for every other."""


@dataclass(frozen=True)
class _Lexeme:
    kind: str
    value: str | int | tuple[str, ...] = ""


_Words = tuple[str, ...]


def parse(phrase: str) -> list[Meaning]:
    """Read a phrase in all the ways that its grammar allows.

    Raises:
        ValueError: a word that the drawn scenes do not use, or words in an order that makes no noun phrase.
    """
    lexemes = list(_lexemes(_words(phrase)))
    heads, later = _split(lexemes, phrase)
    return [_attach(heads, later, choice) for choice in _choices(later)]


def _words(phrase: str) -> list[str]:
    words = re.findall(r"[a-z0-9]+", phrase.lower().replace("isn't", "is not"))
    kept = [word for word in words if word not in _SKIPPED]
    pairs = zip(kept, [*kept[1:], ""], strict=True)
    is_owner = [word in ("of", "in") and after in _OWNERS for word, after in pairs]
    return [word for k, word in enumerate(kept) if not (is_owner[k] or (k and is_owner[k - 1]))]


def _lexemes(words: Sequence[str]) -> Iterator[_Lexeme]:
    position = 0
    while position < len(words):
        for length in range(_LONGEST, 0, -1):
            lexemes = _LEXICON.get(tuple(words[position : position + length]))
            if lexemes is not None and position + length <= len(words):
                yield from lexemes
                position += length
                break
        else:
            raise ValueError(f"expected the words of drawn scenes, got {words[position]!r}; use its vocabulary")


@dataclass
class _Later:
    """A modifier that follows a noun, and the heads that it may belong to, the nearest last."""

    open_heads: list[int]
    modifier: _Lexeme
    landmarks: tuple[int, ...] = ()


def _split(lexemes: Sequence[_Lexeme], phrase: str) -> tuple[list[list[_Lexeme]], list[_Later]]:
    """Cut the lexemes into heads, each the words up to and with one noun, and what follows them."""
    heads: list[list[_Lexeme]] = [[]]
    later: list[_Later] = []
    open_heads, has_noun = [0], False
    queue = _joined(lexemes)
    while queue:
        lexeme = queue.pop(0)
        if lexeme.kind == "relation":
            landmarks: list[int] = []
            if lexeme.value == "between":
                heads.append(_take_until_and(queue, phrase))
                landmarks.append(len(heads) - 1)
            heads.append(_take_head(queue, phrase))
            landmarks.append(len(heads) - 1)
            later.append(_Later(list(open_heads), lexeme, tuple(landmarks)))
            open_heads.append(landmarks[-1])
            has_noun = True
        elif lexeme.kind == "and":
            raise ValueError(f"expected 'and' only after 'between', got {phrase!r}; drop it")
        elif has_noun:
            later.append(_Later(list(open_heads), lexeme))
        else:
            heads[0].append(lexeme)
            has_noun = lexeme.kind in ("shape", "noun")
    return heads, later


def _joined(lexemes: Sequence[_Lexeme]) -> list[_Lexeme]:
    """Join 'not' with the attribute after it, and a rank with its 'from the left'."""
    queue = list(lexemes)
    done: list[_Lexeme] = []
    while queue:
        lexeme = queue.pop(0)
        if lexeme.kind == "not":
            if not queue or queue[0].kind not in ("shape", "colour", "size", "texture"):
                raise ValueError("expected a shape, colour, size or texture after 'not'; name one")
            denied = queue.pop(0)
            done.append(_Lexeme("not", (denied.kind, str(denied.value))))
        elif lexeme.kind == "order":
            origin = next((k for k, other in enumerate(queue) if other.kind == "from"), None)
            if origin is None:
                raise ValueError("expected 'from' and a side after an ordinal; say from where to count")
            side = queue.pop(origin).value
            done.append(_Lexeme("rank", (str(side), str(lexeme.value))))
        else:
            done.append(lexeme)
    return done


def _take_head(queue: list[_Lexeme], phrase: str) -> list[_Lexeme]:
    """Take the lexemes up to and with the next noun."""
    taken: list[_Lexeme] = []
    while queue:
        taken.append(queue.pop(0))
        if taken[-1].kind in ("shape", "noun"):
            return taken
        if taken[-1].kind in ("relation", "and"):
            break
    raise ValueError(f"expected a thing with a noun after a relation, got {phrase!r}; name the thing")


def _take_until_and(queue: list[_Lexeme], phrase: str) -> list[_Lexeme]:
    """Take the first of the two things that something is between."""
    end = next((k for k, lexeme in enumerate(queue) if lexeme.kind == "and"), None)
    if end is None:
        raise ValueError(f"expected 'between X and Y', got {phrase!r}; name two things")
    taken, queue[: end + 1] = queue[:end], []
    if any(lexeme.kind == "relation" for lexeme in taken) or not taken:
        raise ValueError(f"expected a plain thing after 'between', got {phrase!r}; name it by its looks")
    return taken


def _choices(later: Sequence[_Later]) -> Iterator[tuple[int, ...]]:
    """Every way to attach the later modifiers: one that skips a landmark closes it for all that follow."""
    for choice in itertools.product(*(item.open_heads for item in later)):
        closed: set[int] = set()
        for item, head in zip(later, choice, strict=True):
            if head in closed:
                break
            closed |= {other for other in item.open_heads if other > head}
        else:
            yield choice


def _attach(heads: Sequence[Sequence[_Lexeme]], later: Sequence[_Later], choice: Sequence[int]) -> Meaning:
    meanings = [Meaning() for _ in heads]
    for meaning, head in zip(meanings, heads, strict=True):
        for lexeme in head:
            _demand(meaning, lexeme)
    for item, head in zip(later, choice, strict=True):
        if item.landmarks:
            landmarks = tuple(meanings[k] for k in item.landmarks)
            meanings[head].relations.append((str(item.modifier.value), landmarks))
        else:
            _demand(meanings[head], item.modifier)
    return meanings[0]


def _demand(meaning: Meaning, lexeme: _Lexeme) -> None:
    value = lexeme.value
    if lexeme.kind in ("shape", "colour", "size", "texture"):
        meaning.wanted.append((lexeme.kind, str(value)))
    elif lexeme.kind == "not" and isinstance(value, tuple):
        meaning.unwanted.append((value[0], value[1]))
    elif lexeme.kind == "rank" and isinstance(value, tuple):
        meaning.picks.append(Pick("rank", (value[0],), int(value[1])))
    elif lexeme.kind == "place" and isinstance(value, tuple):
        meaning.picks.append(Pick(("middle", "side", "corner")[len(value)], value))
    elif lexeme.kind == "most":
        meaning.picks.append(Pick("most", (str(value),)))
    elif lexeme.kind == "size most":
        meaning.picks.append(Pick(str(value)))


def _lexicon() -> dict[_Words, list[_Lexeme]]:
    """Every entry's words -> its lexemes."""
    entries: dict[_Words, list[_Lexeme]] = {}

    def enter(form: str, *lexemes: _Lexeme) -> None:
        words = tuple(word for word in form.split() if word not in _SKIPPED)
        if words in entries and entries[words] != list(lexemes):
            raise ValueError(f"expected one meaning a form, got two for {form!r}; correct the vocabulary")
        entries[words] = list(lexemes)

    tables: list[tuple[str, Mapping[str, Sequence[str]] | Mapping[int, Sequence[str]]]] = [
        ("shape", SHAPES),
        ("colour", COLOURS),
        ("size", SIZES),
        ("texture", TEXTURES),
        ("texture", TEXTURES_AFTER),
        ("most", MOST),
        ("size most", SIZE_MOST),
        ("order", ORDINALS),
        ("relation", RELATIONS),
    ]
    for kind, table in tables:
        for value, forms in table.items():
            for form in forms:
                enter(form, _Lexeme(kind, value))
    for value, forms in TEXTURES_LACKED.items():
        for form in forms:
            enter(form, _Lexeme("not"), _Lexeme("texture", value))
    for form in ANY_SHAPE:
        enter(form, _Lexeme("noun"))
    for form, lexeme in (("not", "not"), ("and", "and")):
        enter(form, _Lexeme(lexeme))
    enter("between", _Lexeme("relation", "between"))
    for side in SIDES:
        enter(f"from {side}", _Lexeme("from", side))
    for form, sides in _places():
        enter(form, _Lexeme("place", sides))
        for preposition in _PREPOSITIONS:
            enter(f"{preposition} {form}", _Lexeme("place", sides))
    return entries


def _places() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every wording of a place, without preposition, and its sides."""
    for form in MIDDLE:
        yield form, ()
    for side, forms in SIDES.items():
        for form in forms:
            yield form, (side,)
            yield f"{form} side", (side,)
    for tall, wide in itertools.product(("top", "bottom"), ("left", "right")):
        for form in SIDES[tall]:
            for end in ("", " corner", " side"):
                yield f"{form} {wide}{end}", (tall, wide)


_LEXICON = _lexicon()
_LONGEST = max(len(words) for words in _LEXICON)
