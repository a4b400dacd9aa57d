"""Text encoders that give three grains of words: shallow, middle, deep. Letters: B phrases, T tokens, D width."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from deixis.models.deixis.config import DeixisConfig
from deixis.models.smcim.config import SmcimConfig
from deixis.models.weights.pretrained import (
    in_one_sentence,
    load_exactly,
    read_transformers,
    read_transformers_config,
    shown,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LAYER = re.compile(r"(?:^|\.)layers?\.(\d+)\.")
"""The number of a layer in the name of a parameter of a BERT-like model; what has none makes vectors of words."""


class BertEncoder(nn.Module):
    """A BERT body tapped after every third of its layers; SMCIM section III-B taps 2, 4, 6."""

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.taps = [config.text_layers * part // 3 for part in (1, 2, 3)]
        self.bert = BertModel(
            BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.text_dim,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                intermediate_size=4 * config.text_dim,
                max_position_embeddings=512,
            ),
            add_pooling_layer=False,
        )

    def forward(self, token_ids: Tensor, token_valid: Tensor) -> list[Tensor]:
        """``token_ids`` and ``token_valid`` [B, T] to three maps [B, T, D]."""
        hidden = self.bert(
            input_ids=token_ids, attention_mask=token_valid.long(), output_hidden_states=True
        ).hidden_states
        return [hidden[tap] for tap in self.taps]

    def load_pretrained(self, folder: Path) -> None:
        """Take the weights of a BERT checkpoint folder of the same sizes; layers beyond ours are left out."""
        source = BertModel.from_pretrained(folder, add_pooling_layer=False).state_dict()
        own = self.bert.state_dict()
        own_vocab = own["embeddings.word_embeddings.weight"].shape[0]
        source["embeddings.word_embeddings.weight"] = source["embeddings.word_embeddings.weight"][:own_vocab]
        load_exactly(self.bert, {name: tensor for name, tensor in source.items() if name in own}, str(folder))

    def frozen_parameters(self) -> list[nn.Parameter]:
        """The table of word vectors, fixed in training so that words never seen keep their meaning; nothing else."""
        return [*self.bert.embeddings.word_embeddings.parameters()]


class GloveGruEncoder(nn.Module):
    """Fixed word vectors, then a bidirectional GRU; all three grains are its states."""

    def __init__(self, config: DeixisConfig) -> None:
        super().__init__()
        self.vectors = nn.Embedding(config.vocab_size, 50, padding_idx=0)
        self.vectors.weight.requires_grad_(False)
        self.gru = nn.GRU(50, config.text_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, token_ids: Tensor, token_valid: Tensor) -> list[Tensor]:
        """``token_ids`` and ``token_valid`` [B, T] to three (equal) maps [B, T, D]."""
        lengths = token_valid.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.vectors(token_ids).to(self.gru.weight_ih_l0.dtype), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=token_ids.shape[1]
        )
        return [states, states, states]

    def load_vectors(self, vectors: Tensor) -> None:
        """Take word vectors [V, 50] for ids 2 and up; the unknown word gets their mean."""
        with torch.no_grad():
            self.vectors.weight[2 : 2 + len(vectors)] = vectors
            self.vectors.weight[1] = vectors.mean(0)

    def frozen_parameters(self) -> list[nn.Parameter]:
        """The word vectors."""
        return list(self.vectors.parameters())


class LayeredText(nn.Module):
    """The first layers of BERT, or of a model like it, tapped after some of them. SMCIM section III-B.

    Args:
        config: ``text_encoder`` is ``bert``, built from the sizes of the configuration alone, or a BERT-like model of
            the transformers library: a local folder with its ``config.json``, its name on the hub, or that
            configuration itself.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: it is of another kind or width, or has fewer layers.
    """

    def __init__(self, config: SmcimConfig) -> None:
        from transformers import AutoModel

        super().__init__()
        self.taps = list(config.text_features)
        if config.text_encoder == "bert":
            sizes = BertConfig(
                vocab_size=config.vocab_size,
                hidden_size=config.text_dim,
                num_hidden_layers=config.text_layers,
                num_attention_heads=config.text_heads,
                intermediate_size=4 * config.text_dim,
                max_position_embeddings=512,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
            )
        else:
            sizes = _first_layers(config.text_encoder, config.text_layers, config.text_dim)
            sizes.vocab_size = config.vocab_size
        with in_one_sentence(f"a text encoder that can be built from {shown(config.text_encoder)}"):
            self.body = AutoModel.from_config(sizes, attn_implementation="eager")  # on CPUs the fastest way back
        _drop_pooler(self.body)
        self.padding_id: int = getattr(sizes, "pad_token_id", None) or 0

    def forward(self, token_ids: Tensor, token_valid: Tensor) -> list[Tensor]:
        """``token_ids`` and ``token_valid`` [P, T] to one map [P, T, D] for each of ``text_features``."""
        hidden = self.body(
            input_ids=token_ids.masked_fill(~token_valid, self.padding_id),
            attention_mask=token_valid.long(),
            output_hidden_states=True,
        ).hidden_states
        return [hidden[tap] for tap in self.taps]

    def load_pretrained(self, source: str | Path) -> None:
        """Take the weights of a model of the same kind and sizes; layers and words beyond ours are left out.

        Args:
            source: a local folder of the transformers library, or its name on the hub.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of another kind, has fewer layers, or weights that do not fit; the sentence lists them.
        """
        own = self.body.config
        sizes = _first_layers(source, own.num_hidden_layers, own.hidden_size)
        if sizes.model_type != own.model_type:
            raise ValueError(
                f"expected a model of the kind {own.model_type!r} in {str(source)!r}, got {sizes.model_type!r}; set "
                "text_encoder to that folder or name"
            )
        theirs = read_transformers(type(self.body), source, sizes, may_miss=("pooler.",))
        _drop_pooler(theirs)
        table = next(name for name, p in self.body.named_parameters() if p is self.body.get_input_embeddings().weight)
        state = theirs.state_dict()
        state[table] = state[table][: own.vocab_size]
        load_exactly(self.body, state, str(source))

    def lowest_parameters(self, stages: int) -> list[nn.Parameter]:
        """Those of the first ``stages``: what makes vectors of words comes first, then the layers from the bottom up.

        Raises:
            ValueError: there are fewer.
        """
        layers = self.body.config.num_hidden_layers
        if stages > 1 + layers:
            raise ValueError(
                f"expected freeze_text in 0..{1 + layers}, word vectors and {layers} layers, got {stages!r}; lower it"
            )
        numbers = ((_LAYER.search(name), parameter) for name, parameter in self.body.named_parameters())
        return [parameter for found, parameter in numbers if (int(found[1]) + 1 if found else 0) < stages]


def _first_layers(source: str | Path, layers: int, width: int) -> PretrainedConfig:
    """The configuration of a BERT-like model, cut to its first layers."""
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    sizes = read_transformers_config(source, "the configuration of a BERT-like model")
    if type(sizes) not in MODEL_FOR_MASKED_LM_MAPPING or sizes.is_encoder_decoder:
        raise ValueError(
            f"expected a BERT-like model in {shown(source)}, got one of the kind {sizes.model_type!r}; name BERT, "
            "RoBERTa, DistilBERT, MiniLM or the like"
        )
    if sizes.num_hidden_layers < layers:
        raise ValueError(
            f"expected a model of at least {layers} layers in {shown(source)}, got {sizes.num_hidden_layers}; name a "
            "deeper one or lower text_layers"
        )
    if sizes.hidden_size != width:
        raise ValueError(
            f"expected a model of width {width} in {shown(source)}, got {sizes.hidden_size}; set text_dim="
            f"{sizes.hidden_size}"
        )
    for name, value in [*vars(sizes).items()]:  # such as ModernBERT's: what each layer is
        if name.endswith("layer_types") and isinstance(value, list):
            setattr(sizes, name, value[:layers])
    sizes.num_hidden_layers = layers
    return sizes


def _drop_pooler(model: nn.Module) -> None:
    """Leave out the layer behind [CLS] that nothing reads."""
    if getattr(model, "pooler", None) is not None:
        model.register_module("pooler", None)


TextEncoder = BertEncoder | GloveGruEncoder


def build_text_encoder(config: DeixisConfig) -> TextEncoder:
    """The encoder that the configuration names, untrained."""
    return BertEncoder(config) if config.text_encoder == "minilm" else GloveGruEncoder(config)
