"""From a configuration to its network and criterion; the families are listed in `deixis.config.FAMILY_NAMES`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from deixis.language.tokenizers import PhraseTokenizer
from deixis.models.base import GroundingModel
from deixis.models.config import ModelConfig
from deixis.models.criterion import Criterion
from deixis.recipe import LossOptions


def build_model(config: ModelConfig) -> GroundingModel:
    """The network of ``config`` with random weights."""
    return import_module(f"deixis.models.{config.family}.model").MODEL(config)


def build_criterion(
    model: GroundingModel, tokenizer: PhraseTokenizer, options: LossOptions, word_counts: Sequence[int]
) -> Criterion:
    """What the training of a model minimises; arguments as of `Criterion`, and the weights of the losses."""
    module = import_module(f"deixis.models.{model.config.family}.criterion")
    return module.CRITERION(model, tokenizer, options, word_counts)
