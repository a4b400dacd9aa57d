"""Convolutions that see the picture and not the canvas around it. Letters: B images, S canvas side.

A network of convolutions reads the padding next to the picture's border, and so its grey and its extent. Here what
stands outside the picture is set to zero before whatever looks at neighbours, at every resolution. A cell counts as
inside where the picture covers any part of it. So the padding's colour reaches nothing, and where the picture's
borders lie on borders of cells the result is that of the network on the picture alone, zero-padded as ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class _Hidden(threading.local):
    """What each thread hides now: bool [B, 1, s, s] by the side s of a map, while pictures with padding are encoded."""

    outside: dict[int, Tensor] | None = None


_HIDDEN = _Hidden()
_TRACE_PX = 1e-3
"""Parts of a pixel that are rounding alone."""


@contextmanager
def only_pictures(content: Tensor, size: int) -> Iterator[None]:
    """Within it, what :func:`watch` was given sees the pictures alone. Costs nothing where all fill the canvas.

    Args:
        content: [B, 4] xyxy of the pictures as fractions of the canvas.
        size: S.
    """
    before = _HIDDEN.outside
    _HIDDEN.outside = _outside(content.float(), size) if _has_padding(content.float() * size, size) else None
    try:
        yield
    finally:
        _HIDDEN.outside = before


def _has_padding(content_px: Tensor, size: int) -> bool:
    try:
        return bool(((content_px[:, :2] > _TRACE_PX) | (content_px[:, 2:] < size - _TRACE_PX)).any())
    except RuntimeError:  # a tensor without values, from which only operations are counted
        return False


def _outside(content: Tensor, size: int) -> dict[int, Tensor]:
    """Which cells lie outside, for sides S, S / 2, S / 4 and so on."""
    found = {}
    side, even = size, True
    while even:
        trace = _TRACE_PX * side / size
        low, high = (content * side).unflatten(-1, (2, 2)).unbind(1)  # [B, 2] each
        cells = torch.arange(side, device=content.device)[:, None, None]
        inside = (cells + 1 > low + trace) & (cells < high - trace)  # [side, B, 2]
        x, y = inside.permute(2, 1, 0)
        found[side] = ~(y[:, None, :, None] & x[:, None, None])
        side, even = side // 2, side % 2 == 0
    return found


def _outside_of(x: Tensor) -> Tensor | None:
    """The cells of a map [B, C, s, s] that lie outside; None where nothing is to be hidden, or the side is unknown."""
    masks = _HIDDEN.outside
    return None if masks is None or x.ndim != 4 or x.shape[-1] != x.shape[-2] else masks.get(x.shape[-1])


def watch(network: nn.Module) -> None:
    """Have every convolution and pooling inside, as far as it looks at neighbours or skips cells, see pictures alone.

    That is all it takes for networks of convolutions whose maps have sides of S, S / 2, S / 4 and so on. What else
    mixes places, such as attention or a mean over the whole map, sees zeros in the padding: never its colour, but
    where it is.
    """
    for layer in network.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_pre_hook(_hide)
            layer.register_forward_hook(_hide_result)
        elif isinstance(layer, nn.AvgPool2d) or (isinstance(layer, nn.Conv2d) and not _is_pointwise(layer)):
            layer.register_forward_pre_hook(_hide)


def _is_pointwise(layer: nn.Conv2d) -> bool:
    return set(layer.kernel_size) == set(layer.stride) == {1}


def _hide(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    """Zero outside, and for a maximum what is never the largest."""
    outside = _outside_of(inputs[0])
    if outside is None:
        return None
    value = torch.finfo(inputs[0].dtype).min if isinstance(layer, nn.MaxPool2d) else 0.0
    return torch.where(outside, value, inputs[0]), *inputs[1:]  # keeps the order in memory, as masked_fill does not


def _hide_result(_layer: nn.Module, _inputs: tuple[Tensor, ...], result: Tensor) -> Tensor | None:
    outside = _outside_of(result)
    return None if outside is None else torch.where(outside, 0.0, result)


def mean_inside(blend: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``blend``, which takes weighted means of neighbouring cells of ``x`` [B, C, s, s], over those inside alone.

    At a border this is what interpolation does at the border of an image: the outermost cell goes on.
    """
    outside = _outside_of(x)
    if outside is None:
        return blend(x)
    return blend(torch.where(outside, 0.0, x)) / blend((~outside).to(x.dtype)).clamp(min=1e-3)
