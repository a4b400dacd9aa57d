"""Encode an image once, ground any number of phrases in it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deixis.geometry.boxes import box_iou
from deixis.geometry.images import ImageSource, Letterbox, letterbox, read_image
from deixis.geometry.masks import box_from_mask, encode_rle
from deixis.hub import Checkpoint, load_checkpoint
from deixis.models.base import Answer, EncodedImages, GroundingModel
from deixis.models.suppression import finish_mask
from deixis.structures import BoxXyxy
from deixis.verdict import FOUND_SCORE, verdict_of

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")
AnswerT = TypeVar("AnswerT")
EncodedT = TypeVar("EncodedT")

MAX_PHRASE_CHARACTERS = 1000
SMALLEST_CANVAS = 256
PHRASES_AT_ONCE = 32
"""More phrases than that go in several passes, so that memory stays bounded."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grounding:
    """What a phrase means in an image."""

    phrase: str
    box: BoxXyxy | None
    """(x1, y1, x2, y2) in pixels of the original image, inside it; None of a model that gives masks only."""
    mask: NDArray[np.bool_] | None
    """bool [H, W] of the original image; None of a model that gives boxes only."""
    score: float
    """0..1, calibrated: how likely the box is right."""
    agreement: float
    """0..1, IoU of the box and the mask's own box; 1 where there is only one of them."""
    found: bool
    """Score and agreement reach the model's recorded thresholds."""
    ms: float
    """Milliseconds for this phrase; those of an image's first phrase include reading and encoding the image."""
    model: str
    hw: tuple[int, int]
    """Height and width of the original image."""
    image: NDArray[np.uint8] | Path = field(repr=False)
    """Pixels [H, W, 3], or the file they came from where many images are grounded."""
    evidence: tuple[float, ...] = field(default=(), repr=False)
    """The features that ``score`` is made of; see :class:`deixis.models.base.Answer`."""
    found_score: float = field(default=FOUND_SCORE, repr=False)
    """The least score that the model records for ``found``."""

    @property
    def verdict(self) -> str:
        """For people: ``found``; ``unsure``, where the score reaches half of ``found_score``; or ``not found``."""
        return verdict_of(self.score, self.found_score, found=self.found)

    def draw(self) -> Image.Image:
        """The image with box, tinted mask and phrase."""
        from deixis.drawing import draw_grounding

        return draw_grounding(read_image(self.image), [self])

    def to_json(self, image: str | None = None) -> dict[str, Any]:
        """Plain values for one line of JSON; the mask as COCO RLE."""
        return {
            "image": image,
            "phrase": self.phrase,
            "box": None if self.box is None else [round(v, 2) for v in self.box],
            "score": round(self.score, 4),
            "agreement": round(self.agreement, 4),
            "found": self.found,
            "mask": None if self.mask is None else encode_rle(self.mask),
            "model": self.model,
            "ms": round(self.ms, 1),
        }


def check_phrase(phrase: str) -> str:
    """The phrase without surrounding blanks.

    Raises:
        ValueError: if it is empty or longer than ``MAX_PHRASE_CHARACTERS``.
    """
    if not isinstance(phrase, str) or not phrase.strip():
        raise ValueError(f"expected a phrase with words, got {phrase!r}; say what to point at, such as 'left dog'")
    if len(phrase) > MAX_PHRASE_CHARACTERS:
        raise ValueError(
            f"expected a phrase of at most {MAX_PHRASE_CHARACTERS} characters, got {len(phrase)} "
            f"beginning with {phrase[:40]!r}; shorten it"
        )
    try:
        phrase.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected a phrase of valid Unicode, got {phrase[:40]!r}; check how it was encoded") from None
    return phrase.strip()


