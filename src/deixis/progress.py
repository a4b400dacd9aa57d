"""Progress of long work on stderr: a bar where a person watches, else a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_ITEMS_BETWEEN_LINES = 100


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
def progress_report(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give a function to call with (items done, items in all or None)."""
    if sys.stderr is None or not sys.stderr.isatty():  # None where it was closed, as by 2>&-
        yield lambda done, total: _print_line(label, done, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_line(label: str, done: int, total: int | None) -> None:
    if done % _ITEMS_BETWEEN_LINES == 0 and sys.stderr is not None:  # print would take stdout for None
        print(f"{label}: {done}" + ("" if total is None else f" of {total}"), file=sys.stderr, flush=True)
