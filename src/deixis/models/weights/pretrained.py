"""Weights that others published: VGG-16 and ResNet files, and models of the transformers library.

Every reader takes all of its file or says in one sentence what is missing. Files are data: no pickle runs code here.
"""

from __future__ import annotations

import json
import re
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Pretrained = TypeVar("Pretrained", bound="PreTrainedModel")


def read_torchvision_vgg16(path: str | Path) -> dict[str, Tensor]:
    """The ``features.N`` of a torchvision-named VGG-16 state dict as float32; the classifier is left out.

    Args:
        path: a ``.safetensors`` file, else what ``torch.save(model.state_dict())`` wrote (``.pth``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no tensors, or values that are not finite floats.
    """
    state = read_tensors(Path(path))
    return {name: _checked(name, v, Path(path)) for name, v in state.items() if not name.startswith("classifier.")}


_RESNET_MARKS = ("layer1.0.conv1.weight", "embedder.embedder.convolution.weight")
"""A name that every ResNet has, as torchvision and as the transformers library call it."""


def read_resnet(source: str | Path) -> dict[str, Tensor]:
    """The convolutions and batch-norms of a ResNet under the names of the transformers library's ``ResNetBackbone``.

    Understood are torchvision's names (``layer1.0.conv1.weight``), the same behind a prefix as in DETR
    (``backbone.0.body.``, inside ``{"model": ...}``), and the transformers library's own. What stands under other
    prefixes, such as DETR's transformer, and the classifier are left out; DETR's frozen batch-norm does not count its
    batches, so that zeros stand for the counts.

    Args:
        source: a ``.safetensors`` file, a ``.pth`` file, a folder of the transformers library, or its name on the hub.

    Returns:
        Float32 tensors, and int64 ``num_batches_tracked``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no ResNet, several, or values that are not finite.
    """
    path = Path(source) if _is_file_name(source) else find_file(source, "model.safetensors", "pytorch_model.bin")
    state = read_tensors(path, inside=("model", "state_dict"))
    found = [
        name.removesuffix(mark) for mark in _RESNET_MARKS for name in state if name == mark or name.endswith(f".{mark}")
    ]
    if len(found) != 1:
        what = f"{len(found)} of them, behind {found[:5]!r}" if found else f"{len(state)} other names, {[*state][:3]!r}"
        raise ValueError(
            f"expected one ResNet with names of torchvision, DETR or transformers in {str(path)!r}, got {what}; give "
            "such a file"
        )
    named = {name.removeprefix(found[0]): tensor for name, tensor in state.items() if name.startswith(found[0])}
    renamed = {_resnet_name(n): v for n, v in named.items() if not n.startswith(("fc.", "classifier."))}
    for name in [name for name in renamed if name.endswith(".running_mean")]:
        renamed.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return {name: _checked(name, tensor, path) for name, tensor in renamed.items()}


def _resnet_name(name: str) -> str:
    """A name of torchvision's as the transformers library's; any other name as it is."""
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}
    if stem := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"embedder.embedder.{kinds[stem[1]]}.{stem[2]}"
    if inner := re.fullmatch(r"layer([1-9])\.(\d+)\.(conv|bn)([1-9])\.(\w+)", name):
        stage, block, kind, place, part = inner.groups()
        return f"encoder.stages.{int(stage) - 1}.layers.{block}.layer.{int(place) - 1}.{kinds[kind]}.{part}"
    if shortcut := re.fullmatch(r"layer([1-9])\.(\d+)\.downsample\.([01])\.(\w+)", name):
        stage, block, kind, part = shortcut.groups()
        return f"encoder.stages.{int(stage) - 1}.layers.{block}.shortcut.{kinds[kind]}.{part}"
    return name


def _checked(name: str, tensor: Tensor, path: Path) -> Tensor:
    """The tensor as float32, or a batch-norm's count as it is."""
    if name.endswith(".num_batches_tracked"):
        return tensor.long()
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise ValueError(f"expected finite floats in {str(path)!r}, got others in {name!r}; fetch the file again")
    return tensor.float()


def _is_file_name(source: str | Path) -> bool:
    return Path(source).suffix in (".safetensors", ".pth", ".pt", ".bin") or Path(source).is_file()


def find_file(source: str | Path, *names: str) -> Path:
    """The first file of these names in a local folder, or in a repository of the hub (fetched, then kept in its cache).

    Raises:
        FileNotFoundError: there is none.
    """
    found = None
    if Path(source).is_dir():
        found = next((Path(source) / name for name in names if (Path(source) / name).is_file()), None)
    elif is_hub_name(source):
        found = next((file for name in names if (file := _from_hub(str(source), name)) is not None), None)
    if found is None:
        raise FileNotFoundError(
            f"expected a folder with {' or '.join(names)}, or its name on the hub, got {str(source)!r}; check it, "
            "and the network if it is the hub's"
        )
    return Path(found)


