"""Bring answers and targets together, in whatever order the answers come; each line and each sample is accounted for.

No figure depends on the order of the lines: an id with two answers that differ counts as wrong, since nothing says
which of them is meant, and what a model can give (boxes, masks) is judged by the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from deixis.evaluate.metrics import SampleScore
from deixis.evaluate.metrics.reference import Official, Pair
from deixis.evaluate.predictions import BoxForm, Line
from deixis.evaluate.targets import Target
from deixis.geometry.boxes import box_iou
from deixis.geometry.masks import BoolMask, area_of_runs, mask_from_runs, overlap_of_runs, read_mask, run_lengths
from deixis.structures import BoxXyxy, Mask

_TELLING_SHARE = 0.05
_FRACTION = 1.5
"""Up to here a coordinate may be a fraction of the image, drawn a little too far."""
Overlaps = tuple[float | None, float | None]


class _TargetError(Exception):
    """The data set's own mask cannot be used, or the size of its image is not known."""


@dataclass
class Counts:
    """Where all lines and all samples went.

    ``lines`` = ``answered + unusable + conflicting + for_left_out + doubled + unknown + unreadable``, and
    ``samples`` = ``answered + missing + unusable + conflicting + left_out``.
    """

    samples: int = 0
    answered: int = 0
    missing: int = 0
    """Samples without a line: wrong."""
    unusable: int = 0
    """Samples whose line cannot be used: wrong."""
    conflicting: int = 0
    """Samples with lines that differ: wrong."""
    left_out: int = 0
    """Samples whose own mask cannot be used, or whose image's size is needed and not known: not counted at all."""
    without_box: int = 0
    """Answered samples without a box, in a file with boxes: their box is wrong."""
    without_mask: int = 0
    """The same for masks."""
    lines: int = 0
    doubled: int = 0
    """Lines beyond the first of an id."""
    unknown: int = 0
    """Lines whose id is not in the data set."""
    unreadable: int = 0
    """Lines without an id that can be read."""
    for_left_out: int = 0
    """First lines of samples that are left out."""
    data_problems: int = 0
    """Sentences on the data set itself: what gives no sample, so that lines for it are ``unknown``."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of all samples that can be measured, in the order of the data set."""

    targets: list[Target]
    scores: list[SampleScore]
    answered: list[bool]
    overlaps: list[Overlaps]
    """Of the official mode, for the samples whose phrase means something; empty without one."""
    counts: Counts
    problems: list[str]
    hints: list[str]


@dataclass
class _BoxLooks:
    """Signs that a file's boxes are written in another form than was declared."""

    boxes: int = 0
    flat: int = 0
    outside: int = 0
    tiny: int = 0

    def add(self, written: BoxXyxy, box: BoxXyxy, hw: tuple[int, int] | None) -> None:
        self.boxes += 1
        self.tiny += max(map(abs, written)) <= _FRACTION
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            self.flat += 1
        elif hw is not None and (x2 <= 0 or y2 <= 0 or x1 >= hw[1] or y1 >= hw[0]):
            self.outside += 1

    def hints(self, form: BoxForm) -> list[str]:
        told = []
        if self.flat:
            told.append(self._told(self.flat, "have no area", f"check that the format {form.format} is right"))
        if self.outside:
            told.append(self._told(self.outside, "lie outside of their image", "check format and units"))
        if form.units == "pixel" and self.tiny > _TELLING_SHARE * self.boxes:
            told.append(
                f"{self.tiny} of {self.boxes} boxes have no coordinate above {_FRACTION:g}: they seem to be normalised "
                "and not in pixels"
            )
        return told

    def _told(self, count: int, what: str, advice: str) -> str:
        many = count > _TELLING_SHARE * self.boxes
        return f"{count} of {self.boxes} boxes {what}: {advice if many else 'counted as wrong'}"


