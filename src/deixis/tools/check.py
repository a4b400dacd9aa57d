"""What is wrong with a split of a data set: images, boxes, masks, phrases, and counts against the published ones."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deixis.data import Dataset, as_dataset, open_dataset
from deixis.data.formats import flickr30k, grefcoco
from deixis.data.formats.refer import REFER, SPLITS
from deixis.geometry.boxes import box_iou, clip_box
from deixis.geometry.images import read_image
from deixis.geometry.masks import box_from_mask, read_mask
from deixis.structures import BoxXyxy, Sample
from deixis.tools.published_counts import KINDS, PUBLISHED, Counts, published_counts, published_name

IMAGES = ("sample", "all", "none")
"""Of how many images the pixels are looked at."""
NOTHING = "none"
"""In the place of a public data set: compare with no published counts, as for a part of a data set."""
SAMPLED_IMAGES = 200
MIN_MASK_FIT = 0.5
"""Below this IoU of box and the mask's own box, they are of two things."""
LOOSE_MASK_FIT = 0.9

_EXAMPLES = 3
_SEED = 0
_BORDER_PX = 1.0  # boxes in whole pixels and "+ 1" conventions reach so far over the border
_EDGE_PX = 1.5  # the box around drawn pixels, against one of continuous edges
_WORD = re.compile(r"[^\W_]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_USUAL_LEADS = "ÂÃÄÅÎÏÐÑâãïð"
_ENTITY = re.compile(r"&(?:[a-z]{2,8}|#\d{2,5}|#x[0-9a-f]{2,4});", re.IGNORECASE)
_SCENE_PHRASE = "no box for the entity of a phrase"  # of Flickr30k Entities, by design

MESSAGES: dict[str, tuple[str, str]] = {
    "unopened": ("error", "splits that cannot be opened"),
    "no samples": ("error", "splits without a sample"),
    "missing images": ("error", "images that are not there"),
    "unreadable images": ("error", "images that cannot be decoded"),
    "left out": ("error", "expressions that cannot be used: an empty phrase, a box of no area, a missing annotation"),
    "box outside": ("error", "boxes outside of their image"),
    "mask unusable": ("error", "masks that cannot be drawn, or have no pixel"),
    "mask elsewhere": ("error", f"masks whose own box has an IoU under {MIN_MASK_FIT} with the box"),
    "damaged characters": ("error", "phrases with replacement or control characters"),
    "wrong encoding": ("error", "phrases read in the wrong encoding, such as Ã© for é"),
    "counts": ("error", "numbers that differ from the published ones"),
    "uncertain counts": ("warning", "numbers that differ from published ones that are not firm"),
    "told by the reader": ("warning", "problems that the reader reported"),
    "without boxes": ("warning", "phrases without a box, such as scenes: left out"),
    "box cut": ("warning", "boxes that reached over the border and were cut"),
    "box over the border": ("warning", "boxes that reach over the border"),
    "tiny box": ("warning", "boxes of less than one pixel"),
    "mask loose": ("warning", f"masks whose own box has an IoU under {LOOSE_MASK_FIT} with the box"),
    "no words": ("warning", "phrases without a letter or digit"),
    "line breaks": ("warning", "phrases with line breaks or tabs"),
    "HTML": ("warning", "phrases with HTML entities, such as &amp;"),
    "duplicates": ("warning", "repeats of an image, box and phrase"),
}
"""By kind: how serious, and in words."""


@dataclass
class Finding:
    """Something wrong, how often, and the first few places."""

    kind: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def severity(self) -> str:
        """``error`` or ``warning``."""
        return MESSAGES[self.kind][0]

    @property
    def what(self) -> str:
        """In words."""
        return MESSAGES[self.kind][1]


@dataclass
class SplitCheck:
    """What was looked at and found; ``samples + left_out`` is what the files hold for the split."""

    dataset: str
    split: str | None
    samples: int = 0
    left_out: int = 0
    referents: int | None = None
    images: int = 0
    images_decoded: int = 0
    boxes_checked: int = 0
    masks_checked: int = 0
    found: dict[str, Finding] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, example: str, count: int = 1) -> None:
        """Count a finding."""
        finding = self.found.setdefault(kind, Finding(kind))
        finding.count += count
        if len(finding.examples) < _EXAMPLES:
            finding.examples.append(example)

    @property
    def findings(self) -> list[Finding]:
        """Errors first."""
        order = list(MESSAGES)
        return sorted(self.found.values(), key=lambda one: order.index(one.kind))

    def count(self, severity: str) -> int:
        """Findings of a severity, repeats included."""
        return sum(one.count for one in self.found.values() if one.severity == severity)

    def report(self) -> dict[str, Any]:
        """For JSON."""
        plain = {key: value for key, value in asdict(self).items() if key != "found"}
        findings = [
            {"kind": one.kind, "severity": one.severity, "what": one.what, "count": one.count, "examples": one.examples}
            for one in self.findings
        ]
        return plain | {"errors": self.count("error"), "warnings": self.count("warning"), "findings": findings}


