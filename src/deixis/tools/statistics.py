"""What a data set is like: lengths of phrases, sizes of boxes, words of place, vocabulary, categories."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from deixis.charts import Line, Panel
from deixis.data import Dataset, as_dataset
from deixis.data.captions.statistics import measure_words, words_of
from deixis.structures import Sample

SMALL_PX, MEDIUM_PX = 32, 96
"""COCO's bounds: a box is small below 32 x 32 pixels, large from 96 x 96 on."""
BINS = 20
_SHOWN = 30
_SHOWN_IN_ROW = 12
_MAX_ACROSS = 40
_MAX_WORDS = 200


@dataclass
class DatasetStatistics:
    """Counts over the samples of a data set. ``samples + left_out`` is how many there are."""

    samples: int = 0
    left_out: int = 0
    nothing: int = 0
    """Phrases that mean nothing in their image."""
    masks: int = 0
    images: Counter[str] = field(default_factory=Counter)
    """Phrases by image."""
    splits: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    vocabulary: Counter[str] = field(default_factory=Counter)
    phrases: list[list[str]] = field(default_factory=list)
    """The words of each phrase."""
    areas_px: list[float] = field(default_factory=list)
    side_shares: list[float] = field(default_factory=list)
    """Of each box in an image of known size the square root of its share of the image, 0..1."""
    problems: list[str] = field(default_factory=list)

    def lengths(self) -> dict[int, int]:
        """Phrases by number of words."""
        return dict(sorted(Counter(map(len, self.phrases)).items()))

    def phrases_an_image(self) -> dict[int, int]:
        """Images by number of phrases."""
        return dict(sorted(Counter(self.images.values()).items()))

    def side_histogram(self) -> list[int]:
        """Boxes by `side_shares`, in `BINS` bins of one width from 0 to 1."""
        bins = Counter(min(int(share * BINS), BINS - 1) for share in self.side_shares)
        return [bins[one] for one in range(BINS)]

    def words_for(self, share: float) -> int:
        """How many of the most frequent words make up that share of all words."""
        wanted, count = share * self.vocabulary.total(), 0
        for number, (_, times) in enumerate(self.vocabulary.most_common(), start=1):
            count += times
            if count >= wanted:
                return number
        return 0

    def sizes(self) -> dict[str, int]:
        """Boxes that are small, medium and large in pixels of their image."""
        small = sum(area < SMALL_PX**2 for area in self.areas_px)
        large = sum(area >= MEDIUM_PX**2 for area in self.areas_px)
        return {"small": small, "medium": len(self.areas_px) - small - large, "large": large}

    def report(self) -> dict[str, Any]:
        """All of it as JSON can hold it; figures that nothing is known for are null."""
        counts = list(self.images.values())
        shares = {name: value for name, value, _ in measure_words(self.phrases)} if self.phrases else {}
        return {
            "samples": self.samples,
            "left_out": self.left_out,
            "nothing_meant": self.nothing,
            "with_mask": self.masks,
            "images": len(counts),
            "splits": dict(self.splits.most_common()),
            "phrases_an_image": {**_spread(counts), "histogram": self.phrases_an_image()},
            "words": {**_spread([len(one) for one in self.phrases]), "histogram": self.lengths()},
            "phrases": shares,
            "boxes": {**self.sizes(), "side_share": _spread(self.side_shares), "histogram": self.side_histogram()},
            "vocabulary": {
                "words": len(self.vocabulary),
                "once": sum(times == 1 for times in self.vocabulary.values()),
                "for_half": self.words_for(0.5),
                "for_90_percent": self.words_for(0.9),
                "most": self.vocabulary.most_common(_SHOWN),
            },
            "categories": dict(self.categories.most_common()),
            "kinds": dict(self.kinds.most_common()),
        }


def measure_dataset(samples: Sequence[Sample], progress: Callable[[int, int], None] | None = None) -> DatasetStatistics:
    """Look at every sample once; of image files no more than the head is read, once each.

    A sample that cannot be read is counted in ``left_out`` and told in ``problems``. The size of a box as a share of
    its image is left out where the image is not there.
    """
    samples, found = as_dataset(samples), DatasetStatistics()
    sizes: dict[object, tuple[int, int] | None] = {}
    for number in range(len(samples)):
        try:
            sample = samples[number]
        except (ValueError, OSError) as error:
            found.left_out += 1
            found.problems.append(f"sample {number}: {error}")
            continue
        finally:
            if progress is not None:
                progress(number + 1, len(samples))
        _count(found, sample)
        if sample.box_xyxy_px is not None:
            _count_box(found, sample, _hw(samples, number, sample, sizes))
    return found