class _Pixels:
    """A mask as runs where it came as runs, else as pixels."""

    def __init__(self, mask: Mask | Mapping[str, object], hw: tuple[int, int] | None) -> None:
        self._mask, self._hw = mask, hw
        self._runs = self._pixels = None
        if isinstance(mask, Mapping):
            size = mask.get("size")
            if hw is not None and isinstance(size, list) and size != list(hw):
                raise ValueError(
                    f"expected a mask of the image's size (H, W) {tuple(hw)!r}, got {size!r}; bring it to that size"
                )
            self._runs = run_lengths(mask)
        elif hw is None:
            raise ValueError("expected the image, to know its size for a mask of polygons, got none; put it there")
        else:
            self._pixels = read_mask(mask, hw)

    def pixels(self, hw: tuple[int, int]) -> BoolMask:
        """Bool [H, W]."""
        if self._pixels is None:
            assert self._runs is not None
            self._pixels = mask_from_runs(self._runs, hw)
        return self._pixels

    def area(self) -> int:
        if self._runs is not None:
            return area_of_runs(self._runs)
        assert self._pixels is not None
        return int(np.count_nonzero(self._pixels))

    def overlap(self, other: _Pixels, hw: tuple[int, int]) -> int:
        if self._runs is not None and other._runs is not None:
            return overlap_of_runs(self._runs, other._runs)
        return int(np.count_nonzero(self.pixels(hw) & other.pixels(hw)))


