"""From a configuration to its network: one line a family."""

from __future__ import annotations

from deixis.config import Config, McnConfig
from deixis.models.base import GroundingModel
from deixis.models.deixis import DeixisModel


def build_model(config: Config) -> GroundingModel:
    """The network of ``config`` with random weights."""
    if isinstance(config, McnConfig):
        from deixis.models.mcn import McnModel

        return McnModel(config)
    return DeixisModel(config)