def _from_hub(repository: str, name: str) -> str | None:
    """A file of the hub or its cache. Asked once: a misspelt folder is a name on the hub too, and must not wait."""
    from huggingface_hub import file_exists, try_to_load_from_cache
    from transformers.utils.hub import cached_file

    try:
        if isinstance(try_to_load_from_cache(repository, name), str) or file_exists(repository, name):
            return cached_file(repository, name)
    except Exception:  # no network, no such repository: the errors of whatever HTTP library the hub's client uses
        return None
    return None


def is_hub_name(source: str | Path) -> bool:
    """Whether ``source`` can be a name on the hub, ``name`` or ``organisation/name``."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", str(source)) is not None


def read_transformers_config(source: str | Path, what: str) -> PretrainedConfig:
    """The configuration of a model of the transformers library; none of its own code is run.

    What is built from it has float32 weights, whatever those of ``source`` are.

    Args:
        source: a local folder with ``config.json``, a name on the hub, or what :func:`config_as_text` gives.
        what: what is looked for, for the sentence.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, or of a kind that the library does not know.
    """
    from transformers import AutoConfig

    is_text = str(source).startswith("{")
    folder = None if is_text else find_file(source, "config.json").parent
    with in_one_sentence(f"{what} in {shown(source)}"):
        if folder is None:
            config = AutoConfig.for_model(**json.loads(str(source)))
        else:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    config.dtype = torch.float32
    config._attn_implementation = None  # a file may name code on the hub there
    return config


def config_as_text(config: PretrainedConfig) -> str:
    """All sizes of a configuration as JSON: what a model can be built from without the folder it came from.

    Raises:
        ValueError: the library does not take its own description back; a checkpoint with it could not be loaded.
    """
    values = json.loads(config.to_json_string(use_diff=False))
    history = ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "transformers_version")
    text = json.dumps({name: value for name, value in values.items() if name not in history})
    read_transformers_config(text, f"a configuration of the kind {config.model_type!r} that can be stored")
    return text


def shown(source: str | Path) -> str:
    """A name, a folder, or the beginning of a configuration, for a sentence."""
    text = str(source)
    return repr(text if not text.startswith("{") or len(text) < 60 else f"{text[:60]}…")


def read_transformers(
    kind: type[Pretrained], source: str | Path, config: PretrainedConfig, *, may_miss: Sequence[str] = ()
) -> Pretrained:
    """A model of the transformers library with the weights of ``source``, where none may be missing.

    Args:
        kind: the model's class.
        source: a local folder, or a name on the hub.
        config: the sizes to build; layers that the file has beyond them are left out.
        may_miss: parts of names that a file need not have.

    Raises:
        ValueError: the file is damaged, or lacks weights or has some of another shape; the sentence lists them.
    """
    with in_one_sentence(f"weights of {kind.__name__} in {str(source)!r}"):
        loaded: Any = kind.from_pretrained(
            str(source), config=config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    model, told = loaded
    missing = [name for name in sorted(told["missing_keys"]) if not any(part in name for part in may_miss)]
    shapes = [f"{name} {tuple(theirs)} for {tuple(own)}" for name, theirs, own in sorted(told["mismatched_keys"])]
    _complain(f"the weights of {kind.__name__} in {str(source)!r}", missing=missing, other_shape=shapes)
    return model


@contextmanager
def in_one_sentence(what: str) -> Iterator[None]:
    """Quieten the transformers library, and turn whatever it raises into one sentence."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # the library raises OSError, ValueError, RuntimeError, SafetensorError and more
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(
            f"expected {what}, got what cannot be used ({type(error).__name__}: {reason}); check it or fetch it again"
        ) from error
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_tensors(path: Path, *, inside: Sequence[str] = ()) -> dict[str, Tensor]:
    """A file of named tensors; they may stand under one of the keys ``inside``, as in a training's checkpoint."""
    if not path.is_file():
        raise FileNotFoundError(f"expected a file of weights, found none at {str(path)!r}; check the path")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of pickles before it refuses them
            if path.suffix == ".safetensors":
                state = load_file(path)
            else:
                with torch.serialization.safe_globals([Namespace]):  # DETR keeps its options beside the weights
                    state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise struct.error, AttributeError and more
        raise ValueError(
            f"expected a .safetensors file or a .pth file with a state dict alone in {str(path)!r}, got one that "
            f"cannot be read as data ({type(error).__name__}); save model.state_dict() or fetch the file again"
        ) from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in inside if isinstance(state.get(key), Mapping)), state)
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
    missing = [name for name in wanted if name not in state]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {shape}"
        for name, shape in wanted.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    what = f"the weights of {type(module).__name__} in {source!r}"
    _complain(what, missing=missing, unexpected=unexpected, other_shape=shapes)
    module.load_state_dict(state)


def _complain(what: str, **names: Sequence[str]) -> None:
    """Raise one ValueError that lists the names, unless there are none."""
    complaints = [
        f"{title.replace('_', ' ')}: {', '.join(listed[:5])}{' …' if len(listed) > 5 else ''} ({len(listed)})"
        for title, listed in names.items()
        if listed
    ]
    if complaints:
        raise ValueError(f"expected {what}, got a file with {'; '.join(complaints)}")
