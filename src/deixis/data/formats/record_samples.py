"""A sequence of samples that are made of their records only when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar, overload

from deixis.structures import Sample

Record = TypeVar("Record")


class RecordSamples(Sequence[Sample], Generic[Record]):
    """Samples of ``_records``, which a reader sets: one record a sample."""

    _records: Sequence[Record]

    @abstractmethod
    def _sample(self, record: Record, /) -> Sample: ...

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self._sample(record) for record in self._records[index]]
        return self._sample(self._records[index])
