"""Deixis points at the one thing that a phrase means in an image: a box, a pixel mask, and how sure it is.

Example:
    >>> import deixis
    >>> found = deixis.ground("street.jpg", "the man on the left")  # doctest: +SKIP
    >>> found.box, found.mask.shape, found.score  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from deixis.data import open_dataset as open_dataset
    from deixis.geometry.images import ImageSource
    from deixis.grounder import EncodedImage, Grounder, Grounding
    from deixis.grounder import load as load

    __version__: str

DEFAULT_MODEL = "deixis-tiny"

__all__ = [
    "DEFAULT_MODEL",
    "EncodedImage",
    "Grounder",
    "Grounding",
    "__version__",
    "create_model",
    "draw",
    "ground",
    "ground_many",
    "list_models",
    "load",
    "look",
    "open_dataset",
]

_HOMES = {
    "EncodedImage": "deixis.grounder",
    "Grounder": "deixis.grounder",
    "Grounding": "deixis.grounder",
    "Scene": "deixis.grounder",  # its earlier name, which goes with the next release
    "load": "deixis.grounder",
    "open_dataset": "deixis.data",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute can be anything
    """Import a public name when it is first used, so that ``import deixis`` stays free of torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("deixis")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'deixis' has no attribute {name!r}; its public names are {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)


@lru_cache(maxsize=2)
def _loaded(model: str) -> Grounder:
    from deixis.grounder import load

    return load(model)


def look(image: ImageSource, *, model: str = DEFAULT_MODEL) -> EncodedImage:
    """Encode an image once, to ground any number of phrases in it.

    Args:
        image: a path, a PIL image, or a uint8 array [H, W, 3].
        model: a bundled name, a checkpoint folder, or ``"hf-hub:org/repo"``; it is loaded once and kept.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an image that can be read.
    """
    return _loaded(model).look(image)


def ground(image: ImageSource, phrase: str, *, model: str = DEFAULT_MODEL) -> Grounding:
    """Point at the one thing that ``phrase`` means in ``image``.

    Returns:
        box in pixels of the original image, mask [H, W], score and agreement in 0..1.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is not an image, or the phrase is empty or too long.
    """
    return look(image, model=model).ground(phrase)


def ground_many(
    pairs: Iterable[tuple[ImageSource, str]], *, model: str = DEFAULT_MODEL, progress: bool = False
) -> list[Grounding | ValueError | OSError]:
    """Ground many (image, phrase) pairs; a pair that fails gives its error in its place."""
    return _loaded(model).ground_many(pairs, progress=progress)


def draw(groundings: Grounding | Sequence[Grounding]) -> Image.Image:
    """Draw one or several groundings of the same image: box, tinted mask, phrase and score.

    Raises:
        ValueError: no grounding given.
    """
    from deixis.drawing import draw_grounding
    from deixis.geometry.images import read_image

    found = list(groundings) if isinstance(groundings, Sequence) else [groundings]
    if not found:
        raise ValueError("expected at least one grounding to draw, got none; ground a phrase first")
    return draw_grounding(read_image(found[0].image), found)


def list_models() -> list[str]:
    """Names for :func:`load` (bundled checkpoints) and :func:`create_model` (presets), in order."""
    from deixis.config import PRESETS
    from deixis.hub import list_bundled

    return sorted({*PRESETS, *list_bundled()})


def create_model(name: str, *, pretrained: bool = False, **fields: Any) -> nn.Module:  # noqa: ANN401 - fields vary
    """Build the network of a preset, with random weights unless ``pretrained``.

    Args:
        name: a preset, or with ``pretrained`` a bundled name, a folder, or ``"hf-hub:org/repo"``.
        pretrained: load the checkpoint's weights.
        fields: fields of the preset to replace; not with ``pretrained``, as they would not fit its weights.

    Raises:
        ValueError: unknown name or field, or fields given with ``pretrained``.
        FileNotFoundError: no such checkpoint.
    """
    if pretrained:
        if fields:
            raise ValueError(
                f"expected no fields beside pretrained=True, got {sorted(fields)!r}; leave one of them out"
            )
        from deixis.hub import load_checkpoint

        return load_checkpoint(name).model
    from deixis.config import preset
    from deixis.models.registry import build_model

    return build_model(preset(name, **fields))
