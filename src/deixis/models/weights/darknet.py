"""Darknet's networks: the ``.cfg`` text and the ``.weights`` file, which is read to its last number."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DarknetConv:
    """One convolution of a Darknet network, arrays in PyTorch's order."""

    weight: NDArray[np.float32]  # [out, in, k, k]
    bias: NDArray[np.float32]  # [out]
    bn_scale: NDArray[np.float32] | None
    bn_mean: NDArray[np.float32] | None
    bn_var: NDArray[np.float32] | None

    def folded(self, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals convolution, then batch-norm in eval mode."""
        if self.bn_scale is None or self.bn_mean is None or self.bn_var is None:
            return torch.from_numpy(self.weight.copy()), torch.from_numpy(self.bias.copy())
        gain = self.bn_scale / np.sqrt(self.bn_var + eps)
        weight = self.weight * gain[:, None, None, None]
        return torch.from_numpy(weight), torch.from_numpy(self.bias - self.bn_mean * gain)


def read_darknet_folder(folder: str | Path) -> list[DarknetConv]:
    """The convolutions of a folder's one ``.cfg`` and one file of weights, which may end with any of them.

    The file of weights is called ``.weights``, or such as ``darknet53.conv.74``.

    Raises:
        FileNotFoundError: there is none of one kind.
        ValueError: there are several, or they do not fit.
    """
    found = []
    for kind, patterns in ((".cfg", ("*.cfg",)), (".weights", ("*.weights", "*.conv.[0-9]*"))):
        files = sorted(file for pattern in patterns for file in Path(folder).glob(pattern))
        if not files:
            raise FileNotFoundError(f"expected a {kind} file in the folder {str(folder)!r}, got none; check the path")
        if len(files) > 1:
            raise ValueError(
                f"expected one {kind} file in {str(folder)!r}, got {[one.name for one in files]!r}; leave one there"
            )
        found.append(files[0])
    return read_darknet(found[0], found[1])


def read_darknet(cfg: str | Path, weights: str | Path) -> list[DarknetConv]:
    """The convolutions of a Darknet network in file order, memory-mapped: all, or those up to the file's end.

    The file holds a header (three int32, and images seen as int64, as int32 before version 0.2), then of every
    convolution the bias, the batch-norm's scale, mean and variance where it has one, and the weight, all float32.

    Args:
        cfg: the network's ``.cfg`` file.
        weights: the ``.weights`` file; one that holds a body alone, such as darknet53.conv.74, ends with one of the
            network's convolutions.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: the ``.cfg`` is none, or the ``.weights`` file is shorter or longer than the network needs or holds
            values that are not finite.
    """
    shapes = convolution_shapes(cfg)
    values = _darknet_values(weights)
    ends = list(accumulate(shape.values for shape in shapes))
    if len(values) in ends:
        shapes = shapes[: ends.index(len(values)) + 1]
    if len(values) != sum(shape.values for shape in shapes):
        raise ValueError(_wrong_length(shapes, len(values), cfg, weights))
    convs: list[DarknetConv] = []
    end = 0
    for shape in shapes:
        start, end = end, end + shape.values
        part = values[start:end]
        if not np.isfinite(part).all():
            raise ValueError(
                f"expected finite values in {str(weights)!r}, got others in layer {shape.layer} of {str(cfg)!r}; "
                "use the matching pair of files"
            )
        rows = 4 if shape.batch_norm else 1
        split = rows * shape.weight[0]
        vectors = part[:split].reshape(rows, -1)
        scale, mean, var = vectors[1:] if shape.batch_norm else (None, None, None)
        convs.append(
            DarknetConv(
                weight=part[split:].reshape(shape.weight), bias=vectors[0], bn_scale=scale, bn_mean=mean, bn_var=var
            )
        )
    return convs


def _darknet_values(path: str | Path) -> NDArray[np.float32]:
    """All float32 values behind the header, mapped so that writing to them never reaches the file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a Darknet .weights file, found none at {str(path)!r}; check the path")
    size = Path(path).stat().st_size
    if size < 20:
        raise ValueError(f"expected a Darknet .weights file with a 20-byte header, got {size} bytes in {str(path)!r}")
    major, minor = (int(v) for v in np.fromfile(path, "<i4", 2))
    header = 20 if major * 10 + minor >= 2 and max(major, minor) < 1000 else 16
    if (size - header) % 4:
        raise ValueError(
            f"expected whole float32 values after the header of {str(path)!r}, got {size} bytes in all; "
            "fetch the file again"
        )
    if size == header:
        return np.empty(0, np.float32)
    return np.asarray(np.memmap(path, "<f4", "c", offset=header))


def _wrong_length(shapes: Sequence[ConvShape], have: int, cfg: str | Path, weights: str | Path) -> str:
    """The sentence about a file of another length than its network's."""
    ends = list(accumulate(shape.values for shape in shapes))
    needed = ends[-1] if ends else 0
    text = f"expected {needed} values for {str(cfg)!r}, got {have} in {str(weights)!r}, "
    if have > needed:
        return f"{text}{have - needed} more than its {len(shapes)} convolutions take; use the matching pair of files"
    first = next(i for i, end in enumerate(ends) if end > have)
    text += f"{needed - have} too few: convolution {first} (layer {shapes[first].layer}) and those after it are missing"
    return f"{text}; use the matching pair of files"


_KEEPS_CHANNELS = ("maxpool", "upsample", "shortcut", "yolo")


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """What one convolution takes of the file."""

    layer: int
    """Place among the layers after [net], as ``route`` counts them."""
    weight: tuple[int, int, int, int]
    """(out, in, kernel, kernel)."""
    batch_norm: bool

    @property
    def values(self) -> int:
        """Float32 values: a bias or a batch-norm's four vectors, then the weight."""
        return self.weight[0] * (4 if self.batch_norm else 1) + math.prod(self.weight)


def parse_darknet_cfg(path: str | Path) -> list[dict[str, str]]:
    """The sections of a Darknet ``.cfg`` file in order; each dict has the section's name under ``type``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is neither a section nor ``key=value``, or the first section is not [net].
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected a Darknet .cfg file, found none at {str(path)!r}; check the path")
    sections: list[dict[str, str]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = re.split("[#;]", line)[0].strip()
        if not text:
            continue
        if header := re.fullmatch(r"\[(\w+)\]", text):
            sections.append({"type": header[1]})
        elif "=" in text and sections:
            key, value = text.split("=", 1)
            sections[-1][key.strip()] = value.strip()
        else:
            raise ValueError(
                f"expected '[section]' or 'key=value' in line {number} of {str(path)!r}, got {line[:80]!r}; "
                "use the network's .cfg file"
            )
    if not sections or sections[0]["type"] not in ("net", "network"):
        raise ValueError(f"expected a Darknet .cfg that begins with [net], got another file in {str(path)!r}")
    return sections


def convolution_shapes(path: str | Path) -> list[ConvShape]:
    """Every convolution of a ``.cfg`` file in the order of the ``.weights`` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no ``.cfg`` of YOLOv3 kind.
    """
    net, *layers = parse_darknet_cfg(path)
    current = _number(net, "channels", path, default="3")
    outputs: list[int] = []
    shapes: list[ConvShape] = []
    for layer, section in enumerate(layers):
        match section["type"]:
            case "convolutional":
                out, kernel = _number(section, "filters", path), _number(section, "size", path)
                batch_norm = _number(section, "batch_normalize", path, default="0", least=0) != 0
                shapes.append(ConvShape(layer=layer, weight=(out, current, kernel, kernel), batch_norm=batch_norm))
                current = out
            case "route":
                current = _routed(section, layer, outputs, path)
            case kind if kind not in _KEEPS_CHANNELS:
                raise ValueError(f"expected Darknet layers of YOLOv3 kinds in {str(path)!r}, got [{kind}]")
        if _number(section, "groups", path, default="1") != 1:
            raise ValueError(f"expected layers without groups in {str(path)!r}, got {section['groups']!r}")
        outputs.append(current)
    return shapes


def _routed(section: dict[str, str], layer: int, outputs: list[int], path: str | Path) -> int:
    """Channels of a [route]: the sum over the earlier layers it names, counted from here where negative."""
    text = section.get("layers", "")
    if not re.fullmatch(r"-?\d{1,6}(\s*,\s*-?\d{1,6})*", text):
        raise ValueError(f"expected whole numbers for 'layers' of a [route] in {str(path)!r}, got {text!r}")
    picks = [int(part) for part in text.split(",")]
    picks = [pick if pick >= 0 else layer + pick for pick in picks]
    if not all(0 <= pick < layer for pick in picks):
        raise ValueError(f"expected [route] of {str(path)!r} to name earlier layers, got {text!r}")
    return sum(outputs[pick] for pick in picks)


def _number(section: dict[str, str], key: str, path: str | Path, *, default: str = "", least: int = 1) -> int:
    """A whole number of a section."""
    text = section.get(key, default)
    if not re.fullmatch(r"\+?\d{1,6}", text) or int(text) < least:
        raise ValueError(
            f"expected a whole number of at least {least} for {key!r} of [{section['type']}] in {str(path)!r}, "
            f"got {text!r}"
        )
    return int(text)
