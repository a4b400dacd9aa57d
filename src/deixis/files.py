"""Files and folders that are written whole or not at all, and the folder of the caches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PART = ".part"
"""The suffix of files that are still being written; what a killed process left of them may be deleted."""


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file beside ``path`` that replaces it at the end, once it is on the disk.

    After an error ``path`` is what it was before, and an error of the system, such as a full disk, names ``path``.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=PART)
        temporary = Path(name)
        try:
            with open(handle, "wb") as target:
                yield target
                target.flush()
                os.fsync(target.fileno())
            temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all; what is no Unicode becomes a question mark."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "replace"))


@contextmanager
def atomic_files(folder: Path) -> Iterator[Path]:
    """Fill a new folder, whose files then move into ``folder`` one by one, each whole."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name[:100]}.", suffix=PART) as name:
        yield Path(name)
        for file in Path(name).iterdir():
            file.chmod(0o666 & ~_umask())
            os.replace(file, folder / file.name)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a new folder that replaces ``path`` at the end; after an error ``path`` is what it was before."""
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=PART))
    try:
        yield fresh
        for file in fresh.iterdir():
            file.chmod(0o666 & ~_umask())
        fresh.chmod(0o777 & ~_umask())
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make moved names survive a loss of power, on the systems that can do so."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path | None:
    """``$XDG_CACHE_HOME/deixis`` or ``~/.cache/deixis``; None where there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deixis"
    except RuntimeError:
        return None


def _umask() -> int:
    mask = os.umask(0)  # the only way to ask is to set
    os.umask(mask)
    return mask