@dataclass(eq=False)
class EncodedImage:
    """An encoded image that phrases can be asked of; made by :meth:`Grounder.look`."""

    grounder: Grounder = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    frame: Letterbox
    features: EncodedImages = field(repr=False)
    encode_ms: float
    """Milliseconds for reading and encoding it; 0 once they are counted in a phrase's."""

    def ground(self, phrase: str) -> Grounding:
        """Point at what ``phrase`` means; ValueError if it is empty or too long."""
        return self.ground_all([phrase])[0]

    def ground_all(self, phrases: Sequence[str]) -> list[Grounding]:
        """Point at what each phrase means, together."""
        checked = [check_phrase(phrase) for phrase in phrases]
        parts = [checked[i : i + PHRASES_AT_ONCE] for i in range(0, len(checked), PHRASES_AT_ONCE)]
        found = [one for part in parts for one in self.grounder._ground(self, part)]
        if found:
            found[0] = replace(found[0], ms=found[0].ms + self.encode_ms)
            self.encode_ms = 0.0
        return found

    def attention(self, phrase: str) -> dict[str, NDArray[np.float32]]:
        """Where the model looks for ``phrase``, one map a branch, to be drawn.

        Returns:
            ``box`` and ``mask``, float32 [H, W] of the original image: the branch's probabilities, bilinear between
            the cells of its grid and scaled so that the largest in the image is 1. What lies on the canvas's
            padding is cut off. Empty for a model without such maps (MCN with ``cem="off"``).

        Raises:
            ValueError: the phrase is empty or too long.
        """
        with torch.inference_mode():
            maps = self.grounder.model.attention(*self._inputs([phrase]))
        found = {name: self.frame.map_to_image(one[0].numpy()) for name, one in maps.items()}
        return {name: one / max(one.max(), np.finfo(np.float32).tiny) for name, one in found.items()}

    def answer(self, phrases: Sequence[str]) -> Answer:
        """The network's own answer on the canvas, a row a phrase, before masks are suppressed and scores calibrated."""
        with torch.inference_mode():
            return self.grounder.model.answer(*self._inputs(phrases))

    def _inputs(self, phrases: Sequence[str]) -> tuple[EncodedImages, Tensor, Tensor]:
        """The image once for each phrase, token ids and token_valid [P, T]."""
        ids, valid = self.grounder.tokenizer.encode([check_phrase(phrase) for phrase in phrases])
        rows = self.features.pick(torch.zeros(len(ids), dtype=torch.long))
        return rows, torch.from_numpy(ids), torch.from_numpy(valid)


Scene = EncodedImage
"""Its earlier name, which goes with the next release."""


