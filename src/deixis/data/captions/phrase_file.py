"""Write a file of phrases for the instances of a COCO file: what ``deixis data phrases`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deixis.data.captions.choice import CANDIDATES, choose_like_people
from deixis.data.captions.statistics import (
    StatisticsRow,
    compare_statistics,
    format_statistics,
    read_expressions,
)
from deixis.data.captions.writing import VisibleInstance, write_phrases
from deixis.data.captions.written import is_fully_annotated
from deixis.data.dataset import split_of
from deixis.data.formats.coco import CocoImage, CocoInstances
from deixis.data.formats.jsonl import write_jsonl
from deixis.geometry.images import read_image
from deixis.geometry.masks import read_mask
from deixis.structures import Instance, Sample

_SHOWN_PROBLEMS = 5


@dataclass
class PhraseFileSummary:
    """What was written; ``str()`` of it is a few lines for people.

    ``without_colours`` counts the images that could not be read, for which no colour was written; ``problems`` says
    why, and which records of the COCO file were left out. ``statistics`` is empty without a comparison.
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
    """Write unambiguous phrases for all instances of a COCO file that can be told apart, as JSON lines.

    Each line names the split that `split_of` gives its image, so ``OUT.jsonl:test`` is the held-out part. A file of
    more than one category counts as fully annotated: see `is_fully_annotated` and `write_phrases`.

    Args:
        instances_json: a COCO instances file.
        out: the JSONL file; it is written whole or not at all.
        images: the folder of the images, by default as `CocoInstances.read` finds it. An image that cannot be read
            gets phrases without colours.
        seed: not negative; an image's phrases depend on it and on the image's id alone.
        per_instance: at most so many phrases for one instance.
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
    options = _Options(per_instance, min_area, loose_synonyms, is_fully_annotated(coco))

    def samples() -> Iterator[Sample]:
        for done, image in enumerate(coco.images, start=1):
            rng = np.random.default_rng([seed, image.id % 2**64])  # an id may be negative, a seed may not
            for sample in _describe(image, coco.instances(image.id), rng, summary, options):
                texts.append(sample.phrase)
                yield sample
            if progress is not None:
                progress(done, len(coco.images))

    write_jsonl(out, samples())
    if human and texts:
        summary.statistics = compare_statistics(texts, human)
    return summary


@dataclass(frozen=True)
class _Options:
    """What `write_phrases` is told of every image."""

    per_instance: int
    min_area: float
    loose_synonyms: bool
    fully_annotated: bool


def _describe(
    image: CocoImage,
    instances: list[Instance],
    rng: np.random.Generator,
    summary: PhraseFileSummary,
    options: _Options,
) -> list[Sample]:
    """The samples of one image, counted in ``summary``."""
    pixels = _read(image, summary)
    visible = [_visible(instance, image, summary) for instance in instances]
    candidates = {**asdict(options), "per_instance": CANDIDATES * options.per_instance}
    written = choose_like_people(write_phrases(visible, image.hw, pixels, rng, **candidates), options.per_instance, rng)
    summary.images += 1
    summary.instances += len(instances)
    summary.large_enough += sum(_share(i, image.hw) >= options.min_area and not i.is_crowd for i in instances)
    summary.described += len({phrase.index for phrase in written})
    samples = []
    for number, phrase in enumerate(written):
        meant = instances[phrase.index]
        summary.kinds[phrase.kind] = summary.kinds.get(phrase.kind, 0) + 1
        mask = meant.mask if visible[phrase.index].mask is not None else None
        samples.append(
            Sample(
                id=f"{image.id}-{number}",
                image=image.path,
                image_id=str(image.id),
                phrase=phrase.text,
                box_xyxy_px=meant.box_xyxy_px,
                mask=mask,
                split=split_of(image.id),
                category=meant.category,
                kind=phrase.kind,
            )
        )
    return samples


def _read(image: CocoImage, summary: PhraseFileSummary) -> NDArray[np.uint8] | None:
    """The pixels, or None with the reason noted."""
    try:
        pixels = read_image(image.path)
        if pixels.shape[:2] != image.hw:
            raise ValueError(
                f"expected {str(image.path)!r} to have (height, width) {image.hw}, got {pixels.shape[:2]}; "
                "correct the COCO file"
            )
    except (OSError, ValueError) as error:
        summary.problems.append(str(error))
        summary.without_colours += 1
        return None
    return pixels


def _visible(instance: Instance, image: CocoImage, summary: PhraseFileSummary) -> VisibleInstance:
    mask = None
    if instance.mask is not None:
        try:
            mask = read_mask(instance.mask, image.hw)
        except (OSError, ValueError) as error:
            summary.problems.append(f"image {image.id}, a {instance.category} without its mask: {error}")
    return VisibleInstance(instance.category, instance.box_xyxy_px, mask, instance.is_crowd)


def _share(instance: Instance, hw: tuple[int, int]) -> float:
    x1, y1, x2, y2 = instance.box_xyxy_px
    return (x2 - x1) * (y2 - y1) / (hw[0] * hw[1])
