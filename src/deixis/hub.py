"""Checkpoint folders: model.safetensors, config.json, the vocabulary, a model card. Never a pickle."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deixis.config import config_from_dict, config_to_dict
from deixis.files import atomic_files
from deixis.language.tokenizers import PhraseTokenizer, WordPieceTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.registry import build_model
from deixis.models.weights.pretrained import load_exactly

BUNDLED = Path(__file__).parent / "checkpoints"
LARGE = 100_000
"""Weights of so many values are stored as int8."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded folder."""

    name: str
    model: GroundingModel
    tokenizer: PhraseTokenizer
    calibration: dict[str, Any] = field(default_factory=dict)


def list_bundled() -> list[str]:
    """Names of the checkpoints that ship with the library."""
    return sorted(p.parent.name for p in BUNDLED.glob("*/config.json"))


def find_checkpoint(model: str | Path) -> Path:
    """The folder of a bundled name, a path, or ``hf-hub:org/repo``.

    Raises:
        FileNotFoundError: with the bundled names and the path that was looked at.
    """
    text = str(model)
    if text.startswith("hf-hub:"):
        from huggingface_hub import snapshot_download

        wanted = ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "README.md"]
        return Path(snapshot_download(text.removeprefix("hf-hub:"), allow_patterns=wanted))
    for folder in (BUNDLED / text, Path(text)):
        if (folder / "config.json").is_file():
            return folder
    near = difflib.get_close_matches(text, list_bundled(), n=1)
    hint = f"perhaps {near[0]!r} is meant" if near else "check the name"
    raise FileNotFoundError(
        f"expected a bundled model ({', '.join(list_bundled()) or 'none here'}), a folder with config.json, "
        f"or 'hf-hub:org/repo', got {text!r}; {hint}"
    )


def load_checkpoint(model: str | Path) -> Checkpoint:
    """Read a checkpoint; weights come out as float32.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file of it is damaged or does not fit the others.
    """
    folder = find_checkpoint(model)
    try:
        stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = config_from_dict(stored["model"])
        network = build_model(config)
        calibration = _check_calibration(stored.get("calibration", {}), network)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"expected a Deixis config.json in {str(folder)!r}, got {error!r}; fetch the checkpoint again"
        ) from error
    if config.has_word_pieces:
        tokenizer: PhraseTokenizer = WordPieceTokenizer(folder / "tokenizer.json", max_tokens=config.max_tokens)
    else:
        tokenizer = WordTokenizer.read(folder / "vocab.txt", max_tokens=config.max_tokens)
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"expected a vocabulary of at most {config.vocab_size} ids in {str(folder)!r}, got {tokenizer.vocab_size}; "
            "fetch the checkpoint again"
        )
    load_exactly(network, _read_weights(folder / "model.safetensors"), str(folder))
    return Checkpoint(
        name=stored.get("name", folder.name),
        model=network.eval(),
        tokenizer=tokenizer,
        calibration=calibration,
    )


def _check_calibration(values: Any, model: GroundingModel) -> dict[str, Any]:  # noqa: ANN401  JSON values
    """What :func:`deixis.grounder.calibrated` can use with ``model``, else ValueError."""
    if not isinstance(values, dict):
        raise ValueError(f"calibration {values!r}")
    weights = values.get("weights", model.score_weights)
    numbers = [*weights, values.get("bias", 0.0), values.get("found_score", 0.0), values.get("found_agreement", 0.0)]
    if len(weights) != len(model.score_weights) or not all(
        isinstance(v, int | float) and math.isfinite(v) for v in numbers
    ):
        raise ValueError(f"calibration {values!r}")
    return values


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"expected the weights {str(path)!r}, got no such file")
    try:
        stored = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"expected a whole safetensors file, got {str(path)!r} ({error}); fetch it again") from error
    scales = {name: stored.pop(name) for name in list(stored) if name.endswith(".row_scale")}
    weights = {name: tensor.float() for name, tensor in stored.items()}
    for name, scale in scales.items():
        rows = weights.get(name.removesuffix(".row_scale"))
        if rows is None or rows.ndim < 2 or scale.shape != rows.shape[:1]:
            raise ValueError(f"expected a table for {name!r} in {str(path)!r}, got none that fits; fetch it again")
        rows *= scale.float().view(-1, *[1] * (rows.ndim - 1))
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"expected finite weights in {str(path)!r}, got others in {broken[:5]}; fetch it again")
    return weights


_CARD = """# {name}

A Deixis checkpoint of {parameters} parameters, saved by version {library_version}; `config.json` holds its recipe.
Nothing has been measured yet. Before it is shared, say here what it was trained on, what it reaches on which data,
by which command, and the licence of every part.
"""


def save_checkpoint(
    folder: Path,
    model: GroundingModel,
    tokenizer: PhraseTokenizer,
    *,
    name: str = "",
    recipe: dict[str, Any] | None = None,
    calibration: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder, every file whole or not at all.

    Weights are stored as float16, vectors as they are; where the model allows it, the few tensors of ``LARGE``
    values and more, such as the word-piece table, as int8 with one float32 scale a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        if model.stores_int8 and tensor.ndim > 1 and tensor.numel() >= LARGE:
            scale = (tensor.flatten(1).abs().amax(1) / 127).clamp(min=1e-8)
            rows = tensor / scale.view(-1, *[1] * (tensor.ndim - 1))
            tensors[key] = rows.round().to(torch.int8).contiguous()
            tensors[key + ".row_scale"] = scale
        else:
            exact = tensor.ndim < 2  # few values: biases, and the running statistics of batch-norm
            tensors[key] = tensor.contiguous() if exact else tensor.half().contiguous()
    config = {
        "name": name or folder.name,
        "library_version": version("deixis"),
        "model": config_to_dict(model.config),
        "preprocessing": model.preprocessing(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "calibration": calibration or {},
        "metrics": metrics or {},
        "recipe": recipe or {},
    }
    with atomic_files(folder) as work:
        if not (folder / "README.md").exists():
            (work / "README.md").write_text(_CARD.format(**config), encoding="utf-8")
        save_file(tensors, work / "model.safetensors")
        (work / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
        tokenizer.save(work)
