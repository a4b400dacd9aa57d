"""Prediction files: our own, written as the answers come, and those of any other model.

Every line has ``{"id", "box": [...] | null, "mask"?, "found"?}``. A line with neither box nor mask is no answer; a null
box and no mask mean that the model finds nothing, unless ``found`` says otherwise. Further keys are passed over.

Our own lines (`Prediction`) hold all that figures and calibration are made of, so that both can be computed again
without the model, and the mask as COCO run lengths, so that ``deixis score`` reads them and reports can draw them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from deixis.data.annotation_fields import four_numbers, mask_from_json, parse_json, shorten
from deixis.evaluate.metrics import SampleScore
from deixis.files import atomic_write
from deixis.geometry.boxes import xyxy_from_cxcywh, xyxy_from_xywh
from deixis.structures import BoxXyxy, Mask, Rle

BOX_FORMATS = ("xyxy", "xywh", "cxcywh")
UNITS = ("pixel", "normalised")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class BoxForm:
    """How a file writes its boxes."""

    format: str = "xyxy"
    """Out of `BOX_FORMATS`: corners, corner and size, or centre and size."""
    units: str = "pixel"
    """Out of `UNITS`: pixels of the original image, or fractions of its width and height."""

    def __post_init__(self) -> None:
        for name, value, known in (("format", self.format, BOX_FORMATS), ("units", self.units, UNITS)):
            if value not in known:
                raise ValueError(f"expected {name} of boxes out of {known}, got {value!r}; choose one of these")

    def to_pixels(self, box: BoxXyxy, hw: tuple[int, int] | None) -> BoxXyxy:
        """A box as the file writes it as (x1, y1, x2, y2) in pixels.

        Raises:
            ValueError: it is normalised, and the size of the image is not known.
        """
        if self.format == "xyxy" and self.units == "pixel":
            return box
        values = np.array(box)
        if self.format != "xyxy":
            values = (xyxy_from_xywh if self.format == "xywh" else xyxy_from_cxcywh)(values)
        if self.units == "normalised":
            if hw is None:
                raise ValueError("expected the image, to know its size for a normalised box, got none; put it there")
            values = values * np.array([hw[1], hw[0], hw[1], hw[0]])
        x1, y1, x2, y2 = values.tolist()
        return x1, y1, x2, y2


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the file; ``error`` says why it cannot be used, ``id`` is None where not even that can be read."""

    number: int
    id: str | None = None
    box: BoxXyxy | None = None
    """As the file writes it."""
    mask: Mask | Mapping[str, object] | None = None
    found: bool = True
    says: bytes = b""
    """Equal for lines that say the same."""
    error: str | None = None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a prediction file, one by one; blank lines are passed over.

    Masks in files are only read from the file's own folder and the folders in it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of predictions, got {str(path)!r}, which is no file; check the path")
    folder = path.parent.resolve()
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            text = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 else raw
            if text.strip():
                yield _line(text, number, folder)


def _line(text: bytes, number: int, folder: Path) -> Line:
    try:
        record = parse_json(text.decode("utf-8"), unique_keys=True)
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, got {shorten(record)}; write one object a line, not one list")
        name = _id(record)
    except ValueError as error:
        return Line(number=number, error=_sentence(error, text))
    try:
        box, mask = record.get("box"), record.get("mask")
        if "box" not in record and "mask" not in record:
            keys = shorten(list(record))
            raise ValueError(f"expected a 'box' or a 'mask', got the keys {keys}; add one, or null for nothing there")
        box = None if box is None else four_numbers(box, "a box")
        mask = None if mask is None else _mask(mask, folder)
        found = _found(record, box is not None or mask is not None)
    except (ValueError, OSError) as error:
        return Line(number=number, id=name, says=_digest(text), error=str(error))
    shape = mask if isinstance(mask, list) else record.get("mask")
    says = _digest(json.dumps([box, shape, found], sort_keys=True).encode())
    return Line(number=number, id=name, box=box, mask=mask, found=found, says=says)


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).digest()


def _id(record: dict[str, object]) -> str:
    key = "id" if "id" in record else "line"  # as `deixis ground --batch` answers lines without ids
    if key not in record:
        raise ValueError(f"expected an 'id', got the keys {shorten(list(record))}; name the sample under 'id'")
    value = record[key]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"expected text or a whole number as {key!r}, got {shorten(value)}; correct it")
    return str(value)


def _found(record: dict[str, object], shows: bool) -> bool:
    value = record.get("found")
    if value is None:
        return shows
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false as 'found', got {shorten(value)}; correct it")
    return value


def _mask(value: object, folder: Path) -> Mask | Mapping[str, object]:
    """Run lengths stay as they are, since their size is to be compared before anything is decoded."""
    if isinstance(value, dict):
        return cast(dict[str, object], value)
    if isinstance(value, str):
        return _file_within(value, folder)
    return mask_from_json(value)


def _file_within(name: str, folder: Path) -> Path:
    if not name.strip() or "\0" in name:
        raise ValueError(f"expected the name of a mask's file, got {shorten(name)}; correct it")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"expected a mask's file in the predictions' folder, got {shorten(name)}; move it there")
    return path


