"""How a command ends: a user's mistake gives one line on stderr and status 1, never a traceback."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from PIL import Image

INTERRUPTED = 130
_MAX_REASON_CHARS = 300
_SHOWN_PROBLEMS = 5


class Commands(TyperGroup):
    """All commands; they share ``--debug`` and the way in which errors are reported."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer moved its context class
        """Allow ``--debug`` anywhere before ``--``, as people add it to the end of a command that failed."""
        options = args[: args.index("--")] if "--" in args else args
        if "--debug" in options:
            args = ["--debug", *(one for one in options if one != "--debug"), *args[len(options) :]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer moved its context class
        """Run the chosen command; report an error in one sentence."""
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, typer.Exit, typer.Abort):
            raise  # typer ends quietly: the reader of our output is gone, or the command chose its status
        except KeyboardInterrupt:
            if ctx.params.get("debug"):
                raise
            raise typer.Exit(INTERRUPTED) from None
        except (ValueError, OSError, ImportError) as error:
            if ctx.params.get("debug"):
                raise
            tell(sentence(error))
            raise typer.Exit(1) from None
        except (RuntimeError, MemoryError, pickle.UnpicklingError) as error:
            if ctx.params.get("debug"):
                raise
            tell(f"expected the command to succeed, got {_kind_and_reason(error)}; add --debug to see where")
            raise typer.Exit(1) from None


def tell(message: str) -> None:
    """Print one line on stderr."""
    typer.echo(f"deixis: {message}", err=True)


def tell_problems(problems: Sequence[str], *, rest: str = "more left out") -> None:
    """Print the first few sentences about what was left out, and how many more there are."""
    for problem in problems[:_SHOWN_PROBLEMS]:
        tell(problem)
    if len(problems) > _SHOWN_PROBLEMS:
        tell(f"and {len(problems) - _SHOWN_PROBLEMS} {rest}")


def sentence(error: BaseException) -> str:
    """The error as one line; for an error of the operating system, its reason and file without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename is not None else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _kind_and_reason(error: BaseException) -> str:
    """With its kind, as the text of these errors may be long or missing and was not written for users."""
    kind, reason = type(error).__name__, sentence(error)
    return kind if reason == kind else f"{kind}: {reason[:_MAX_REASON_CHARS]}"


def check_writable(path: Path, *, suffixes: tuple[str, ...] | None = None, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse a file that cannot be written, before any work is spent on it.

    Args:
        path: the file to write later.
        suffixes: the permitted suffixes; None for any.
        inputs: what the command reads and so must not overwrite.

    Raises:
        ValueError: another suffix, or one of the inputs.
        FileNotFoundError: its folder does not exist.
        IsADirectoryError: it is itself a folder.
    """
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise ValueError(f"expected a file ending in {' or '.join(suffixes)}, got {str(path)!r}; choose another name")
    if path.is_dir():
        raise IsADirectoryError(f"expected a file to write, got the folder {str(path)!r}; add a file name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"expected an existing folder for {str(path)!r}, found none; make it first")
    if path.exists() and any(os.path.exists(one) and os.path.samefile(one, path) for one in inputs):
        raise ValueError(f"expected a new file to write, got {str(path)!r}, which is read; choose another name")


def check_chart(path: Path) -> None:
    """Refuse a chart that cannot be drawn or written, before any work is spent on it.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError, OSError: as of :func:`check_writable`.
    """
    from deixis.charts import check_matplotlib

    check_writable(path, suffixes=(".png",))
    check_matplotlib()


def write_image(image: Image.Image, path: Path) -> None:
    """Write it in the format of its suffix, whole or not at all, and say so on stderr."""
    from PIL import Image

    from deixis.files import atomic_write

    with atomic_write(path) as file:
        image.save(file, format=Image.registered_extensions()[path.suffix.lower()])
    tell(f"wrote {path}")


def print_json(value: object) -> None:
    """One object in one line; numbers that JSON cannot hold are an error."""
    typer.echo(json.dumps(value, allow_nan=False))


def print_line(text: str) -> None:
    """Plain text of any length, whatever it holds."""
    typer.echo(text.encode("utf-8", "replace").decode("utf-8"))


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None, fold: Sequence[str] = ()
) -> None:
    """A table as wide as the terminal.

    Args:
        heads: of the columns.
        rows: plain text, whatever it holds.
        title: what stands above.
        fold: heads of columns whose long words, such as paths, go on in the next line.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    columns = (Column(head, overflow="fold" if head in fold else "ellipsis") for head in heads)
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(escape(one.encode("utf-8", "replace").decode("utf-8")) for one in row))
    Console(emoji=False).print(table)  # else refcoco:train: would end in the image of one