class Grounder:
    """A loaded model with its preprocessing; make one with :func:`load`."""

    def __init__(self, checkpoint: Checkpoint, *, precision: str = "auto") -> None:
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"expected precision 'auto', 'float32' or 'bfloat16', got {precision!r}")
        fast = precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16())
        self.name = checkpoint.name
        self.dtype = torch.bfloat16 if fast else torch.float32
        self.model: GroundingModel = checkpoint.model.to(dtype=self.dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.tokenizer = checkpoint.tokenizer
        self.calibration = checkpoint.calibration
        self.size = checkpoint.model.config.image_size
        self.suppression = checkpoint.model.suppression

    def look(self, image: ImageSource) -> EncodedImage:
        """Encode an image once.

        Args:
            image: a path, a PIL image, or a uint8 array [H, W, 3].

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no image that can be read.
        """
        begun = time.perf_counter()
        pixels = read_image(image)
        canvas, frame = letterbox(pixels, self.canvas_side(pixels.shape[:2]), self.model.fill, self.model.resize)
        box = (0.0, 0.0, float(frame.hw[1]), float(frame.hw[0]))
        content = torch.tensor([frame.box_to_canvas(box)], dtype=torch.float32) / frame.size
        tensor = torch.from_numpy(canvas).permute(2, 0, 1)[None].to(self.dtype).div_(255)
        with torch.inference_mode():
            features = self.model.encode_image(tensor.contiguous(memory_format=torch.channels_last), content)
        return EncodedImage(self, pixels, frame, features, 1000 * (time.perf_counter() - begun))

    def ground(self, image: ImageSource, phrase: str) -> Grounding:
        """Look at ``image`` and point at what ``phrase`` means."""
        check_phrase(phrase)
        return self.look(image).ground(phrase)

    def ground_many(
        self, pairs: Iterable[tuple[ImageSource, str]], *, progress: bool = False
    ) -> list[Grounding | ValueError | OSError]:
        """Ground (image, phrase) pairs in order; neighbours on the same path share one encoding and are asked together.

        A pair that fails gives its error in its place, so that the others are not lost. Results of paths remember
        the path, not the pixels.
        """
        from deixis.progress import progress_over

        results: list[Grounding | ValueError | OSError] = []
        asking = ImageByImage(self.look)
        for run in runs_of_one_image(progress_over(pairs, "grounding", show=progress), lambda pair: _path_of(pair[0])):
            image, path = run[0][0], _path_of(run[0][0])
            for found in asking.answers(image, [phrase for _, phrase in run], EncodedImage.ground_all, key=path):
                is_grounding = isinstance(found, Grounding)
                results.append(replace(found, image=path) if is_grounding and path is not None else found)
        return results

    def canvas_side(self, hw: tuple[int, ...]) -> int:
        """The side of the canvas for an image (height, width)."""
        return canvas_side(hw, self.size) if self.model.adapts_canvas else self.size

    def _ground(self, encoded: EncodedImage, phrases: list[str]) -> list[Grounding]:
        begun = time.perf_counter()
        answer = encoded.answer(phrases)
        answers = [self._on_image(encoded.frame, answer, row) for row in range(len(phrases))]
        ms = 1000 * (time.perf_counter() - begun) / len(phrases)
        return [
            Grounding(phrase=phrase, ms=ms, model=self.name, hw=encoded.frame.hw, image=encoded.image, **answer)
            for phrase, answer in zip(phrases, answers, strict=True)
        ]

    def _on_image(self, frame: Letterbox, answer: Answer, row: int) -> dict[str, Any]:
        """One row of an answer in pixels of the original image, with its score."""
        box = mask = canvas_px = None
        agreement = 1.0
        if answer.boxes is not None:
            canvas_px = (answer.boxes[row].float() * frame.size).tolist()
            box = keep_inside(frame.box_to_image(canvas_px, clip=True), frame.hw)
        if answer.mask_probability is not None:
            mask = self._finish(answer.mask_probability[row], frame, canvas_px, float(answer.confidence[row]))
        if box is not None and mask is not None:
            own = box_from_mask(mask)
            agreement = float(box_iou(np.array(own), np.array(box))) if own else 0.0
        evidence = (*answer.signs[row].tolist(), agreement)
        score = calibrated(evidence, self.calibration, self.model.score_weights)
        found_score = self.calibration.get("found_score", FOUND_SCORE)
        return {
            "box": box,
            "mask": mask,
            "score": score,
            "agreement": agreement,
            "found": score >= found_score and agreement >= self.calibration.get("found_agreement", 0.0),
            "found_score": found_score,
            "evidence": evidence,
        }

    def _finish(
        self, probability: Tensor, frame: Letterbox, box_canvas_px: list[float] | None, confidence: float
    ) -> NDArray[np.bool_]:
        """The mask on the original image, suppressed by the box where there is one."""
        return finish_mask(
            probability.float().numpy(),
            frame,
            box_canvas_px or (0.0, 0.0, 0.0, 0.0),
            confidence,
            method=self.suppression if box_canvas_px else "none",
            order=self.model.suppression_order,
        )


def canvas_side(hw: tuple[int, ...], largest: int) -> int:
    """The canvas for an image (height, width): a multiple of 32 that does not enlarge it beyond ``SMALLEST_CANVAS``."""
    return min(largest, max(SMALLEST_CANVAS, 32 * math.ceil(max(hw) / 32)))


def runs_of_one_image(items: Iterable[T], key_of: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Yield neighbours that are on one image together, at most `PHRASES_AT_ONCE` of them.

    Args:
        items: read one by one.
        key_of: names an item's image. An item whose key is None comes alone, before the next one is read.
    """
    run: list[T] = []
    last: Hashable = None
    for item in items:
        key = key_of(item)
        if run and (key != last or len(run) == PHRASES_AT_ONCE):
            yield run
            run = []
        if key is None:
            yield [item]
        else:
            run.append(item)
        last = key
    if run:
        yield run


class ImageByImage(Generic[EncodedT]):
    """Asks one image after another any number of phrases; an image that comes twice in a row is encoded once.

    All that asks many phrases does so here: `Grounder.ground_many`, ``deixis ground --batch``, evaluation, calibration.
    """

    def __init__(self, look: Callable[[ImageSource], EncodedT], limit: Callable[[EncodedT], int] | None = None) -> None:
        """Take ``look``, which encodes an image, and how many phrases may be asked together; None: any number."""
        self._look, self._limit = look, limit
        self._last: tuple[Hashable, EncodedT] | None = None

    def answers(
        self,
        image: ImageSource,
        phrases: Sequence[str],
        ask: Callable[[EncodedT, Sequence[str]], Sequence[AnswerT]],
        *,
        key: Hashable = None,
    ) -> Iterator[AnswerT | ValueError | OSError]:
        """Yield an answer a phrase, or in its place the error: of the image, or of a phrase that is refused.

        Args:
            image: where to look.
            phrases: what to ask.
            ask: answers phrases, one answer each.
            key: names the image, so that it is not encoded again for the next call; None where its pixels may change.
        """
        try:
            if self._last is None or key is None or self._last[0] != key:
                self._last = None  # not two encoded images at a time
                self._last = key, self._look(image)
            encoded = self._last[1]
        except (ValueError, OSError) as error:
            yield from [error] * len(phrases)
            return
        at_once = max(1, len(phrases) if self._limit is None else self._limit(encoded))
        for start in range(0, len(phrases), at_once):
            yield from _ask_all(encoded, phrases[start : start + at_once], ask)


def _ask_all(
    encoded: EncodedT, phrases: Sequence[str], ask: Callable[[EncodedT, Sequence[str]], Sequence[AnswerT]]
) -> Sequence[AnswerT | ValueError]:
    """All at once; where a phrase is refused, one by one, so that the others are not lost."""
    try:
        return ask(encoded, phrases)
    except ValueError as error:
        if len(phrases) == 1:
            return [error]
        return [answer for phrase in phrases for answer in _ask_all(encoded, [phrase], ask)]


def _path_of(image: ImageSource) -> Path | None:
    """The path of a file; None for pixels, as a caller may fill the same array anew."""
    return Path(image) if isinstance(image, str | Path) else None


def keep_inside(box: BoxXyxy, hw: tuple[int, int]) -> BoxXyxy:
    """The box inside the image, at least two hundredths of a pixel wide and high: an area even when rounded."""
    height, width = hw
    x1, y1 = min(max(box[0], 0.0), width - 0.02), min(max(box[1], 0.0), height - 0.02)
    x2, y2 = min(max(box[2], x1 + 0.02), width), min(max(box[3], y1 + 0.02), height)
    return (float(x1), float(y1), float(x2), float(y2))


def calibrated(evidence: Sequence[float], calibration: dict[str, Any], default_weights: Sequence[float]) -> float:
    """The probability that the box is right, by the logistic regression that the checkpoint stores."""
    weights = calibration.get("weights", default_weights)
    logit = calibration.get("bias", 0.0) + sum(w * e for w, e in zip(weights, evidence, strict=True))
    return 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def load(model: str | os.PathLike[str] = "deixis-tiny", *, precision: str = "auto") -> Grounder:
    """A grounder by bundled name, folder, or ``hf-hub:org/repo``.

    Args:
        model: which checkpoint.
        precision: ``float32``, ``bfloat16``, or ``auto`` for the faster of the two on this machine.

    Raises:
        FileNotFoundError: there is no such checkpoint; the sentence lists the bundled ones.
        ValueError: the checkpoint is damaged.
    """
    return Grounder(load_checkpoint(os.fspath(model)), precision=precision)
