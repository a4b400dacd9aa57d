"""Progress of long work on stderr: a bar where a person watches, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

T = TypeVar("T")

_ITEMS_BETWEEN_LINES = 100
_SECONDS_BETWEEN_LINES = 60.0


class Report(Protocol):
    """Tells how far the work is."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """So many of ``total`` items are done; ``note`` is a few words on how it goes."""


def progress_over(items: Iterable[T], label: str, *, total: int | None = None, show: bool = True) -> Iterator[T]:
    """Yield the items one by one and tell how many are through.

    Args:
        items: what is worked through.
        label: one word for the work.
        total: how many there are, where ``items`` has no length.
        show: False keeps silent.
    """
    if not show:
        yield from items
        return
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # pyright: ignore[reportArgumentType]
    with progress_report(label) as report:
        for count, item in enumerate(items, start=1):
            yield item
            report(count, total)


@contextmanager
def progress_report(label: str) -> Iterator[Report]:
    """Give a function to call with (items done, items in all or None, perhaps a note)."""
    if sys.stderr is None or not sys.stderr.isatty():  # None where it was closed, as by 2>&-
        yield _Lines(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = TextColumn("{task.description}"), TextColumn("{task.fields[note]}", markup=False)
    columns = (shown[0], BarColumn(), MofNCompleteColumn(), shown[1], TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, note="")
        yield lambda done, total, note="", /: bar.update(task, completed=done, total=total, note=note)


class _Lines:
    """A line each `_ITEMS_BETWEEN_LINES` items, and where they are slow each `_SECONDS_BETWEEN_LINES`."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.begun = self.told = time.monotonic()
        self.first: int | None = None
        """Items done at the first call: those before were perhaps done in an earlier run."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        now = time.monotonic()
        if self.first is None:
            self.begun, self.first = now, done
        if done % _ITEMS_BETWEEN_LINES and now - self.told < _SECONDS_BETWEEN_LINES:
            return
        self.told = now
        if sys.stderr is not None:  # print would take stdout for None
            count = f"{self.label}: {done}" + ("" if total is None else f" of {total}")
            left = "" if total is None or done == self.first else self._time_left(done, total, now)
            print(", ".join(word for word in (count, note, left) if word), file=sys.stderr, flush=True)

    def _time_left(self, done: int, total: int, now: float) -> str:
        """In hours and minutes; nothing where it is less than a minute."""
        assert self.first is not None
        minutes = round((now - self.begun) / (done - self.first) * (total - done) / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        return f"{hours}{minutes % 60} min left" if minutes else ""
