"""``deixis models``: the bundled checkpoints and the presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deixis.cli.running import print_json, print_line, print_table


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the bundled checkpoints with their measured figures, and the presets that can be trained."""
    from deixis.config import PRESETS
    from deixis.hub import find_checkpoint, list_bundled

    rows = [describe_checkpoint(name, find_checkpoint(name)) for name in list_bundled()]
    if as_json:
        print_json({"bundled": rows, "presets": sorted(PRESETS)})
        return
    table = []
    for row in rows:
        measured = "\n".join(f"{key} {_short(value)}" for key, value in row["measured"].items())
        table.append([row["name"], row["family"], f"{row['parameters'] / 1e6:.1f} M", f"{row['mb']:.1f}", measured])
    print_table(["bundled", "family", "parameters", "MB", "measured"], table)
    print_line("presets to train: " + ", ".join(sorted(PRESETS)))


def describe_checkpoint(name: str, folder: Path) -> dict[str, Any]:
    """What a checkpoint folder says of itself, and what its files weigh.

    Returns:
        ``name``, ``family``, ``parameters`` (count), ``mb`` (10^6 bytes of the folder), ``measured`` (figures).

    Raises:
        FileNotFoundError: its config.json is missing.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "name": name,
        "family": config["model"]["family"],
        "parameters": config["parameters"],
        "mb": round(num_bytes / 1e6, 1),
        "measured": flatten(config.get("metrics") or {}),
    }


def flatten(figures: dict[str, Any], prefix: str = "") -> dict[str, float | str]:
    """Nested figures as one level, keys joined by spaces: ``{"a": {"b": 1}}`` gives ``{"a b": 1}``."""
    flat: dict[str, float | str] = {}
    for key, value in figures.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key} ")
        elif isinstance(value, int | float | str):
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
