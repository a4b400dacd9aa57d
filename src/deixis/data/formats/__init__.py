"""The formats of annotations, a module each; a module says what it reads in its ``FORMAT``.

A new format is a module here with a ``FORMAT``, and its name in `deixis.data.opening.MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deixis.data.dataset import Dataset
from deixis.data.formats.json_stream import Element


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be opened."""

    path: Path
    """The file or the folder; for a data set that is opened by its name what `Format.locate` gave."""
    name: str = ""
    """The name that was asked for; empty for a path."""
    split: str | None = None
    """None for the format's default, or for all samples where it has none."""
    images: Path | None = None
    """The folder to look for the images below; None for the usual places around the file."""
    need_images: bool = False
    """Whether to refuse data none of whose images is there."""
    limit: int | None = None
    """How many samples will be taken at most, for formats that make them at a cost."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format and how its files are recognised."""

    read: Callable[[Request], Dataset]
    """Raises FileNotFoundError where a file is missing, and ValueError where nothing in it can be used."""
    names: tuple[str, ...] = ()
    """The names that open it below a root."""
    default_split: str | None = None
    """The split that is opened where none is named."""
    suffix: str = ""
    """How the names of its files end."""
    is_head: Callable[[Element], bool] | None = None
    """Whether an element of a .json file shows that the file is of this format."""
    is_folder: Callable[[Path], bool] | None = None
    """Whether a folder is of this format."""
    locate: Callable[[Path], Path | None] | None = None
    """What to read below a root; by default the one file whose name ends in suffix and split, else the root itself."""