@dataclass
class Answers:
    """Takes the lines of a file one by one; :meth:`finish` gives the scores."""

    targets: Mapping[str, Target]
    form: BoxForm
    official: Official | None = None
    counts: Counts = field(default_factory=Counts)
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts.samples = len(self.targets)
        self._says: dict[str, bytes] = {}
        self._scores: dict[str, SampleScore] = {}
        self._overlaps: dict[str, Overlaps] = {}
        self._conflicting: set[str] = set()
        self._left_out: set[str] = set()
        self._has_boxes = self._has_masks = False
        self._looks = _BoxLooks()
        shown = [target for target in self.targets.values() if target.box_xyxy_px is not None]
        self._judges_masks = not shown or any(target.mask is not None for target in shown)
        if self.form.units == "normalised":
            without = [target.id for target in shown if target.hw is None]
            why = "expected the image, to know its size for a normalised box, got none; put it there; left out"
            self.problems += [f"sample {one!r}: {why}" for one in without]
            self._left_out.update(without)

    def add(self, line: Line) -> None:
        """Score one line, or tell why not."""
        self.counts.lines += 1
        where = f"line {line.number}"
        if line.id is None:
            self.counts.unreadable += 1
            self.problems.append(f"{where}: {line.error}")
            return
        target = self.targets.get(line.id)
        if target is None:
            self.counts.unknown += 1
            self.problems.append(f"{where}: expected an id of the data set, got {line.id!r}; not counted")
            return
        if line.error is None:
            self._has_boxes |= line.box is not None
            self._has_masks |= line.mask is not None
        if line.id in self._says:
            self._count_double(line, self._says[line.id], where)
        else:
            self._says[line.id] = line.says
            self._score(line, target, where)

    def finish(self) -> Scored:
        """The scores, with what is missing counted as wrong."""
        scored = Scored(
            targets=[], scores=[], answered=[], overlaps=[],
            counts=self.counts, problems=self.problems, hints=self._looks.hints(self.form),
        )  # fmt: skip
        if self._has_masks and not self._judges_masks:
            scored.hints.append("the data set has no masks, so those of the answers were compared with nothing")
        for target in self.targets.values():
            score = None if target.id in self._conflicting else self._scores.get(target.id)
            try:
                if target.id in self._left_out:
                    raise _TargetError
                filled = self._filled(target, score)
            except _TargetError as error:
                self._leave_out(target, error)
                continue
            self._count(target, score)
            scored.targets.append(target)
            scored.scores.append(filled)
            scored.answered.append(score is not None)
            if self.official is not None and target.box_xyxy_px is not None:
                scored.overlaps.append(self._overlaps_of(target, filled, score is not None))
        return scored

    def _count_double(self, line: Line, first: bytes, where: str) -> None:
        self.counts.doubled += 1
        differs = line.says != first
        if differs:
            self._conflicting.add(line.id or "")
        why = "and it differs, so the sample counts as wrong" if differs else "saying the same; counted once"
        self.problems.append(f"{where}: expected one line an id, got {line.id!r} again, {why}")

    def _score(self, line: Line, target: Target, where: str) -> None:
        try:
            if line.error is not None:
                raise ValueError(line.error)
            self._scores[target.id] = self._compare(line, target)
        except _TargetError as error:
            if target.id not in self._left_out:
                self._left_out.add(target.id)
                self.problems.append(f"sample {target.id!r}: {error}; left out")
        except (ValueError, OSError) as error:
            self.problems.append(f"{where}, id {target.id!r}: {error}; counted as wrong")

    def _compare(self, line: Line, target: Target) -> SampleScore:
        if target.id in self._left_out:
            raise _TargetError
        box = None
        if line.box is not None:
            box = self.form.to_pixels(line.box, target.hw)
            self._looks.add(line.box, box, target.hw)
        wanted, given = self._masks(line, target)
        if target.box_xyxy_px is None:
            shown = given.area() if given is not None and self._judges_masks else None
            return SampleScore(no_target_right=not line.found, shown_px=shown)
        score = SampleScore(box_iou=None if box is None else float(box_iou(box, target.box_xyxy_px)), found=line.found)
        if wanted is not None and given is not None:
            assert target.hw is not None
            shared, area = wanted.overlap(given, target.hw), wanted.area()
            union = given.area() + area - shared
            score = replace(score, mask_intersection_px=shared, mask_union_px=union, target_px=area)
        if self.official is not None:
            self._overlaps[target.id] = self.official.overlaps(_pair(target, box, wanted, given))
        return score

    def _masks(self, line: Line, target: Target) -> tuple[_Pixels | None, _Pixels | None]:
        """The wanted mask and the given one, which is checked even where there is nothing to compare it with."""
        if line.mask is None:
            return None, None
        wanted = None if target.mask is None else _wanted(target)
        needed = wanted is not None or (target.box_xyxy_px is None and self._judges_masks)
        can_be_checked = target.hw is not None or isinstance(line.mask, Mapping)
        return wanted, _Pixels(line.mask, target.hw) if needed or can_be_checked else None

    def _filled(self, target: Target, score: SampleScore | None) -> SampleScore:
        """The score with wrong in place of all that the file as a whole gives, but not here."""
        if target.box_xyxy_px is None:
            shown = 0 if self._has_masks and self._judges_masks else None
            if score is None:
                return SampleScore(no_target_right=False, shown_px=shown)
            return score if score.shown_px is not None else replace(score, shown_px=shown)
        score = score or SampleScore(found=False)
        if self._has_boxes and score.box_iou is None:
            score = replace(score, box_iou=0.0)
        if self._has_masks and target.mask is not None and score.mask_iou is None:
            area = _wanted(target).area()
            score = replace(score, mask_intersection_px=0, mask_union_px=area, target_px=area)
        return score

    def _count(self, target: Target, score: SampleScore | None) -> None:
        if score is not None:
            self.counts.answered += 1
            if target.box_xyxy_px is not None:
                self.counts.without_box += self._has_boxes and score.box_iou is None
                self.counts.without_mask += self._has_masks and target.mask is not None and score.mask_iou is None
        elif target.id in self._conflicting:
            self.counts.conflicting += 1
        elif target.id in self._says:
            self.counts.unusable += 1
        else:
            self.counts.missing += 1
            self.problems.append(f"sample {target.id!r}: expected a line, got none; counted as wrong")

    def _leave_out(self, target: Target, error: _TargetError) -> None:
        self.counts.left_out += 1
        self.counts.for_left_out += target.id in self._says
        if target.id not in self._left_out:
            self.problems.append(f"sample {target.id!r}: {error}; left out")

    def _overlaps_of(self, target: Target, filled: SampleScore, answered: bool) -> Overlaps:
        box, mask = self._overlaps.get(target.id, (None, None)) if answered else (None, None)
        return (
            0.0 if box is None and filled.box_iou is not None else box,
            0.0 if mask is None and filled.mask_iou is not None else mask,
        )


def _wanted(target: Target) -> _Pixels:
    """The target's mask; what is wrong with it is not the answer's fault."""
    assert target.mask is not None
    try:
        return _Pixels(target.mask, target.hw)
    except (ValueError, OSError) as error:
        raise _TargetError(str(error)) from error


def _pair(target: Target, box: BoxXyxy | None, wanted: _Pixels | None, given: _Pixels | None) -> Pair:
    return Pair(
        hw=target.hw,
        target_box=target.box_xyxy_px,
        box=box,
        target_mask=None if wanted is None or target.hw is None else wanted.pixels(target.hw),
        mask=None if given is None or target.hw is None else given.pixels(target.hw),
        num_polygons=len(target.mask) if isinstance(target.mask, list) else 0,
    )
