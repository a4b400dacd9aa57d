"""MCN's text encoder: word vectors, a bidirectional GRU, self-guided attention. Letters: P phrases, T words."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

DROPOUT = 0.1  # of the words before the GRU and of the attention's scores, as in the official code


class SelfGuidedAttention(nn.Module):
    """A sum of the words' states, weighted by the states themselves, each channel for itself.

    Not one weight a word but a vector of them: the softmax runs over the words in every channel alone.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.drop = nn.Dropout(DROPOUT)
        nn.init.xavier_uniform_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor, takes_part: Tensor) -> Tensor:
        """``states`` [P, T, D] and bool ``takes_part`` [P, T], true somewhere in each row, to [P, D]."""
        scores = self.drop(self.dense(states).tanh())
        weights = scores.masked_fill(~takes_part[..., None], -torch.inf).softmax(1)
        return (weights * states).sum(1)


class GruAttentionEncoder(nn.Module):
    """A phrase to one vector f_t, MCN section 3.1. The two directions of the GRU are summed, not concatenated.

    Ids are those of :class:`deixis.language.tokenizers.WordTokenizer`: 0 pads, 1 is every unknown word; both are
    vectors of zeros at the start.

    Args:
        vocab_size: number of ids, those two included.
        word_dim: width of the word vectors.
        dim: width of each direction and of the result.
        attend: weigh all states (Table 2, +TextAtt); without, the last states of both directions summed.
        mask_padding: leave padding out of GRU and attention. The official code lets it take part: with False, the
            answer depends on how far the phrases of a batch are padded.
        train_words: let the word vectors learn; the official code keeps them fixed.
    """

    def __init__(
        self, vocab_size: int, word_dim: int, dim: int, *, attend: bool, mask_padding: bool, train_words: bool
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.train_words = train_words
        self.vectors = nn.Embedding(vocab_size, word_dim, padding_idx=0)
        self.vectors.weight.requires_grad_(train_words)
        with torch.no_grad():
            self.vectors.weight[:2] = 0
        self.drop = nn.Dropout(DROPOUT)
        self.gru = nn.GRU(word_dim, dim, batch_first=True, bidirectional=True)
        self.attention = SelfGuidedAttention(dim) if attend else None

    def forward(self, token_ids: Tensor, token_valid: Tensor) -> Tensor:
        """``token_ids`` and bool ``token_valid`` [P, T], real words first, to [P, D].

        A phrase without any is read as one word of zeros.
        """
        lengths = token_valid.sum(1).clamp(min=1)
        words = self.drop(self.vectors(token_ids).to(self.gru.weight_ih_l0.dtype))
        states, last = self._read(words, lengths)
        if self.attention is None:
            return last
        return self.attention(states, self._takes_part(lengths, states.shape[1]))

    def _read(self, words: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Words [P, T, word_dim] to states [P, T, D] and last states [P, D]; both sums over the two directions."""
        if self.mask_padding:
            packed = pack_padded_sequence(words, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states, last = self.gru(packed)
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=words.shape[1])
        else:
            states, last = self.gru(words)
        return states.unflatten(-1, (2, -1)).sum(-2), last.sum(0)

    def _takes_part(self, lengths: Tensor, width: int) -> Tensor:
        """Bool [P, T], which words the attention weighs."""
        positions = torch.arange(width, device=lengths.device)
        return (positions < lengths[:, None]) | (not self.mask_padding)

    def load_vectors(self, vectors: Tensor) -> None:
        """Take word vectors [V, word_dim] for ids 2 and up; padding and unknown words stay zeros.

        Raises:
            ValueError: another width, or more vectors than the vocabulary has words.
        """
        ids, width = self.vectors.weight.shape
        if vectors.ndim != 2 or vectors.shape[1] != width or len(vectors) > ids - 2:
            raise ValueError(
                f"expected up to {ids - 2} word vectors of width {width}, got {tuple(vectors.shape)}; "
                "set vocab_size and word_dim to the table's"
            )
        with torch.no_grad():
            self.vectors.weight[2 : 2 + len(vectors)] = vectors
            self.vectors.weight[:2] = 0

    def frozen_parameters(self) -> list[nn.Parameter]:
        """The word vectors, unless they are to learn."""
        return [] if self.train_words else list(self.vectors.parameters())
