"""Darknet's ``.cfg`` text: its sections, and the shape of every convolution that the ``.weights`` file holds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

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
