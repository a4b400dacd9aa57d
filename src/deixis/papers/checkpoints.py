"""Checkpoints measured on any data, given ones and those of trained rows: what is on disk is read again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deixis.data import parse_dataset_spec
from deixis.evaluate.evaluate import evaluate_command_result
from deixis.files import write_text
from deixis.hub import find_checkpoint

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class GivenModel:
    """One checkpoint for all data, or one for each data set."""

    name: str
    checkpoints: Mapping[str, str]
    """Data set -> a bundled name or a folder; the empty name: for all."""

    def checkpoint_for(self, data: str) -> str | None:
        """That of ``DATASET[:SPLIT]``; None where there is none."""
        return self.checkpoints.get(parse_dataset_spec(data)[0], self.checkpoints.get(""))


def parse_models(text: str, datasets: Sequence[str]) -> list[GivenModel]:
    """``A,B`` as two models; ``scenes=A,scenes+=B`` as one with a checkpoint for each data set.

    Args:
        text: as it is typed.
        datasets: the names that may stand before "=".

    Raises:
        ValueError: no model, one data set twice, or a name that is none of these.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    pairs = [(word.partition("=")[0], word.partition("=")[2]) for word in words if "=" in word]
    if not words or len({name for name, _ in pairs}) < len(pairs):
        raise ValueError(f"expected models as A,B or DATASET=A,DATASET=B, each data set once, got {text!r}")
    if wrong := [name for name, path in pairs if name not in datasets or not path]:
        raise ValueError(f"expected DATASET=CHECKPOINT with a data set out of {sorted(datasets)!r}, got {wrong[0]!r}")
    whole = [GivenModel(name=word, checkpoints={"": word}) for word in words if "=" not in word]
    if not pairs:
        return whole
    names = ", ".join(dict.fromkeys(path for _, path in pairs))
    return [*whole, GivenModel(name=names, checkpoints=dict(pairs))]


def measured_report(
    model: str,
    data: str,
    *,
    out: Path,
    root: Path | None = None,
    limit: int | None = None,
    suppression: str | None = None,
    precision: str = "auto",
) -> dict[str, Any]:
    """All figures of a checkpoint on ``DATASET[:SPLIT]``, as `EvaluationResult.report` gives them.

    Args:
        model: a bundled name or a folder.
        data: what is measured on.
        out: gets a folder for each checkpoint, by its weights, with a file for each measurement.
        root: the folder of the data set's files.
        limit: at most so many samples.
        suppression: of the mask by the box, in place of the model's own.
        precision: of the computation.

    Raises:
        FileNotFoundError, ValueError: the model or the data is not there or cannot be used.
    """
    told = re.sub(r"[^A-Za-z0-9+.]+", "-", data)
    place = hashlib.sha256(f"{data} {root} {suppression} {precision}".encode()).hexdigest()[:6]
    stored = out / f"measured-{_digest(model)}" / f"{told}-{limit or 'all'}-{place}.json"
    if not stored.is_file():
        dataset, split = parse_dataset_spec(data)
        result = evaluate_command_result(
            model, dataset, split=split, root=root, limit=limit, suppression=suppression, precision=precision,
            show_progress=True,
        )  # fmt: skip
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_text(stored, json.dumps({"measured": model, **result.report()}, indent=1))
    return json.loads(stored.read_text(encoding="utf-8"))


def _digest(model: str) -> str:
    """Of the files that make a checkpoint answer as it does."""
    folder = find_checkpoint(model)
    made = hashlib.sha256()
    for path in sorted(folder / name for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")):
        if not path.is_file():
            continue
        made.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                made.update(block)
    return made.hexdigest()[:10]
