"""Folders that Hugging Face ``datasets`` writes (``save_to_disk``) or the hub keeps (parquet), read with pyarrow alone.

The columns are found by their usual names; `Columns` lists them. Rows are read when they are asked for.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from deixis.data.annotation_fields import (
    check_phrase,
    four_numbers,
    mask_from_json,
    parse_json,
    safe_name,
    shorten,
    words_or_none,
)
from deixis.data.dataset import Dataset, Report
from deixis.data.formats import Format, Request
from deixis.data.formats.image_folders import image_id_of
from deixis.structures import BoxXyxy, Mask, Sample, check_box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_IMAGES = ("image", "image_path", "file_name", "img", "path")
_PHRASES = ("phrase", "sent", "expression", "expressions", "sentence", "sentences", "referring_expression", "caption",
            "captions", "answer", "text")  # fmt: skip
_BOXES = ("box", "bbox", "bbox_xyxy")
_MASKS = ("mask", "segmentation")
_PROBED = 512


class Columns(NamedTuple):
    """Which column holds what; None for what no column holds."""

    image: str
    phrase: str
    box: str
    box_form: str
    """``xyxy``: corners; ``xywh``: corner and size."""
    mask: str | None
    name: str | None
    split: str | None
    category: str | None
    kind: str | None


class _Place(NamedTuple):
    """A phrase: its row, and its number among the row's phrases."""

    row: int
    number: int
    phrase: str
    box: BoxXyxy | None


class HfDataset(Dataset):
    """Samples of a folder; an image that stands in the folder itself is decoded when its sample is asked for."""

    def __init__(self, table: Any, columns: Columns, split: str, root: Path) -> None:  # noqa: ANN401
        self._table, self._columns, self._split_name, self._root = table, columns, split, root
        report = Report()
        self._places = list(self._read_places(report))
        self._rows = range(len(self._places))
        self.problems, self._left_out = tuple(report.problems), report.left_out

    def _images(self) -> list[int]:
        return [self._places[row].row for row in self._rows]

    def _read_places(self, report: Report) -> Iterator[_Place]:
        columns = self._columns
        small = self._table.select([columns.phrase, columns.box])
        row = 0
        for batch in small.to_batches(max_chunksize=1000):
            for phrases, box in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                values = phrases if isinstance(phrases, list) else [phrases]
                with report.telling(f"row {row}", len(values)):
                    checked = _box(box, columns.box_form)
                    for number, value in enumerate(values):
                        with report.telling(f"row {row}, phrase {number}"):
                            yield _Place(row, number, check_phrase(_words(value)), checked)
                row += 1

    def _sample(self, row: int) -> Sample:
        columns, place = self._columns, self._places[row]
        wanted = [name for name in (columns.image, *columns[4:]) if name is not None]
        record = self._table.select(wanted).slice(place.row, 1).to_pylist()[0]
        image, image_id = _image(record[columns.image], self._root, place.row)
        name = None if columns.name is None else record[columns.name]
        several = name is not None and place.number > 0
        return Sample(
            id=(f"{name}-{place.number}" if several else str(name))
            if name is not None
            else f"{place.row}-{place.number}",
            image=image,
            image_id=image_id,
            phrase=place.phrase,
            box_xyxy_px=place.box,
            mask=None if columns.mask is None or place.box is None else _mask(record[columns.mask], self._root),
            split=self._split_name if columns.split is None else str(record[columns.split] or ""),
            category=None if columns.category is None else words_or_none(record[columns.category]),
            kind=None if columns.kind is None else words_or_none(record[columns.kind]),
        )


def is_hf_folder(folder: Path) -> bool:
    """Whether a folder looks like one that this module reads."""
    return bool(_splits_of(folder))


def read_hf_dataset(folder: str | Path, split: str | None = None, images: str | Path | None = None) -> HfDataset:
    """Open one split of a folder.

    Args:
        folder: what ``save_to_disk`` wrote, or a folder of parquet files named after their splits.
        split: one of its splits; None for its only one, or else ``val`` or ``validation``.
        images: what image paths in the rows are relative to; by default the folder.

    Returns:
        A sample a phrase; a row may hold several. ``bbox`` is read as corner and size, unless a box of it can only be
        corners; ``box`` as corners.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: the folder holds no such data set.
        ValueError: there is no such split, the columns are not known, or a file is damaged.
    """
    folder = Path(folder)
    splits = _splits_of(folder)
    if not splits:
        raise FileNotFoundError(
            f"expected a folder of Hugging Face datasets (.arrow or .parquet), got {str(folder)!r}; check the path"
        )
    if split is None:
        split = next((one for one in ("val", "validation", *splits) if one in splits), None)
    if split not in splits:
        raise ValueError(f"expected a split out of {sorted(splits)!r} in {str(folder)!r}, got {split!r}; choose one")
    table = _read_table(splits[split])
    columns = _columns(table, folder)
    dataset = HfDataset(table, columns, split, Path(images) if images is not None else folder)
    if not dataset:
        why = dataset.problems[0] if dataset.problems else "it has no rows"
        raise ValueError(f"expected phrases of the split {split!r} in {str(folder)!r}, got none ({why}); check it")
    return dataset