def _sentence(error: ValueError, text: bytes) -> str:
    reason = str(error)
    return (
        reason if reason.startswith("expected") else f"expected a JSON object in UTF-8, got {shorten(text)}; correct it"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """The answer to a phrase of another image that surely means nothing in this one."""

    phrase: str
    score: float
    agreement: float
    found: bool
    evidence: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """A model's answer to one sample, and how right it is: one line of our own."""

    id: str
    image_id: str
    phrase: str
    box: BoxXyxy | None
    mask: Rle | None = field(default=None, compare=False, repr=False)
    """None where the model gives none, and wherever predictions are kept in memory."""
    score: float
    agreement: float
    found: bool
    iou: float | None
    """IoU of the boxes; None where the phrase means nothing in the image."""
    mask_iou: float | None
    """IoU of the masks; None where the data has none."""
    index: int = 0
    """The sample's place in the data set."""
    hw: tuple[int, int] = (0, 0)
    """(height, width) of the image."""
    target_box: BoxXyxy | None = None
    """As far as it lies in the image; None where the phrase means nothing in it."""
    intersection_px: int | None = None
    union_px: int | None = None
    target_px: int | None = None
    """The area of the target's mask."""
    shown_px: int | None = None
    """The area of the mask that the model gives, where the phrase means nothing."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """In which part of each of `deixis.evaluate.metrics.slices.SLICES` it is."""
    absent: Absent | None = None
    evidence: tuple[float, ...] = ()
    """What the score is made of, see `deixis.grounder.Grounding.evidence`; empty in lines of earlier versions."""

    def sample_score(self) -> SampleScore:
        """What the metrics need of it."""
        means_nothing = self.target_box is None
        return SampleScore(
            box_iou=self.iou,
            mask_intersection_px=self.intersection_px,
            mask_union_px=self.union_px,
            no_target_right=not self.found if means_nothing else None,
            found=None if means_nothing else self.found,
            target_px=self.target_px,
            shown_px=self.shown_px,
        )

    def to_json(self) -> dict[str, Any]:
        """The line as plain values."""
        record = asdict(self)
        if record["absent"] is not None:  # beside it, as earlier versions read no more keys within it
            record["absent_evidence"] = record["absent"].pop("evidence")
        return record

    @classmethod
    def from_json(cls, record: object) -> Prediction:
        """The prediction of a line, without its mask. Raises ValueError where it is none."""
        if not isinstance(record, dict):
            raise ValueError("expected a JSON object, got something else; drop the line")
        known = {"evidence": (), **cast(dict[str, Any], record), "mask": None}
        try:
            values = {one.name: known[one.name] for one in fields(cls)}
            if values["absent"] is not None:
                values["absent"] = Absent(**values["absent"], evidence=_numbers(known.get("absent_evidence", ())))
            for name in ("box", "target_box"):
                values[name] = None if values[name] is None else four_numbers(values[name], "a box")
            height, width = values["hw"]
            values["hw"] = int(height), int(width)
            values["labels"] = {str(key): str(value) for key, value in values["labels"].items()}
            values["evidence"] = _numbers(values["evidence"])
            for name, kinds in _KINDS.items():
                if not isinstance(values[name], kinds):
                    raise TypeError(f"{name} is {values[name]!r:.80}")
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected a line of predictions, got another form ({error}); drop it") from None


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "image_id", "phrase"), (str,)),
    **dict.fromkeys(("score", "agreement"), (int, float)),
    **dict.fromkeys(("iou", "mask_iou"), (int, float, type(None))),
    **dict.fromkeys(("intersection_px", "union_px", "target_px", "shown_px"), (int, type(None))),
    "found": (bool,),
    "index": (int,),
}


def _numbers(values: Sequence[float]) -> tuple[float, ...]:
    if not all(isinstance(value, int | float) for value in values):
        raise TypeError(f"evidence is {values!r:.80}")
    return tuple(map(float, values))


class PredictionLog:
    """A file of our own lines to append to; use it in a ``with``. ``known`` holds what it had, by sample index.

    A last line that was cut off, and lines that cannot be read, are dropped, so that their samples are asked again.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.known: dict[int, Prediction] = {}
        self._places: dict[int, tuple[int, int]] = {}
        if resume and path.is_file():
            self._read()
        else:
            path.write_bytes(b"")
        self._file = path.open("r+b")
        self._file.seek(0, 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write some lines at once and hand them to the system, so that they outlast this process."""
        try:
            for one in predictions:
                text = (json.dumps(one.to_json(), allow_nan=False) + "\n").encode()
                self._places[one.index] = self._file.tell(), len(text)
                self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error  # a full disk names no file

    def finish(self, order: Sequence[int]) -> None:
        """Close, and bring the lines of these samples into this order, whole or not at all; others are dropped."""
        self._file.close()
        places: dict[int, tuple[int, int]] = {}
        with self.path.open("rb") as source, atomic_write(self.path) as target:
            for index in order:
                start, length = self._places[index]
                source.seek(start)
                places[index] = target.tell(), length
                target.write(source.read(length))
        self._places = places

    def masks(self, indices: Iterable[int]) -> dict[int, Rle | None]:
        """The masks that the model gave to these samples; can be read when the log is closed."""
        found: dict[int, Rle | None] = {}
        with self.path.open("rb") as source:
            for index in indices:
                start, length = self._places[index]
                source.seek(start)
                record = cast(dict[str, Any], parse_json(source.read(length).decode()))
                found[index] = cast("Rle | None", record.get("mask"))
        return found

    def _read(self) -> None:
        start = 0
        with self.path.open("rb") as lines:
            for raw in lines:
                if not raw.endswith(b"\n"):
                    break
                try:
                    prediction = Prediction.from_json(parse_json(raw.decode("utf-8")))
                    self.known[prediction.index] = prediction
                    self._places[prediction.index] = start, len(raw)
                except ValueError:
                    pass  # its sample is asked again
                start += len(raw)
        with self.path.open("r+b") as file:
            file.truncate(start)
