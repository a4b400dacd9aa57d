"""Weights that other programs wrote: Darknet ``.weights`` and torchvision-named VGG-16 files.

Every reader consumes its file to the last number or says in one sentence what is missing. Files are data: no pickle
runs code here.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from deixis.models.darknet_cfg import ConvShape, convolution_shapes


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


def read_darknet(
    cfg: str | Path, weights: str | Path, *, cutoff: int | None = None, may_end_early: bool = False
) -> list[DarknetConv]:
    """All convolutions of a Darknet network in file order, memory-mapped.

    The file holds a header (three int32, and images seen as int64, as int32 before version 0.2), then of every
    convolution the bias, the batch-norm's scale, mean and variance where it has one, and the weight, all float32.

    Args:
        cfg: the network's ``.cfg`` file.
        weights: the ``.weights`` file.
        cutoff: read only the layers before this index (a file that holds a body alone, such as darknet53.conv.74,
            whose cutoff is 75).
        may_end_early: take a file that ends with some convolution as one of those up to there, however many.

    Raises:
        FileNotFoundError: one of the files is not there.
        ValueError: the ``.cfg`` is none, or the ``.weights`` file is shorter or longer than the network needs or holds
            values that are not finite.
    """
    shapes = [s for s in convolution_shapes(cfg) if cutoff is None or s.layer < cutoff]
    values = _darknet_values(weights)
    ends = list(accumulate(shape.values for shape in shapes))
    if may_end_early and len(values) in ends:
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
    if first and ends[first - 1] == have:
        return f"{text}; where that is meant, read the body alone with cutoff={shapes[first].layer}"
    return f"{text}; use the matching pair of files"


_VGG16 = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    17: (512, 256), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip
"""torchvision's ``features.N`` that are convolutions of VGG-16 without batch-norm: (out, in), kernels 3 x 3."""


def read_torchvision_vgg16(path: str | Path) -> dict[str, Tensor]:
    """The 13 convolutions of a torchvision-named VGG-16 state dict, in order; the classifier is left out.

    Args:
        path: a ``.safetensors`` file, else what ``torch.save(model.state_dict())`` wrote (``.pth``).

    Returns:
        ``features.N.weight`` [out, in, 3, 3] and ``features.N.bias`` [out], float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no tensors, or other ones; the sentence lists what is missing.
    """
    state = {k: v for k, v in _read_tensors(Path(path)).items() if not k.startswith("classifier.")}
    wanted: dict[str, tuple[int, ...]] = {}
    for index, (out, channels) in _VGG16.items():
        wanted |= {f"features.{index}.weight": (out, channels, 3, 3), f"features.{index}.bias": (out,)}
    _check_names(wanted, state, f"the convolutions of torchvision's VGG-16 in {str(path)!r}")
    if wrong := [k for k, v in state.items() if not v.is_floating_point() or not torch.isfinite(v).all()]:
        raise ValueError(f"expected finite floats in {str(path)!r}, got others in {wrong[:5]}; fetch the file again")
    return {name: state[name].float() for name in wanted}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """A file of named tensors."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of weights, found none at {str(path)!r}; check the path")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of pickles before it refuses them
            is_safe = path.suffix == ".safetensors"
            state = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise struct.error, AttributeError and more
        raise ValueError(
            f"expected a .safetensors file or a .pth file with a state dict alone in {str(path)!r}, got one that "
            f"cannot be read as data ({type(error).__name__}); save model.state_dict() or fetch the file again"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(
            f"expected a state dict, names to tensors, in {str(path)!r}, got {type(state).__name__} of other things; "
            "save model.state_dict()"
        )
    return {str(name): tensor for name, tensor in state.items()}


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load ``state`` into ``module``; every name and shape must match.

    Raises:
        ValueError: one sentence that lists what is missing, unexpected or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_names(wanted, state, f"the weights of {type(module).__name__} in {source!r}")
    module.load_state_dict(state)


def _check_names(wanted: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], what: str) -> None:
    """Raise one ValueError unless ``state`` has the wanted names and shapes and no others."""
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {shape}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    complaints = [
        f"{title}: {', '.join(names[:5])}{' …' if len(names) > 5 else ''} ({len(names)})"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("other shape", shapes))
        if names
    ]
    if complaints:
        raise ValueError(f"expected {what}, got a file with {'; '.join(complaints)}")
