"""Very small models that several test files share. Torch comes only when one of them is asked for."""

import pytest

WORDS = ("left", "right", "dog", "cat", "red", "the", "on", "ball")

SMALL_FIELDS = {
    "context_dim": 16, "context_layers": 1, "context_heads": 2,
    "group_dim": 8, "group_heads": 2, "merge_layers": 2, "merge_heads": 2,
    "text_dim": 12, "text_layers": 3, "text_heads": 2,
    "mask_dim": 8, "image_size": 64, "candidates": 12, "cells": 3, "dropout": 0.0,
}  # fmt: skip

SMALL_MCN_FIELDS = {
    "fusion_dim": 12, "dim": 8, "aspp_dim": 4, "text_dim": 10, "word_dim": 6, "max_tokens": 6, "image_size": 64,
}  # fmt: skip


@pytest.fixture(scope="session")
def small_fields():
    """Fields that make any preset very small; the vocabulary's size is still to be given."""
    return dict(SMALL_FIELDS)


@pytest.fixture(scope="session")
def small_mcn_fields():
    """The same for a preset of the mcn family."""
    return dict(SMALL_MCN_FIELDS)


@pytest.fixture(scope="session")
def words():
    """Whole words for a word tokenizer."""
    return list(WORDS)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A BERT checkpoint of the small sizes with random weights and its word-piece tokenizer.json."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS, "##s"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("bert")
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 12, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, bert_folder):
    """A checkpoint folder with the default image encoder, a very small BERT, and random weights."""
    import torch

    from deixis.config import preset
    from deixis.hub import save_checkpoint
    from deixis.language.tokenizers import WordPieceTokenizer
    from deixis.models.deixis.model import DeixisModel

    torch.manual_seed(0)
    tokenizer = WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=12)
    config = preset("deixis-tiny", **SMALL_FIELDS, vocab_size=tokenizer.vocab_size, max_tokens=12)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder, DeixisModel(config).eval(), tokenizer)
    return folder


@pytest.fixture
def small_image_encoder(monkeypatch):
    """Put an image encoder of some thousand parameters in the place of the real ones, which have millions."""
    import torch.nn.functional as F
    from torch import nn

    from deixis.models.encoders.image import Pyramid

    class SmallEncoder(nn.Module):
        channels = (8, 12, 16, 16)
        pixel_mean = (0.5, 0.5, 0.5)
        pixel_std = (0.25, 0.25, 0.25)

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, stride=4)
            self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in ((8, 12), (12, 16), (16, 16)))

        def forward(self, pixels):
            maps = [F.leaky_relu(self.stem(pixels), 0.1)]
            for conv in self.down:
                maps.append(F.leaky_relu(conv(maps[-1]), 0.1))
            return Pyramid(*maps)

        def early_parameters(self):
            return list(self.stem.parameters())

    monkeypatch.setattr("deixis.models.deixis.model.build_image_encoder", lambda name: SmallEncoder())
    return SmallEncoder


@pytest.fixture
def small_mcn_encoder(monkeypatch):
    """The same for the mcn family. It keeps what it is asked to load, and all but its last convolution is frozen."""
    import torch
    from torch import nn

    from deixis.models.encoders.darknet import ConvNormLeaky, ThreeScales

    class SmallMcnEncoder(nn.Module):
        channels = (6, 8, 10)
        pixel_mean = (0.0, 0.0, 0.0)
        pixel_std = (1.0, 1.0, 1.0)
        loaded: str | None = None

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 8, stride=8)
            self.down = nn.ModuleList((ConvNormLeaky(6, 8, 3, stride=2), ConvNormLeaky(8, 10, 3, stride=2)))

        def forward(self, pixels):
            fine = torch.tanh(self.stem(pixels))
            middle = self.down[0](fine)
            return ThreeScales(fine, middle, self.down[1](middle))

        def frozen_parameters(self):
            return [*self.stem.parameters(), *self.down[0].parameters()]

        def load_pretrained(self, path):
            self.loaded = str(path)

    monkeypatch.setattr("deixis.models.mcn.model.build_mcn_encoder", lambda name: SmallMcnEncoder())
    return SmallMcnEncoder


@pytest.fixture
def make_mcn(small_mcn_encoder, small_mcn_fields, words):
    """Makes a very small model of the mcn family in eval mode, and the tokenizer of its words."""
    import torch

    from deixis.config import preset
    from deixis.language.tokenizers import WordTokenizer
    from deixis.models.mcn.config import JOINT_STRUCTURES
    from deixis.models.mcn.model import McnModel

    def make(structure="mcn", **values):
        torch.manual_seed(0)
        cem = "expected" if structure in JOINT_STRUCTURES else "off"
        fields = {**small_mcn_fields, "vocab_size": len(words) + 2, "structure": structure, "cem": cem, **values}
        model = McnModel(preset("mcn-tiny", **fields)).eval()
        model.text.load_vectors(torch.randn(len(words), model.config.word_dim))
        return model, WordTokenizer(words, max_tokens=model.config.max_tokens)

    return make


@pytest.fixture
def make_mcn_checkpoint(make_mcn, tmp_path):
    """Makes a checkpoint folder of such a model; its name is the structure's."""
    from deixis.hub import save_checkpoint

    def make(structure="mcn", **values):
        model, tokenizer = make_mcn(structure, **values)
        save_checkpoint(tmp_path / "mcn-checkpoints" / structure, model, tokenizer)
        return tmp_path / "mcn-checkpoints" / structure

    return make


@pytest.fixture
def small_recipe(small_image_encoder, small_fields, bert_folder):
    """Six steps of a very small model whose BERT has dropout, on drawn scenes."""
    from deixis.train.recipes import recipe

    return recipe(
        "debug", model="deixis-tiny", model_fields=small_fields, text_weights=str(bert_folder),
        steps=6, save_every=2, images=1, phrases=2, lr=1e-3,
    )  # fmt: skip


@pytest.fixture
def small_mcn_recipe(small_mcn_encoder, small_mcn_fields, monkeypatch):
    """The same of the mcn family, from scratch; gathering its words from drawn scenes would take seconds."""
    words = ["the", "left", "right", "top", "bottom", "red", "green", "blue", "circle", "square", "star", "of", "and"]
    monkeypatch.setattr("deixis.train.setup.training_phrases", lambda made: words)
    from deixis.train.recipes import recipe

    return recipe(
        "debug", model="mcn-tiny", model_fields={**small_mcn_fields, "vocab_size": 40},
        steps=6, save_every=2, images=2, phrases=2, lr=1e-3,
    )  # fmt: skip
