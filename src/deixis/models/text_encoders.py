"""Text encoders that give three grains of words: shallow, middle, deep. Letters: B phrases, T tokens, D width."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from deixis.config import DeixisConfig
from deixis.models.foreign import load_exactly


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
        """The embedding tables, left as they are in training so that words never seen keep their meaning."""
        return list(self.bert.embeddings.parameters())


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


TextEncoder = BertEncoder | GloveGruEncoder


def build_text_encoder(config: DeixisConfig) -> TextEncoder:
    """The encoder that the configuration names, untrained."""
    return BertEncoder(config) if config.text_encoder == "minilm" else GloveGruEncoder(config)
