"""Which samples are worth looking at, and their images: target, answer, and where the model looked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from PIL import Image

from deixis.drawing import Mark, draw_attention, draw_marks
from deixis.evaluate.metrics import RIGHT
from deixis.evaluate.predictions import Prediction, PredictionLog
from deixis.evaluate.report import html_page
from deixis.geometry.images import ImageSource, read_image
from deixis.geometry.masks import decode_rle, read_mask
from deixis.structures import Rle, Sample
from deixis.verdict import FOUND_SCORE, score_in_words, verdict_of

T = TypeVar("T")


def choose_cases(predictions: Sequence[Prediction], count: int = 6) -> dict[str, list[Prediction]]:
    """The best, the worst, and the inconsistent answers (box right and mask wrong, or the reverse), by title.

    Each image stands once under a title. Of answers that are equally wrong the surest come first. "False alarms" are
    samples whose images were said to hold what they surely lack.
    """
    judged = [one for one in predictions if quality(one) is not None]
    torn = [one for one in judged if one.iou is not None and one.mask_iou is not None]
    torn = [one for one in torn if ((one.iou or 0) > RIGHT) != ((one.mask_iou or 0) > RIGHT)]
    fooled = [one for one in predictions if one.absent is not None and one.absent.found]
    chosen = {
        "Worst": _first(judged, lambda one: (quality(one), -one.score), count),
        "Box and mask disagree": _first(torn, lambda one: -abs((one.iou or 0) - (one.mask_iou or 0)), count),
        "False alarms": _first(fooled, lambda one: -one.absent.score if one.absent else 0, count),
        "Best": _first(judged, lambda one: (-(quality(one) or 0), -one.score), count),
    }
    return {title: ones for title, ones in chosen.items() if ones}


def quality(prediction: Prediction) -> float | None:
    """The mean of the IoUs that there are; None where there is none."""
    known = [value for value in (prediction.iou, prediction.mask_iou) if value is not None]
    return sum(known) / len(known) if known else None


def show_cases(
    chosen: Sequence[Prediction],
    samples: Sequence[Sample],
    log: PredictionLog,
    grounder: Any,  # noqa: ANN401
    found_score: float = FOUND_SCORE,
) -> str:
    """HTML of these samples; one whose image can no longer be read is left out.

    Args:
        chosen: whose answers are in the log.
        samples: the data set.
        log: has the masks.
        grounder: shows where it looked, if it can; None for no such images.
        found_score: what the model records, see `deixis.verdict`.
    """
    masks = log.masks(one.index for one in chosen)

    def case(one: Prediction) -> html_page.Case:
        sample = samples[one.index]
        answer = answer_image(sample, one, masks[one.index], found_score=found_score)
        images = [target_image(sample, one), answer, *_attention(sample.image, one.phrase, grounder)]
        return one.phrase, [*notes_on(one, found_score), f"sample {one.id}"], images

    return show(chosen, case)


def show_false_alarms(chosen: Sequence[Prediction], samples: Sequence[Sample], grounder: Any) -> str:  # noqa: ANN401
    """HTML of what the model found where the phrase means nothing, asked again."""

    def case(one: Prediction) -> html_page.Case:
        assert one.absent is not None
        image, phrase = samples[one.index].image, one.absent.phrase
        answer = grounder.look(image).ground_all([phrase])[0]
        mark = Mark(text=f"{answer.score:.2f}", box_xyxy_px=answer.box, mask=answer.mask)
        images = [("answer", draw_marks(read_image(image), [mark])), *_attention(image, phrase, grounder)]
        note = f"score {one.absent.score:.2f}; this phrase is of another image"
        return phrase, [note, f"image {one.image_id}"], images

    return show([one for one in chosen if one.absent is not None], case)


def show(chosen: Iterable[T], case_of: Callable[[T], html_page.Case]) -> str:
    """HTML of cases side by side; one whose image cannot be read is left out."""
    figures = []
    for one in chosen:
        try:
            figures.append(html_page.case(*case_of(one)))
        except (ValueError, OSError):
            continue
    return html_page.cases(figures)


def target_image(sample: Sample, prediction: Prediction) -> tuple[str, Image.Image]:
    """The image with what is meant."""
    mask = None if sample.mask is None else read_mask(sample.mask, prediction.hw)
    words = "target" if prediction.target_box is not None else "nothing is meant"
    mark = Mark(text=words, box_xyxy_px=prediction.target_box, mask=mask)
    return "target", draw_marks(read_image(sample.image), [mark])


def answer_image(
    sample: Sample, prediction: Prediction, mask: Rle | None, name: str = "answer", *, found_score: float = FOUND_SCORE
) -> tuple[str, Image.Image]:
    """The image with what the model says."""
    box = prediction.box
    mark = Mark(
        text=score_in_words(prediction.score, verdict_on(prediction, found_score)),
        box_xyxy_px=None if box is None else (box[0], box[1], box[2], box[3]),
        mask=None if mask is None else decode_rle(mask),
    )
    return name, draw_marks(read_image(sample.image), [mark])


def verdict_on(prediction: Prediction, found_score: float) -> str:
    """What the answer is called, one of `deixis.verdict.VERDICTS`."""
    return verdict_of(prediction.score, found_score, found=prediction.found)


def notes_on(prediction: Prediction, found_score: float = FOUND_SCORE) -> list[str]:
    """Its figures in words, and its verdict."""
    known: Iterable[tuple[str, float | None]] = (
        ("box IoU", prediction.iou), ("mask IoU", prediction.mask_iou),
        ("score", prediction.score), ("agreement", prediction.agreement),
    )  # fmt: skip
    figures = ", ".join(f"{name} {value:.2f}" for name, value in known if value is not None)
    return [f"{figures}, {verdict_on(prediction, found_score)}"]


def _attention(source: ImageSource, phrase: str, grounder: Any) -> list[tuple[str, Image.Image]]:  # noqa: ANN401
    scene = None if grounder is None else grounder.look(source)
    if not hasattr(scene, "attention"):
        return []
    maps: Mapping[str, Any] = scene.attention(phrase)  # pyright: ignore[reportOptionalMemberAccess]
    image = read_image(source)
    return [
        (f"where it looked for the {name}", draw_attention(image, {name: one}, phrase)) for name, one in maps.items()
    ]


def first_of_each_image(
    items: Iterable[T], prediction_of: Callable[[T], Prediction], key: Callable[[T], Any], count: int
) -> list[T]:
    """The first few in the order of ``key``, each image once."""
    chosen: dict[str, T] = {}
    for item in sorted(items, key=lambda item: (key(item), prediction_of(item).index)):
        if len(chosen) == count:
            break
        chosen.setdefault(prediction_of(item).image_id, item)
    return list(chosen.values())


def _first(predictions: Iterable[Prediction], key: Callable[[Prediction], Any], count: int) -> list[Prediction]:
    return first_of_each_image(predictions, lambda prediction: prediction, key, count)
