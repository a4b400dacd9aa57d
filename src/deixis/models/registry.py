"""From a configuration to its network: one line a family."""

from __future__ import annotations

from deixis.config import Config, McnConfig, SmcimConfig
from deixis.models.base import GroundingModel
from deixis.models.deixis.model import DeixisModel


def build_model(config: Config) -> GroundingModel:
    """The network of ``config`` with random weights."""
    if isinstance(config, McnConfig):
        from deixis.models.mcn.model import McnModel

        return McnModel(config)
    if isinstance(config, SmcimConfig):
        from deixis.models.smcim.model import SmcimModel

        return SmcimModel(config)
    return DeixisModel(config)