def _count(found: DatasetStatistics, sample: Sample) -> None:
    words = words_of(sample.phrase)
    found.samples += 1
    found.phrases.append(words)
    found.vocabulary.update(words)
    found.images[sample.image_id] += 1
    found.splits[sample.split] += 1
    found.masks += sample.mask is not None
    found.nothing += sample.box_xyxy_px is None
    if sample.category is not None:
        found.categories[sample.category] += 1
    if sample.kind is not None:
        found.kinds[sample.kind] += 1


def _count_box(found: DatasetStatistics, sample: Sample, hw: tuple[int, int] | None) -> None:
    assert sample.box_xyxy_px is not None
    x1, y1, x2, y2 = sample.box_xyxy_px
    found.areas_px.append((x2 - x1) * (y2 - y1))
    if hw is not None:
        found.side_shares.append(min(1.0, ((x2 - x1) * (y2 - y1) / (hw[0] * hw[1])) ** 0.5))


def _hw(
    samples: Dataset, number: int, sample: Sample, sizes: dict[object, tuple[int, int] | None]
) -> tuple[int, int] | None:
    image = sample.image if isinstance(sample.image, Path) else number
    if image not in sizes:
        try:
            sizes[image] = samples.image_hw(number)
        except (OSError, ValueError):
            sizes[image] = None
    return sizes[image]


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return dict.fromkeys(("mean", "median", "least", "most"))
    return {
        "mean": statistics.fmean(values),
        "median": float(statistics.median(values)),
        "least": min(values),
        "most": max(values),
    }


def table_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The figures of `DatasetStatistics.report` for people: name and value."""
    words, images, boxes, vocabulary = (report[name] for name in ("words", "phrases_an_image", "boxes", "vocabulary"))
    side = boxes["side_share"]
    measured = [
        [name, f"{value:.1%}"]
        for name, value in report["phrases"].items()
        if not name.startswith("words, ")  # stands above already
    ]
    return [
        ["samples", str(report["samples"])],
        ["left out", str(report["left_out"])],
        ["phrases that mean nothing", str(report["nothing_meant"])],
        ["with a mask", str(report["with_mask"])],
        ["images", str(report["images"])],
        ["phrases an image", _range(images, ".1f", "d")],
        ["words a phrase", _range(words, ".1f", "d")],
        *measured,
        ["boxes small, medium, large", ", ".join(str(boxes[name]) for name in ("small", "medium", "large"))],
        ["side of a box by that of its image", "not known" if side["mean"] is None else _range(side, ".2f", ".2f")],
        ["different words", f"{vocabulary['words']}, of which {vocabulary['once']} stand once"],
        ["words that make up half of all", f"{vocabulary['for_half']}; 90 %: {vocabulary['for_90_percent']}"],
        ["most frequent words", _most(dict(vocabulary["most"]))],
        *([what, _most(report[what])] for what in ("splits", "categories", "kinds") if report[what]),
    ]


def _range(of: Mapping[str, Any], mean: str, ends: str) -> str:
    return f"{of['mean']:{mean}} on average, {of['least']:{ends}} to {of['most']:{ends}}"


def _most(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{name or 'no name'} {count}" for name, count in list(counts.items())[:_SHOWN_IN_ROW])
    return named + (f" and {len(counts) - _SHOWN_IN_ROW} more" if len(counts) > _SHOWN_IN_ROW else "")


def chart_panels(found: DatasetStatistics) -> list[Panel]:
    """Charts of the lengths of phrases, phrases an image, sizes of boxes, and how few words make up most."""
    sides = [((one + 0.5) / BINS, count) for one, count in enumerate(found.side_histogram())]
    charts = [
        ("phrases, %", "words", list(_filled(found.lengths()).items()), found.samples),
        ("images, %", "phrases of the image", list(_filled(found.phrases_an_image()).items()), len(found.images)),
        ("boxes, %", "side of the box by that of its image (roots of their areas)", sides, len(found.side_shares)),
    ]
    panels = []
    for up, across, counts, whole in charts:
        if whole:
            points = [(x, 100 * count / whole) for x, count in counts]
            line = Line(name="", points=points, ranges=[(x, 0, y) for x, y in points], is_joined=False)
            panels.append(Panel(up_label=up, across_label=across, lines=[line]))
    total = found.vocabulary.total()
    together = accumulate(count for _, count in found.vocabulary.most_common(_MAX_WORDS))
    if points := [(number, 100 * count / total) for number, count in enumerate(together, start=1)]:
        line = Line(name="", points=points)
        panels.append(Panel(up_label="of all words, %", across_label="most frequent words together", lines=[line]))
    return panels


def _filled(histogram: Mapping[int, int]) -> dict[int, int]:
    """With the numbers that nothing has, up to the greatest, or 40: beyond, all together."""
    end = min(max(histogram), _MAX_ACROSS)
    counts = {number: histogram.get(number, 0) for number in range(end + 1)}
    counts[end] += sum(count for number, count in histogram.items() if number > end)
    return counts
