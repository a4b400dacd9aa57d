"""The base of every data set: a sequence of samples with what is known of all of them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

from deixis.geometry.images import image_hw
from deixis.structures import Sample


class Report:
    """What a reader left out: ``problems`` in sentences, ``left_out`` in expressions."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.left_out = 0

    def leave_out(self, where: str, why: object, expressions: int = 1) -> None:
        """Say why a record is left out, with so many expressions in it."""
        self.left_out += expressions
        more = f"; its expressions left out: {expressions}" if expressions > 1 else ""
        self.problems.append(f"{where}: {why}{more}")

    @contextmanager
    def telling(self, where: str, expressions: int = 1) -> Iterator[None]:
        """A ValueError inside leaves the record out."""
        try:
            yield
        except ValueError as error:
            self.leave_out(where, error, expressions)


class Dataset(Sequence[Sample], ABC):
    """Samples that are made when they are asked for.

    A data set has records, of which it shows some in some order: `limit`, `split`, `take` and slices give views of
    the same records. A subclass sets ``_rows`` and makes the sample of a record in `_sample`.
    """

    problems: tuple[str, ...] = ()
    """A sentence for each record that was left out or read in part."""
    clipped_boxes: int = 0
    """How many boxes reached over the border of their image and were cut there."""
    has_referents: bool = False
    """Whether the data says which samples mean the same thing; else `referents` goes by image and box."""
    coco_ids: dict[str, int] | None = None
    """By ``Sample.image_id`` the COCO id of images that another collection shares with COCO, where it lists them."""
    _rows: Sequence[int] | NDArray[np.int64]
    _left_out: int | None = None

    @abstractmethod
    def _sample(self, row: int, /) -> Sample:
        """The sample of a record."""

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> Sample | Self:
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        return self._sample(self._row(index))

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Self:
        """A view of the samples at these indices, in this order."""
        part = copy.copy(self)
        part._rows = np.asarray(self._rows, dtype=np.int64)[np.asarray(indices, dtype=np.int64)]
        return part

    def limit(self, n: int | None, seed: int = 0) -> Self:
        """A view of at most ``n`` samples: those of the first images of a seeded shuffle, so that images stay whole.

        The same numbers give the same samples at every call; None gives all.
        """
        if n is None:
            return self
        groups: dict[Hashable, int] = {}
        image_of = np.array([groups.setdefault(image, len(groups)) for image in self._images()], dtype=np.int64)
        rank = np.zeros(len(groups), dtype=np.int64)
        rank[np.random.default_rng(seed).permutation(len(groups))] = np.arange(len(groups))
        return self.take(np.argsort(rank[image_of], kind="stable")[:n])

    def split(self, name: str | None) -> Self:
        """A view of the samples of a split; all of them for None, or where no sample names another split.

        Raises:
            ValueError: there are samples of other splits only.
        """
        if name is None:
            return self
        splits = self._splits()
        found = set(splits)
        if found <= {name, ""}:
            return self
        if name not in found:
            raise ValueError(f"expected the split {name!r}, got data of {sorted(found)!r}; choose one of these")
        return self.take([index for index, one in enumerate(splits) if one == name])

    @property
    def left_out(self) -> int:
        """How many expressions of the files are missing here; as many as `problems` where nobody counted."""
        return len(self.problems) if self._left_out is None else self._left_out

    @property
    def referents(self) -> tuple[tuple[int, ...], ...]:
        """For each referent the indices of the samples that mean it."""
        groups: dict[Hashable, list[int]] = {}
        for index, referent in enumerate(self._referents()):
            groups.setdefault(referent, []).append(index)
        return tuple(map(tuple, groups.values()))

    def image_hw(self, index: int) -> tuple[int, int]:
        """(height, width) of the image of a sample: as the data states it, else from the head of the image file.

        Raises:
            FileNotFoundError, ValueError: nothing states it, and the image is not there or is none.
        """
        return image_hw(self[index].image)

    def _row(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index!r}")
        return int(self._rows[index])

    def _images(self) -> Iterable[Hashable]:
        """For each sample what its image is known by."""
        return (sample.image_id for sample in self)

    def _splits(self) -> list[str]:
        """For each sample its split."""
        return [sample.split for sample in self]

    def _referents(self) -> Iterable[Hashable]:
        """For each sample what its referent is known by."""
        return ((sample.image_id, sample.box_xyxy_px) for sample in self)


class Samples(Dataset):
    """Samples in memory."""

    def __init__(self, samples: Iterable[Sample], problems: Iterable[str] = ()) -> None:
        self._samples = list(samples)
        self._rows = range(len(self._samples))
        self.problems = tuple(problems)

    def _sample(self, row: int) -> Sample:
        return self._samples[row]


SPLITS_BY_ID = ("train", "val", "test", "all")


def in_split(image_id: int, split: str) -> bool:
    """Whether an image belongs to a split, by its id alone, for data without splits of its own.

    ``test`` is every id divisible by 7, ``val`` every id that leaves 1 when divided by 14, ``train`` the rest, and
    ``all`` is all three. So the splits stay what they are when a file grows. Raises ValueError for another name.
    """
    if split not in SPLITS_BY_ID:
        raise ValueError(f"expected a split out of {', '.join(SPLITS_BY_ID)}, got {split!r}; choose one of these")
    return split in (split_of(image_id), "all")


def split_of(image_id: int) -> str:
    """The split that an image belongs to beside ``all``; see `in_split`."""
    return "test" if image_id % 7 == 0 else "val" if image_id % 14 == 1 else "train"


def as_dataset(samples: Sequence[Sample]) -> Dataset:
    """The data set itself, or samples of any other sequence as one."""
    return samples if isinstance(samples, Dataset) else Samples(samples)
