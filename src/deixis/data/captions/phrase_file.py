"""Write a file of phrases for the instances of a COCO file: what ``deixis data phrases`` does.

Of several candidates those are chosen that make a whole file sound like people: as long, and as often about places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deixis.data.captions.statistics import (
    StatisticsRow,
    compare_statistics,
    format_statistics,
    read_expressions,
)
from deixis.data.captions.writing import Phrase, write_phrases
from deixis.data.captions.written import is_fully_annotated, rng_of, samples_of
from deixis.data.dataset import split_of
from deixis.data.formats.coco import CocoInstances
from deixis.data.formats.jsonl import write_jsonl
from deixis.data.photos import Photo, read_pixels, visible_instance
from deixis.language.directions import names_direction
from deixis.structures import Instance, Sample, VisibleInstance

CANDIDATES = 3
"""Phrases to write for each that is wanted."""
_PLACE_WEIGHT = 0.2
_WORDS_WEIGHTS = ((3, 0.5), (9, 1.0), (1000, 2.2))
"""(at most so many words, weight): chosen so that files of photos come near the human figures."""
_SHOWN_PROBLEMS = 5


@dataclass
class PhraseFileSummary:
    """What was written; ``str()`` of it is a few lines to print.

    ``without_colours`` counts the images that could not be read, whose phrases name no colours; ``problems`` says why,
    and which records of the COCO file were left out. ``statistics`` is empty without a comparison.
    """

    out: Path
    images: int = 0
    instances: int = 0
    large_enough: int = 0
    described: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    without_colours: int = 0
    problems: list[str] = field(default_factory=list)
    statistics: list[StatisticsRow] = field(default_factory=list)

    @property
    def phrases(self) -> int:
        """How many phrases were written."""
        return sum(self.kinds.values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.kinds.items(), key=lambda item: -item[1]))
        lines = [
            f"{self.phrases} phrases for {self.described} of {self.large_enough} instances large enough "
            f"({self.instances} in {self.images} images), written to {self.out}",
            *([f"kinds: {kinds}"] if kinds else []),
        ]
        if self.without_colours:
            lines.append(f"{self.without_colours} images could not be read: their phrases name no colours")
        if self.problems:
            lines.append(f"{len(self.problems)} problems:")
            lines += [f"  {problem}" for problem in self.problems[:_SHOWN_PROBLEMS]]
            if len(self.problems) > _SHOWN_PROBLEMS:
                lines.append(f"  and {len(self.problems) - _SHOWN_PROBLEMS} more")
        if self.statistics:
            lines.append(format_statistics(self.statistics))
        return "\n".join(lines)


def write_phrase_file(
    instances_json: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    seed: int = 0,
    per_instance: int = 3,
    min_area: float = 0.03,
    loose_synonyms: bool = False,
    compare: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PhraseFileSummary:
    """Write unambiguous phrases for all instances of a COCO file that words can single out, as JSON lines.

    Each line names the split that `split_of` gives its image, so ``OUT.jsonl:test`` is the held-out part. A file of
    more than one category counts as fully annotated: see `is_fully_annotated` and `write_phrases`.

    Args:
        instances_json: a COCO instances file.
        out: the JSONL file; it is written whole or not at all.
        images: the folder of the images, by default as `CocoInstances.read` finds it. An image that cannot be read
            gets phrases without colours.
        seed: not negative; an image's phrases depend on it and on the image's id alone.
        per_instance: the most phrases for one instance.
        min_area: the least share of the image that the box of an instance has to take.
        loose_synonyms: see `write_phrases`.
        compare: a CSV with a column ``expression`` of human expressions; the summary then holds the comparison.
        progress: called with (images done, images in all).

    Raises:
        FileNotFoundError: the COCO file or the CSV is not there.
        ValueError: one of them is not what it should be.
        OSError: ``out`` cannot be written.
    """
    human = [] if compare is None else read_expressions(compare)
    coco = CocoInstances.read(instances_json, images)
    summary = PhraseFileSummary(Path(out), problems=list(coco.problems))
    texts: list[str] = []
    options = {
        "min_area": min_area,
        "loose_synonyms": loose_synonyms,
        "fully_annotated": is_fully_annotated(coco),
        "per_instance": CANDIDATES * per_instance,
    }

    def samples() -> Iterator[Sample]:
        for done, image in enumerate(coco.images, start=1):
            photo = Photo(image.id, image.path, image.hw, tuple(coco.instances(image.id)))
            for sample in _describe(photo, seed, per_instance, summary, options):
                texts.append(sample.phrase)
                yield sample
            if progress is not None:
                progress(done, len(coco.images))

    write_jsonl(out, samples())
    if human and texts:
        summary.statistics = compare_statistics(texts, human)
    return summary


def _describe(
    photo: Photo, seed: int, per_instance: int, summary: PhraseFileSummary, options: dict[str, Any]
) -> Iterator[Sample]:
    """The samples of one photo, counted in ``summary``."""
    pixels, rng = _read(photo, summary), rng_of(photo, seed)
    visible = [_visible(instance, photo, summary) for instance in photo.instances]
    written = choose_like_people(write_phrases(visible, photo.hw, pixels, rng, **options), per_instance, rng)
    large = [i for i in visible if _share(i, photo.hw) >= options["min_area"] and not i.is_crowd]
    summary.images += 1
    summary.instances += len(visible)
    summary.large_enough += len(large)
    summary.described += len({phrase.index for phrase in written})
    for phrase in written:
        summary.kinds[phrase.kind] = summary.kinds.get(phrase.kind, 0) + 1
    readable = (
        i if v.mask is not None else replace(i, mask=None) for i, v in zip(photo.instances, visible, strict=True)
    )
    return samples_of(replace(photo, instances=tuple(readable)), written, split_of(photo.image_id))


def _read(photo: Photo, summary: PhraseFileSummary) -> NDArray[np.uint8] | None:
    """The pixels, or None with the reason noted."""
    try:
        return read_pixels(photo.path, photo.hw)
    except (OSError, ValueError) as error:
        summary.problems.append(str(error))
        summary.without_colours += 1
        return None


def _visible(instance: Instance, photo: Photo, summary: PhraseFileSummary) -> VisibleInstance:
    try:
        return visible_instance(instance, photo.hw)
    except (OSError, ValueError) as error:
        summary.problems.append(f"image {photo.image_id}, a {instance.category} without its mask: {error}")
        return visible_instance(replace(instance, mask=None), photo.hw)


def _share(instance: VisibleInstance, hw: tuple[int, int]) -> float:
    x1, y1, x2, y2 = instance.box_xyxy_px
    return (x2 - x1) * (y2 - y1) / (hw[0] * hw[1])


def choose_like_people(phrases: Sequence[Phrase], most: int, rng: np.random.Generator) -> list[Phrase]:
    """At most ``most`` phrases of each instance, drawn by weight without replacement; instances keep their order."""
    of_instance: dict[int, list[Phrase]] = {}
    for phrase in phrases:
        of_instance.setdefault(phrase.index, []).append(phrase)
    return [phrase for group in of_instance.values() for phrase in _draw(group, most, rng)]


def _draw(group: list[Phrase], most: int, rng: np.random.Generator) -> list[Phrase]:
    weights = np.array([phrase_weight(phrase.text) for phrase in group])
    count = min(most, len(group))
    chosen = rng.choice(len(group), size=count, replace=False, p=weights / weights.sum())
    return [group[place] for place in chosen]


def phrase_weight(text: str) -> float:
    """How much a phrase is wanted, above 0."""
    words = len(text.split())
    by_length = next(weight for most, weight in _WORDS_WEIGHTS if words <= most)
    return by_length * (_PLACE_WEIGHT if names_direction(text) else 1.0)
