"""The model families, and their configurations and presets by name. No torch here."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from importlib import import_module
from typing import Any

from deixis.models.config import SUPPRESSIONS, ModelConfig

__all__ = ["FAMILIES", "FAMILY_NAMES", "PRESETS", "SUPPRESSIONS", "ModelConfig", "config_from_dict", "preset"]

FAMILY_NAMES = ("deixis", "mcn", "smcim")
"""Each is a folder of `deixis.models`; a new family is one folder and its name here.

A folder has ``config.py`` with ``CONFIG`` and ``PRESETS``, ``model.py`` with ``MODEL``, ``criterion.py`` with
``CRITERION`` and ``recipes.py`` with ``RECIPES``.
"""
_CONFIGS = {name: import_module(f"deixis.models.{name}.config") for name in FAMILY_NAMES}
FAMILIES: dict[str, type[ModelConfig]] = {name: module.CONFIG for name, module in _CONFIGS.items()}
PRESETS: dict[str, ModelConfig] = {
    name: config for module in _CONFIGS.values() for name, config in module.PRESETS.items()
}


def preset(name: str, **overrides: Any) -> ModelConfig:  # noqa: ANN401  fields have several types
    """The named configuration with fields replaced.

    Raises:
        ValueError: for an unknown name or field; the sentence lists the valid ones.
    """
    if name not in PRESETS:
        raise ValueError(f"expected a preset out of {sorted(PRESETS)}, got {name!r}")
    known = {f.name for f in fields(PRESETS[name])} - {"family"}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}")
    return replace(PRESETS[name], **overrides)


def config_from_dict(values: dict[str, Any]) -> ModelConfig:
    """The configuration that :func:`config_to_dict` wrote.

    Raises:
        ValueError: it is no such dictionary, or has unknown fields or values that cannot be.
    """
    if not isinstance(values, dict):
        raise ValueError(f"expected a dictionary of fields, got {values!r}")
    family = values.get("family")
    if family not in FAMILIES:
        raise ValueError(f"expected a model family out of {sorted(FAMILIES)}, got {family!r}")
    known = {f.name for f in fields(FAMILIES[family])}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"expected fields out of {sorted(known)}, got {unknown!r}; the file may be of a newer version")
    return FAMILIES[family](**values)


def config_to_dict(config: ModelConfig) -> dict[str, Any]:
    """Plain values for JSON."""
    return asdict(config)


def is_own_encoder(part: str, name: object) -> bool:
    """Whether the ``image`` or ``text`` encoder is one of ours, or none; any other is a folder or a name on the hub."""
    return name == "" or any(name in family.ENCODERS[part] for family in FAMILIES.values())
