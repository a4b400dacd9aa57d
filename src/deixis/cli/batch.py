"""``deixis ground --batch``: every line of the input gives one line of the output, in order."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from deixis.cli.running import check_writable, sentence, tell
from deixis.progress import progress_over

if TYPE_CHECKING:
    from deixis.grounder import Grounder

_MAX_MASK_PIXELS = 64_000_000  # in the masks of lines that are asked together, as a mask has the size of its image


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line of the input; ``error`` is set where it cannot be used."""

    line: int
    id: object = None
    has_id: bool = False
    image: str = ""
    phrase: str = ""
    error: str | None = None


def run_batch(source: Path, out: Path, *, model: str, precision: str, overlays: Path | None) -> int:
    """Ground every line of ``source`` and write ``out``, whole or not at all.

    A line that cannot be used, or whose image cannot be read, gives a line with ``error``; the rest goes on.

    Returns:
        The exit status: 1 where every line failed, else 0.

    Raises:
        FileNotFoundError: there is no ``source``.
        OSError: ``source`` cannot be read, or ``out`` or ``overlays`` not written.
        ValueError: the model cannot be loaded.
    """
    if not source.exists() or source.is_dir():
        raise FileNotFoundError(
            f"expected a JSONL file for --batch, got {'a folder' if source.is_dir() else 'nothing'} at "
            f"{str(source)!r}; check the path"
        )
    check_writable(out, inputs=[source])
    if overlays is not None:
        overlays.mkdir(parents=True, exist_ok=True)
    from deixis import grounder
    from deixis.files import atomic_write

    loaded = grounder.load(model, precision=precision)
    num_rows = num_failed = 0
    with open(source, "rb") as lines, atomic_write(out) as target:
        answers = _answers(lines, loaded, source.parent, overlays)
        for row in progress_over(answers, "lines", total=_count_lines(lines)):
            num_rows += 1
            num_failed += "error" in row
            target.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    tell(f"{num_rows - num_failed} done, {num_failed} failed; wrote {out}")
    return 1 if num_rows and num_failed == num_rows else 0


def read_request(raw: bytes, line: int) -> Request:
    """Read one line; a mistake in it becomes its ``error``."""
    try:
        row = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"), parse_constant=_refuse_constant)
        if not isinstance(row, dict):
            raise ValueError(f"expected an object {{'image': ..., 'phrase': ...}}, got {type(row).__name__}")
        if not isinstance(row.get("id"), str | int | float | None) or row.get("id") in (math.inf, -math.inf):
            raise ValueError(f"expected a text or a number under 'id', got {repr(row['id'])[:60]}")
        json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair is JSON, but no tokenizer takes it
    except (ValueError, RecursionError) as error:
        return Request(line=line, error=f"expected a JSON object on line {line}: {sentence(error)}")
    known: dict[str, Any] = {"line": line, "id": row.get("id"), "has_id": "id" in row}
    for key in ("image", "phrase"):
        if not isinstance(row.get(key), str):
            wrong = f"got {repr(row[key])[:60]}" if key in row else "found none"
            return Request(**known, error=f"expected text under {key!r} on line {line}, {wrong}")
    return Request(**known, image=row["image"], phrase=row["phrase"])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _answers(lines: IO[bytes], grounder: Grounder, folder: Path, overlays: Path | None) -> Iterator[dict[str, Any]]:
    """Answer the lines in order; neighbours on the same image are asked together."""
    from deixis.grounder import EncodedImage, ImageByImage, runs_of_one_image

    asking = ImageByImage(grounder.look, limit=lambda encoded: _MAX_MASK_PIXELS // math.prod(encoded.frame.hw))
    requests = (read_request(raw, line) for line, raw in enumerate(lines, start=1))
    for run in runs_of_one_image(requests, lambda request: None if request.error else request.image):
        if run[0].error:
            yield _error_row(run[0], run[0].error)
            continue
        name = run[0].image
        answers = asking.answers(
            _find_image(name, folder), [one.phrase for one in run], EncodedImage.ground_all, key=name
        )  # fmt: skip
        for request, found in zip(run, answers, strict=True):
            if isinstance(found, ValueError | OSError):
                yield _error_row(request, sentence(found))
                continue
            if overlays is not None:
                found.draw().save(overlays / f"{request.line:06d}.png")
            yield _with_id(request) | found.to_json(name)


def _find_image(name: str, folder: Path) -> Path:
    """A relative name counts from the file that states it, or else from the current folder."""
    beside = folder / name
    return beside if beside.exists() else Path(name)


def _error_row(request: Request, error: str) -> dict[str, Any]:
    return _with_id(request) | {"line": request.line, "error": error}


def _with_id(request: Request) -> dict[str, Any]:
    """Without an id the line says which one it is, as `deixis score` counts data without ids."""
    return {"id": request.id} if request.has_id else {"line": request.line}


def _count_lines(lines: IO[bytes]) -> int | None:
    """Count ahead and go back to the start; None for a pipe, which can be read only once."""
    if not stat.S_ISREG(os.fstat(lines.fileno()).st_mode):
        return None
    start = lines.tell()
    count = sum(1 for _ in lines)
    lines.seek(start)
    return count
