"""What a data set asks for: all that scoring needs of a sample, which is everything but its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deixis.data import REFER, Dataset, as_dataset, open_dataset
from deixis.evaluate.metrics.slices import labels_of, length_bounds
from deixis.geometry.boxes import clip_box
from deixis.language.phrase_kind import phrase_kind, words_said
from deixis.structures import BoxXyxy, Mask, Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The right answer to one sample."""

    id: str
    image_id: str
    box_xyxy_px: BoxXyxy | None
    """As far as it lies in the image; None where the phrase means nothing in it."""
    mask: Mask | None
    hw: tuple[int, int] | None
    """(height, width) of the image; None where the data does not state it and the image is not there."""
    labels: tuple[str | None, ...]
    """Of `deixis.evaluate.metrics.slices.labels_of`."""

    @classmethod
    def of(cls, sample: Sample, hw: tuple[int, int] | None, bounds: tuple[int, int, int]) -> Target:
        """The target of a sample.

        Args:
            sample: as the data set gives it.
            hw: (height, width) of its image; None where it is unknown.
            bounds: of `deixis.evaluate.metrics.slices.length_bounds`.

        Raises:
            ValueError: the box lies outside the image.
        """
        sample = sample if hw is None else clip_to_image(sample, hw)
        kind, words = phrase_kind(sample.phrase, sample.kind), words_said(sample.phrase)
        return cls(
            id=sample.id,
            image_id=sample.image_id,
            box_xyxy_px=sample.box_xyxy_px,
            mask=sample.mask,
            hw=hw,
            labels=labels_of(sample, bounds, kind, words=words, hw=hw),
        )


def clip_to_image(sample: Sample, hw: tuple[int, int]) -> Sample:
    """The sample with its box cut to the image of ``hw`` (height, width).

    Raises:
        ValueError: the box lies outside the image.
    """
    if sample.box_xyxy_px is None:
        return sample
    x1, y1, x2, y2 = clip_box(sample.box_xyxy_px, hw).tolist()
    if x1 >= x2 or y1 >= y2:
        raise ValueError(
            f"expected a box that overlaps its image of (height, width) {hw!r}, got {sample.box_xyxy_px!r}; correct it"
        )
    return replace(sample, box_xyxy_px=(x1, y1, x2, y2))


def open_for_scoring(name: str, split: str | None, root: Path | None) -> Sequence[Sample]:
    """Open a data set; the images of public releases need not be there.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: the name, the split or a file is wrong.
    """
    if name in REFER and root is not None and split is not None:
        from deixis.data.formats.refer import open_refer

        return open_refer(root, *REFER[name], split, need_images=False)
    return open_dataset(name, split=split, root=root)


def read_targets(dataset: Sequence[Sample], name: str, problems: list[str]) -> dict[str, Target]:
    """The targets by their samples' ids, in the order of the data set.

    Args:
        dataset: every sample is read once.
        name: of the data set, for the groups by length.
        problems: gets a sentence for each sample that cannot be used, which is left out.

    Raises:
        ValueError: two samples have one id.
    """
    targets: dict[str, Target] = {}
    sizes: dict[object, tuple[int, int] | None] = {}
    dataset = as_dataset(dataset)
    bounds = length_bounds(name)
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            target = Target.of(sample, _image_hw(dataset, index, sample, sizes), bounds)
        except (ValueError, OSError) as error:
            problems.append(f"sample number {index}: {error}; left out")
            continue
        if target.id in targets:
            raise ValueError(f"expected an id of its own for every sample, got {target.id!r} twice; renumber the data")
        targets[target.id] = target
    return targets


def _image_hw(
    dataset: Dataset, index: int, sample: Sample, sizes: dict[object, tuple[int, int] | None]
) -> tuple[int, int] | None:
    """As the data set or the image says; else from the mask."""
    image = sample.image if isinstance(sample.image, Path) else index
    if image not in sizes:
        try:
            sizes[image] = dataset.image_hw(index)
        except (OSError, ValueError):
            sizes[image] = None
    size = sample.mask.get("size") if isinstance(sample.mask, Mapping) else None
    return sizes[image] or (None if size is None else (size[0], size[1]))
