"""The model, tokenizer and data that a recipe starts from."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import torch

from deixis.config import preset
from deixis.data.loading import Mixture, PhotoSource, SceneSource, Source
from deixis.data.scenes import draw_scene
from deixis.data.written import PhotoRecord, load_views
from deixis.hub import load_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordPieceTokenizer, WordTokenizer
from deixis.models.deixis import DeixisModel
from deixis.models.foreign import read_darknet, read_glove_table
from deixis.models.image_encoders import YoloTinyEncoder
from deixis.models.text_encoders import BertEncoder, GloveGruEncoder
from deixis.train.recipes import Recipe

SCENE_FLAVOURS = {"scenes": 0.5, "scenes+": 0.25, "scenesg": 0.25}


def start_model(recipe: Recipe) -> tuple[DeixisModel, PhraseTokenizer]:
    """The untrained model with its pretrained parts in place, and the tokenizer of its text encoder."""
    torch.manual_seed(recipe.seed)
    if recipe.start:
        checkpoint = load_checkpoint(recipe.start)
        model, tokenizer = checkpoint.model.train(), checkpoint.tokenizer
    else:
        model, tokenizer = _model_of_parts(recipe)
    if recipe.image_weights or recipe.start:
        for parameter in model.image.encoder.early_parameters():
            parameter.requires_grad_(False)
    for parameter in model.text.frozen_parameters():
        parameter.requires_grad_(False)
    return model, tokenizer


def _model_of_parts(recipe: Recipe) -> tuple[DeixisModel, PhraseTokenizer]:
    config = preset(recipe.model, **recipe.model_fields)
    if config.text_encoder == "minilm":
        if not recipe.text_weights:
            raise ValueError(
                "expected text_weights to name a BERT folder with tokenizer.json, got ''; "
                "give one or use a GloVe preset"
            )
        tokenizer: PhraseTokenizer = WordPieceTokenizer(
            Path(recipe.text_weights) / "tokenizer.json", max_tokens=config.max_tokens
        )
        model = DeixisModel(preset(recipe.model, **{**recipe.model_fields, "vocab_size": tokenizer.vocab_size}))
        assert isinstance(model.text, BertEncoder)
        model.text.load_pretrained(Path(recipe.text_weights))
    else:
        tokenizer, vectors = _word_vectors(recipe, config.vocab_size, config.max_tokens)
        model = DeixisModel(preset(recipe.model, **{**recipe.model_fields, "vocab_size": tokenizer.vocab_size}))
        assert isinstance(model.text, GloveGruEncoder)
        model.text.load_vectors(vectors)
    if recipe.image_weights:
        _load_image_weights(model, Path(recipe.image_weights))
    return model, tokenizer


def _load_image_weights(model: DeixisModel, path: Path) -> None:
    encoder = model.image.encoder
    if isinstance(encoder, YoloTinyEncoder):
        encoder.load_darknet(read_darknet(path / "yolov3-tiny.cfg", path / "yolov3-tiny.weights"))
    else:
        encoder.load_state(path)


def _word_vectors(recipe: Recipe, size: int, max_tokens: int) -> tuple[WordTokenizer, torch.Tensor]:
    if recipe.text_weights:
        words, vectors = read_glove_table(recipe.text_weights)
        keep = [i for i, w in enumerate(words) if re.fullmatch(r"[a-z0-9]+", w)][: size - 2]
        return WordTokenizer([words[i] for i in keep], max_tokens=max_tokens), torch.from_numpy(vectors[keep]).float()
    counts: Counter[str] = Counter()
    for flavour in SCENE_FLAVOURS:
        for index in range(200):
            for sample in draw_scene(flavour, "train", index, 64, 3)[1]:
                counts.update(re.findall(r"[a-z0-9]+", sample.phrase.lower()))
    words = [word for word, _ in counts.most_common(size - 2)]
    return WordTokenizer(words, max_tokens=max_tokens), torch.randn(len(words), 50)


def start_data(recipe: Recipe) -> Mixture:
    """The mixture of sources; photos of the held-out and validation parts are never read."""
    sources: list[Source] = []
    shares: list[float] = []
    full = _training_photos(recipe.instances, recipe.instances_share)
    partial = _training_photos(recipe.partial_instances, recipe.partial_share)
    masked = [r for r in partial if any(instance.mask is not None for instance in r.instances)]
    if full:
        sources.append(PhotoSource(full, fully_annotated=True, donors=full + masked, paste_share=recipe.paste_share))
        shares.append(recipe.instances_share)
    if partial:  # pasting other categories here would make a second, unannotated one ambiguous
        sources.append(PhotoSource(partial, fully_annotated=False, donors=masked, paste_share=recipe.paste_share))
        shares.append(recipe.partial_share)
    for flavour, part in SCENE_FLAVOURS.items() if recipe.scenes_share else ():
        sources.append(SceneSource(flavour, backgrounds=[record.path for record in full + partial]))
        shares.append(recipe.scenes_share * part)
    return Mixture(sources, shares)


def _training_photos(path: str, share: float) -> list[PhotoRecord]:
    if not share:
        return []
    if not path:
        raise ValueError(
            f"expected a COCO instances file for a share of {share!r}, got ''; name one or set the share to 0"
        )
    return load_views(path, "train", keep_pixels=True)