def _splits_of(folder: Path) -> dict[str, list[Path]]:
    """The files of each split."""
    if not folder.is_dir():
        return {}
    listed = folder / "dataset_dict.json"
    if listed.is_file():
        names = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
        found = {name: sorted((folder / name).glob("*.arrow")) for name in names}
        return {name: files for name, files in found.items() if files}
    if (folder / "state.json").is_file() and (arrow := sorted(folder.glob("*.arrow"))):
        return {_split_name(folder) or "train": arrow}
    found = {}
    for path in [*sorted(folder.glob("*.parquet")), *sorted(folder.glob("data/*.parquet"))]:
        found.setdefault(path.stem.split("-")[0], []).append(path)
    return found


def _split_name(folder: Path) -> str | None:
    """The split that ``state.json`` names."""
    try:
        state = json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    name = state.get("_split") if isinstance(state, dict) else None
    return name if isinstance(name, str) and name else None


def _read_table(files: list[Path]) -> Any:  # noqa: ANN401
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "expected pyarrow to read a folder of Hugging Face datasets, got none installed; "
            'install it with: pip install "deixis[datasets]"'
        ) from None
    tables = []
    for path in files:
        try:
            if path.suffix == ".parquet":
                tables.append(pq.read_table(path, memory_map=True))
            else:
                tables.append(_read_arrow(pa, path))
            tables[-1].validate(full=True)  # texts in UTF-8, and every offset inside: pyarrow trusts them
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ValueError(
                f"expected arrow data in {str(path)!r}, got {shorten(str(error))}; get it again"
            ) from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise ValueError(f"expected files of one schema, got several ({shorten(str(error))}); check them") from error


def _read_arrow(pa: Any, path: Path) -> Any:  # noqa: ANN401
    source = pa.memory_map(str(path))
    try:
        return pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_file(source).read_all()


def _columns(table: Any, folder: Path) -> Columns:  # noqa: ANN401
    names = table.column_names

    def first(candidates: Sequence[str]) -> str | None:
        return next((name for name in candidates if name in names), None)

    image, phrase, box = first(_IMAGES), first(_PHRASES), first(_BOXES)
    if image is None or phrase is None or box is None:
        raise ValueError(
            f"expected columns for the image ({', '.join(_IMAGES)}), the phrase ({', '.join(_PHRASES)}) and the box "
            f"({', '.join(_BOXES)}) in {str(folder)!r}, got {names!r}; rename them"
        )
    form = "xywh" if box == "bbox" and not _are_corners(table, box) else "xyxy"
    return Columns(
        image, phrase, box, form, first(_MASKS), first(("id", "sample_id", "question_id")), first(("split",)),
        first(("category", "category_name")), first(("kind",)),
    )  # fmt: skip


def _are_corners(table: Any, box: str) -> bool:  # noqa: ANN401
    """Whether none of the first boxes runs backwards as corners, and one reaches over its image as sizes."""
    wide = {"width", "height"} <= set(table.column_names)
    if "raw_anns" in table.column_names:  # the one public copy of RefCOCO in this form keeps corners
        return True
    if not wide:
        return False
    over = False
    for record in table.select([box, "width", "height"]).slice(0, _PROBED).to_pylist():
        try:
            x, y, z, w = four_numbers(record[box], "a box")
            over = over or x + z > record["width"] + 2 or y + w > record["height"] + 2
        except (ValueError, TypeError):
            continue
        if z <= x or w <= y:
            return False
    return over


def _box(value: object, form: str) -> BoxXyxy | None:
    if value is None:
        return None
    x, y, z, w = four_numbers(value, "a box")
    box = (x, y, x + z, y + w) if form == "xywh" else (x, y, z, w)
    check_box(box)
    return box


def _words(value: object) -> object:
    """A phrase, or an object that holds it as the `refer` release does."""
    if isinstance(value, dict):
        return value.get("sent") or value.get("raw")
    return value


def _image(value: object, root: Path, row: int) -> tuple[Path | NDArray[np.uint8], str]:
    if isinstance(value, dict):
        path, data = value.get("path"), value.get("bytes")
        name = path if isinstance(path, str) else ""
        if isinstance(data, bytes):
            return _decode(data, row), image_id_of(name) if name else f"row {row}"
        value = path
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f"expected an image in row {row}, got {shorten(value)}; correct the row")
    return (Path(value) if Path(value).is_absolute() else root / safe_name(value)), image_id_of(value)


def _decode(data: bytes, row: int) -> NDArray[np.uint8]:
    from PIL import Image

    from deixis.geometry.images import FORMATS, MAX_PIXELS, read_image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"more than {MAX_PIXELS} pixels")
            return read_image(image)
    except Exception as error:  # Pillow raises nearly everything on damaged files
        raise ValueError(f"expected an image in row {row}, got something else ({error}); correct the row") from error


def _mask(value: object, root: Path) -> Mask | None:
    """The mask; a flat list is one polygon, text is JSON or a file, and what is none of them is no mask."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise ValueError(f"expected a mask in JSON, got {shorten(value)} ({error}); correct the row") from None
    if isinstance(value, list) and value and isinstance(value[0], int | float):
        value = [value]
    if isinstance(value, dict) and isinstance(value.get("counts"), bytes):
        value = {**value, "counts": value["counts"].decode("latin-1")}
    return None if value in (None, [], "") else mask_from_json(value, root)


def _read(request: Request) -> HfDataset:
    return read_hf_dataset(request.path, request.split, request.images)


FORMAT = Format(read=_read, names=("hf",), is_folder=is_hf_folder)
