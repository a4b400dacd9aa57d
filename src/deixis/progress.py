"""Progress of long work on stderr: a bar on a terminal, otherwise a line now and then."""

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
    """Reports how far the work has come."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        """``done`` of ``total`` items are finished; ``note`` may add a few words on how it is going."""


def progress_over(items: Iterable[T], label: str, *, total: int | None = None, show: bool = True) -> Iterator[T]:
    """Yield the items one by one and report how many are done.

    Args:
        items: the items to work through.
        label: one word for them.
        total: their number, if ``items`` has no length.
        show: False reports nothing.
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
    """Give a function to call with the items done, the total or None, and optionally a note."""
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
    """A line every `_ITEMS_BETWEEN_LINES` items or every `_SECONDS_BETWEEN_LINES`, whichever comes first."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.begun = self.printed = time.monotonic()
        self.first: int | None = None
        """Items done at the first call; an earlier run may have done those before."""

    def __call__(self, done: int, total: int | None, note: str = "", /) -> None:
        now = time.monotonic()
        if self.first is None:
            self.begun, self.first = now, done
        if done % _ITEMS_BETWEEN_LINES and now - self.printed < _SECONDS_BETWEEN_LINES:
            return
        self.printed = now
        if sys.stderr is not None:  # print would take stdout for None
            count = f"{self.label}: {done}" + ("" if total is None else f" of {total}")
            left = "" if total is None or done == self.first else self._time_left(done, total, now)
            print(", ".join(word for word in (count, note, left) if word), file=sys.stderr, flush=True)

    def _time_left(self, done: int, total: int, now: float) -> str:
        """In hours and minutes; empty if less than a minute."""
        assert self.first is not None
        minutes = round((now - self.begun) / (done - self.first) * (total - done) / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        return f"{hours}{minutes % 60} min left" if minutes else ""