def check_dataset(
    name: str,
    split: str | None = None,
    root: str | Path | None = None,
    *,
    images: str = "sample",
    published: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> list[SplitCheck]:
    """Check a split, or all splits of a public data set where none is named, and compare the published counts.

    Args:
        name: as for `deixis.data.open_dataset`.
        split: one of its splits.
        root: as there.
        images: see `check_split`.
        published: the public data set that this is a copy of, or `NOTHING`; by default as the name says, if it
            does.
        progress: called with (done, in all) for each split.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: a name is unknown, or no split can be opened.
    """
    if published is not None and published not in (*PUBLISHED, NOTHING):
        raise ValueError(f"expected a data set out of {', '.join(PUBLISHED)}, {NOTHING}, got {published!r}; choose one")
    known, told_split = published_name(published or name, split)
    splits = [split] if split is not None else known_splits(name)
    checks = []
    for one in splits:
        try:
            samples = open_dataset(name, one, root)
        except (OSError, ValueError) as error:
            if len(splits) == 1:
                raise
            checks.append(SplitCheck(name, one))
            checks[-1].add("unopened", str(error))
            continue
        checks.append(check_split(samples, name, one, images=images, progress=progress))
        compare_counts(checks[-1], published_counts(known, one or told_split))
    if all("unopened" in one.found for one in checks):
        raise ValueError(checks[0].found["unopened"].examples[0])
    if len(checks) > 1:
        _compare_totals(checks, known)
    return checks


def known_splits(name: str) -> list[str | None]:
    """The splits of a public data set that share no sample; the one of no name for others."""
    if name in REFER:
        return [one for one in SPLITS[REFER[name]] if one != "trainval"]
    if name == "flickr30k":
        return list(flickr30k.SPLITS)
    return list(grefcoco.SPLITS) if name == "grefcoco" else [None]


def _compare_totals(checks: Sequence[SplitCheck], known: str) -> None:
    """Compare the expressions of all splits together; the findings stand with the last split."""
    last = checks[-1]
    whole = SplitCheck(last.dataset, None, sum(one.samples for one in checks), sum(one.left_out for one in checks))
    counts = published_counts(known, None).get("expressions", ())
    compare_counts(whole, {"expressions": counts})
    last.notes += [f"all splits together: {note}" for note in whole.notes]
    for kind, finding in whole.found.items():
        last.add(kind, f"all splits together: {finding.examples[0]}")


def check_split(
    samples: Sequence[Sample],
    dataset: str,
    split: str | None,
    *,
    images: str = "sample",
    progress: Callable[[int, int | None], None] | None = None,
) -> SplitCheck:
    """Look at every phrase and every image file's place, and at the pixels, boxes and masks of some or all images.

    Args:
        samples: one split.
        dataset: its name, for the report.
        split: for the report.
        images: ``sample`` decodes `SAMPLED_IMAGES` of the images, the same at every call; ``all``; or ``none``.
            Boxes and masks are checked where the image is decoded: only then is its size known.
        progress: called with (done, in all); a sample read and an image decoded count one each.

    Raises:
        ValueError: ``images`` is none of these.
    """
    if images not in IMAGES:
        raise ValueError(f"expected images out of {', '.join(IMAGES)}, got {images!r}; choose one")
    samples, check = as_dataset(samples), SplitCheck(dataset, split, samples=len(samples))
    tell = progress or (lambda done, total: None)
    if not len(samples):
        check.add("no samples", f"{dataset}{':' if split else ''}{split or ''}")
    _tell_reader(samples, check)
    groups = _read_samples(samples, check, tell)
    check.images = len(groups)
    chosen = groups if images != "none" else []
    if images == "sample" and len(groups) > SAMPLED_IMAGES:
        order = np.random.default_rng(_SEED).permutation(len(groups))[:SAMPLED_IMAGES]
        chosen = [groups[one] for one in np.sort(order)]
    for number, group in enumerate(chosen, start=1):
        _check_image(samples, group, check)
        tell(len(samples) + number, len(samples) + len(chosen))
    return check


def compare_counts(check: SplitCheck, counts: Counts) -> None:
    """Compare with what is published of the split; each comparison leaves a note, and a finding where none agrees.

    Expressions that were left out count, as they are in the files.
    """
    own = {"expressions": check.samples + check.left_out, "referents": check.referents, "images": check.images}
    for kind in KINDS:
        value, published = own[kind], counts.get(kind, ())
        if value is None or not published:
            continue
        told = " or ".join(f"{one.value:,} ({one.source})" for one in published)
        agrees = [one for one in published if one.value == value]
        if agrees:
            check.notes.append(f"{value:,} {kind}, as published ({agrees[0].source})")
        else:
            firm = any(one.firm for one in published)
            check.add("counts" if firm else "uncertain counts", f"{value:,} {kind}; published: {told}")


def phrase_damage(phrase: str) -> list[str]:
    """The kinds of `MESSAGES` that hold for a phrase.

    >>> phrase_damage("the cafÃ© sign"), phrase_damage("the café sign"), phrase_damage("???")
    (['wrong encoding'], [], ['no words'])
    """
    kinds = []
    if not _WORD.search(phrase):
        kinds.append("no words")
    if any(letter in "\t\n\r\x0b\x0c\u2028\u2029" for letter in phrase):
        kinds.append("line breaks")
    if any(_is_damaged(letter) for letter in phrase):
        kinds.append("damaged characters")
    if any(_is_mojibake(run) for run in _NOT_ASCII.findall(phrase)):
        kinds.append("wrong encoding")
    if _ENTITY.search(phrase):
        kinds.append("HTML")
    return kinds


def _is_damaged(letter: str) -> bool:
    is_control = unicodedata.category(letter) == "Cc" and letter not in "\t\n\r\x0b\x0c"
    return letter in "\ufffd\ufeff" or (is_control and not "\x80" <= letter <= "\x9f")


def _is_mojibake(run: str) -> bool:
    """Whether letters beyond ASCII are bytes of UTF-8 that were read as Latin-1 or Windows-1252.

    A C1 control can only come from this. Some other pairs spell UTF-8 by chance, as a German ss before a closing quote:
    they count where they start as damaged text does in practice, or spell more than one letter.
    """
    if any("\x80" <= letter <= "\x9f" for letter in run):
        return True
    for encoding in ("cp1252", "latin-1"):
        try:
            meant = run.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return run[0] in _USUAL_LEADS or len(meant) > 1
    return False


def _tell_reader(samples: Dataset, check: SplitCheck) -> None:
    """What the reader left out or cut."""
    check.left_out = samples.left_out
    kind = "left out" if check.left_out else "told by the reader"
    for problem in samples.problems:
        check.add("without boxes" if _SCENE_PHRASE in problem else kind, problem)
    if check.left_out and "without boxes" not in check.found:
        check.found["left out"].count = check.left_out  # one sentence may stand for several
    if samples.clipped_boxes:
        check.add("box cut", f"{samples.clipped_boxes} boxes", samples.clipped_boxes)
    check.referents = len(samples.referents) if samples.has_referents else None


def _read_samples(samples: Dataset, check: SplitCheck, tell: Callable[[int, int | None], None]) -> list[list[int]]:
    """Check phrases, repeats and the places of images; the indices of the samples of each image."""
    numbers: dict[object, int] = {}
    image_of, rows = array("q"), array("q")
    seen: set[int] = set()
    for index in range(len(samples)):
        tell(index + 1, len(samples))
        try:
            sample = samples[index]
        except (OSError, ValueError) as error:
            check.add("left out", f"sample {index}: {error}")
            check.samples, check.left_out = check.samples - 1, check.left_out + 1
            continue
        key = sample.image if isinstance(sample.image, Path) else sample.image_id
        if key not in numbers:
            numbers[key] = len(numbers)
            if isinstance(sample.image, Path) and not _is_file(sample.image):
                check.add("missing images", str(sample.image))
        for kind in phrase_damage(sample.phrase):
            check.add(kind, f"{sample.id}: {sample.phrase!r}")
        same = hash((numbers[key], sample.box_xyxy_px, sample.phrase))
        if same in seen:
            check.add("duplicates", f"{sample.id}: {sample.phrase!r}")
        seen.add(same)
        image_of.append(numbers[key])
        rows.append(index)
    order = np.argsort(np.asarray(image_of, dtype=np.int64), kind="stable")
    ends = np.cumsum(np.bincount(np.asarray(image_of, dtype=np.int64), minlength=len(numbers)))
    sorted_rows = np.asarray(rows, dtype=np.int64)[order]
    return [part.tolist() for part in np.split(sorted_rows, ends[:-1])] if numbers else []


def _check_image(samples: Dataset, group: Sequence[int], check: SplitCheck) -> None:
    first = samples[group[0]]
    try:
        hw = read_image(first.image).shape[:2]
    except FileNotFoundError:
        return  # counted among the missing
    except (OSError, ValueError) as error:
        check.add("unreadable images", str(error))
        return
    check.images_decoded += 1
    for index in group:
        sample = samples[index]
        if sample.box_xyxy_px is None:
            continue
        check.boxes_checked += 1
        for kind in _box_problems(sample.box_xyxy_px, hw):
            numbers = ", ".join(f"{value:g}" for value in sample.box_xyxy_px)
            check.add(kind, f"{sample.id}: ({numbers}) in an image of {hw[1]} x {hw[0]} pixels")
        _check_mask(sample, sample.box_xyxy_px, hw, check)


def _box_problems(box: BoxXyxy, hw: tuple[int, int]) -> Iterator[str]:
    x1, y1, x2, y2 = box
    height, width = hw
    inside = clip_box(box, hw)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        yield "box outside"
        return
    if min(x1, y1, width - x2, height - y2) < -_BORDER_PX:
        yield "box over the border"
    if (x2 - x1) * (y2 - y1) < 1:
        yield "tiny box"


def _check_mask(sample: Sample, box: BoxXyxy, hw: tuple[int, int], check: SplitCheck) -> None:
    if sample.mask is None:
        return
    check.masks_checked += 1
    try:
        around = box_from_mask(read_mask(sample.mask, hw))
    except (OSError, ValueError) as error:
        check.add("mask unusable", f"{sample.id}: {error}")
        return
    if around is None:
        check.add("mask unusable", f"{sample.id}: no pixel")
        return
    fit = float(box_iou(around, box))
    near = max(abs(a - b) for a, b in zip(around, box, strict=True)) <= _EDGE_PX
    if fit < LOOSE_MASK_FIT and not near:
        kind = "mask loose" if fit >= MIN_MASK_FIT else "mask elsewhere"
        check.add(kind, f"{sample.id}: IoU {fit:.2f}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
