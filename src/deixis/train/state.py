"""Files of a run: each written whole or not at all, the last states kept, what a killed save left cleared away."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError

from deixis.files import PART, atomic_write, sync_folder

STATE = "state.pt"
_KEPT = re.compile(r"state-(\d+)\.pt")
_NO_LINKS = (errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_UNFIT = (RuntimeError, OSError, EOFError, pickle.UnpicklingError, LookupError, TypeError, ValueError, AttributeError)
"""What reading a training state raises where it is damaged or another model's."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let the system's error in writing ``path``, such as that of a full disk, name it, whoever was writing."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


class _Remembering:
    """A file for `torch.save`, which forgets why it could not write."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save_state(state: dict[str, Any], file: IO[bytes]) -> None:
    remembering = _Remembering(file)
    try:
        torch.save(state, remembering)  # pyright: ignore[reportArgumentType]
    except RuntimeError as error:
        raise (remembering.error or error) from None


def write_state(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Make ``state`` the run's state.pt; with ``keep`` above 1, that and those before it are state-STEP.pt too."""
    path = folder / (STATE if keep == 1 else f"state-{int(state['step']):08}.pt")
    with atomic_write(path) as file:
        _save_state(state, file)
    if keep > 1:
        _give_second_name(path, folder / STATE)
    kept = [one for one in kept_states(folder) if keep > 1 and _step_of(one) <= state["step"]][:keep]
    for one in kept_states(folder):
        if one not in kept:
            one.unlink(missing_ok=True)


def _give_second_name(path: Path, second: Path) -> None:
    """A hard link, which takes no room; a copy where there are none."""
    partial = second.with_name(f".{second.name}{PART}")
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with path.open("rb") as source, atomic_write(second) as target:
            shutil.copyfileobj(source, target)
    else:
        os.replace(partial, second)
        sync_folder(second.parent)


def kept_states(folder: Path) -> list[Path]:
    """All state-STEP.pt, the newest first."""
    return sorted((path for path in folder.glob("state-*.pt") if _KEPT.fullmatch(path.name)), key=_step_of)[::-1]


def _step_of(path: Path) -> int:
    found = _KEPT.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def read_state(folder: Path, apply: Callable[[dict[str, Any]], None]) -> None:
    """Give state.pt to ``apply``; where it is damaged, the newest kept one that is not.

    Raises:
        FileNotFoundError: there is no state.pt.
        ValueError: none can be used; says what is wrong with state.pt.
    """
    try:
        _read_one(folder / STATE, apply)
    except ValueError as error:
        for path in kept_states(folder):
            try:
                _read_one(path, apply)
            except ValueError:
                continue
            if sys.stderr is not None:
                print(f"training: {error}; going on from {path.name} instead", file=sys.stderr, flush=True)
            return
        raise


def _read_one(path: Path, apply: Callable[[dict[str, Any]], None]) -> None:
    with path.open("rb") as file:
        try:
            apply(torch.load(file, weights_only=True, map_location="cpu"))
        except _UNFIT as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(
                f"expected the whole state of a run of this recipe in {str(path)!r}, got {type(error).__name__} "
                f"({reason}); train anew in another folder"
            ) from error


def clear_leftovers(folder: Path) -> None:
    """Remove what a save that was killed has left half-written."""
    for path in folder.glob(f".*{PART}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check_run_folder(folder: Path, resume: bool) -> None:
    """Refuse to start over a run that is there, or to resume one that is not."""
    there = (folder / STATE).exists()
    if there and not resume:
        raise ValueError(
            f"expected an empty folder for a new run, got {str(folder)!r} with a state.pt; resume it or choose another"
        )
    if resume and not there:
        raise FileNotFoundError(
            f"expected a run with state.pt in {str(folder)!r}, got none; start it anew without resume"
        )
