"""A recipe that several test files of training share."""

import pytest

from deixis.train.recipes import recipe


@pytest.fixture
def small_recipe(small_image_encoder, small_fields, bert_folder):
    """Six steps of a very small model whose BERT has dropout, on drawn scenes."""
    return recipe(
        "debug", model="deixis-tiny", model_fields=small_fields, text_weights=str(bert_folder),
        steps=6, save_every=2, images=1, phrases=2, lr=1e-3,
    )  # fmt: skip


@pytest.fixture
def small_mcn_recipe(small_mcn_encoder, small_mcn_fields, monkeypatch):
    """The same of the mcn family, from scratch; gathering its words from drawn scenes would take seconds."""
    words = ["the", "left", "right", "top", "bottom", "red", "green", "blue", "circle", "square", "star", "of", "and"]
    monkeypatch.setattr("deixis.train.setup.training_phrases", lambda recipe: words)
    return recipe(
        "debug", model="mcn-tiny", model_fields={**small_mcn_fields, "vocab_size": 40},
        steps=6, save_every=2, images=2, phrases=2, lr=1e-3,
    )  # fmt: skip
