"""The large-scale mix of SeqTR and SMCIM, without the images that are measured on: ``deixis data make mixed``.

The folder holds ``train.jsonl``, which `deixis.data.formats.mixed` reads, and ``mix.json``, which says what went in,
what was left out and on whose account.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from deixis.data import Dataset, open_dataset, parse_dataset_spec
from deixis.data.formats.jsonl import write_jsonl
from deixis.files import write_text
from deixis.structures import Sample
from deixis.tools.image_keys import Exclusions, image_keys, join_keys, read_exclusions

PARTS = (
    "refcoco:train",
    "refcoco+:train",
    "refcocog-umd:train",
    "refcocog-google:train",
    "referit:train",
    "flickr30k:train",
    "vg:all",
)
"""SMCIM section IV-A: the train sets of Visual Genome, RefCOCO, RefCOCO+, RefCOCOg (both), ReferItGame, Flickr30k."""
MEASURED = (
    *("refcoco:val", "refcoco:testA", "refcoco:testB"),
    *("refcoco+:val", "refcoco+:testA", "refcoco+:testB"),
    *("refcocog-umd:val", "refcocog-umd:test", "refcocog-google:val"),
    *("referit:val", "referit:test", "flickr30k:val", "flickr30k:test"),
)
"""The splits whose images are left out of the mix."""
RECORD = "mix.json"

Tell = Callable[[int, int | None], None]


@dataclass
class Part:
    """What became of one part: ``samples`` is the sum of all that follows."""

    spec: str
    samples: int = 0
    written: int = 0
    measured_on: int = 0
    """Left out because their image is measured on."""
    repeated: int = 0
    """Left out because an earlier part has the same image, box and phrase, as both RefCOCOg do."""
    unusable: int = 0
    """Left out by the reader, or without an image file."""
    images_left_out: int = 0


@dataclass
class Mix:
    """The record of a mix; ``mix.json`` holds the same."""

    parts: list[Part] = field(default_factory=list)
    not_there: list[str] = field(default_factory=list)
    """The usual parts that are not there."""
    left_out_for: list[str] = field(default_factory=list)
    """The splits whose images are left out."""
    not_known: list[str] = field(default_factory=list)
    """The splits whose images could not be left out, as they were not there."""
    excluded_images: int = 0
    """Keys of images that were to be left out."""
    without_keys: int = 0
    """Images of which nothing tells which picture they are: they may be measured on."""
    problems: list[str] = field(default_factory=list)

    @property
    def written(self) -> int:
        """Samples in the mix."""
        return sum(part.written for part in self.parts)

    def report(self) -> dict[str, Any]:
        """For ``mix.json`` and --json; of the problems the number."""
        return asdict(self) | {"written": self.written, "problems": len(self.problems)}


def make_mixed(
    root: str | Path,
    out: str | Path,
    *,
    parts: Sequence[str] = (),
    exclude: Sequence[str | Path] = (),
    keep_measured: bool = False,
    progress: Tell | None = None,
) -> Mix:
    """Write the mix into a folder, each file whole or not at all.

    Args:
        root: the folder of the data sets' files.
        out: the folder to write into; made where it is not there.
        parts: ``DATASET:SPLIT`` each, all of which must be there; by default those of `PARTS` that are.
        exclude: further lists of images to leave out, see `deixis.tools.image_keys.read_exclusions`.
        keep_measured: leave in the images of `MEASURED`.
        progress: called with (done, in all) for each part.

    Raises:
        FileNotFoundError: a named part or list is not there, or none of the usual ones is.
        ValueError: a part or list is wrong, or nothing is left to write.
        OSError: the folder cannot be written to.
    """
    out, mix = Path(out), Mix()
    exclusions = Exclusions()
    for path in exclude:
        exclusions |= read_exclusions(path)
    if not keep_measured:
        exclusions |= _measured(root, mix)
    mix.left_out_for, mix.excluded_images = list(exclusions.sources), len(exclusions.keys)
    opened = _open_parts(root, parts, mix)
    out.mkdir(parents=True, exist_ok=True)
    mixing = _Mixing(exclusions, mix, progress or (lambda done, total: None))
    write_jsonl(out / "train.jsonl", mixing.at_least_one(opened))
    write_text(out / RECORD, json.dumps(mix.report(), indent=1) + "\n")
    return mix


def read_record(root: str | Path) -> dict[str, Any] | None:
    """What ``mix.json`` says; None where it is not there or damaged."""
    for folder in (Path(root) / "mixed", Path(root)):
        try:
            found = json.loads((folder / RECORD).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None


def _measured(root: str | Path, mix: Mix) -> Exclusions:
    """The images of `MEASURED`, as far as these are there."""
    keys: set[str] = set()
    known: list[str] = []
    for spec in MEASURED:
        name, split = parse_dataset_spec(spec)
        try:
            samples = open_dataset(name, split, root)
        except (OSError, ValueError) as error:
            mix.not_known.append(spec)
            if not isinstance(error, FileNotFoundError):
                mix.problems.append(f"images of {spec} are not left out: {error}")
            continue
        known.append(spec)
        for index in range(len(samples)):
            keys.update(image_keys(samples[index], name, samples.coco_ids))
    return Exclusions(frozenset(keys), tuple(known))


def _open_parts(root: str | Path, parts: Sequence[str], mix: Mix) -> list[tuple[str, Dataset]]:
    opened = []
    for spec in parts or PARTS:
        name, split = parse_dataset_spec(spec)
        try:
            samples = open_dataset(name, split, root)
        except FileNotFoundError:
            if parts:
                raise
            mix.not_there.append(spec)
            continue
        opened.append((spec, samples))
    if not opened:
        raise FileNotFoundError(
            f"expected one of {', '.join(PARTS)} below {str(root)!r}, got none; docs/datasets.md says what to put there"
        )
    return opened


class _Mixing:
    """Goes through the parts once and counts."""

    def __init__(self, exclusions: Exclusions, mix: Mix, tell: Tell) -> None:
        self.exclusions, self.mix, self.tell = exclusions, mix, tell
        self.seen: set[int] = set()
        self.seen_in_part: set[int] = set()
        self.without_keys: set[Path] = set()

    def at_least_one(self, opened: Sequence[tuple[str, Dataset]]) -> Iterator[Sample]:
        """The samples to write; ValueError where there are none, so that no file is."""
        yield from self.samples(opened)
        if not self.mix.written:
            specs = [part.spec for part in self.mix.parts]
            raise ValueError(f"expected samples to mix from {specs!r}, got none that may be used; check the parts")

    def samples(self, opened: Sequence[tuple[str, Dataset]]) -> Iterator[Sample]:
        """Part by part what is neither measured on nor repeated."""
        for spec, samples in opened:
            name, _ = parse_dataset_spec(spec)
            part = Part(spec, samples=len(samples) + samples.left_out, unusable=samples.left_out)
            self.mix.parts.append(part)
            self.mix.problems += [f"{spec}: {problem}" for problem in samples.problems]
            images: dict[Path, bool] = {}
            for index in range(len(samples)):
                self.tell(index + 1, len(samples))
                sample = self._usable(samples, index, part)
                if sample is None:
                    continue
                keys = image_keys(sample, name, samples.coco_ids)
                assert isinstance(sample.image, Path)
                if sample.image not in images:
                    images[sample.image] = self.exclusions.covers(keys, sample.image)
                    if not keys:
                        self.without_keys.add(sample.image)
                if images[sample.image]:
                    part.measured_on += 1
                elif self._is_repeated(sample, keys):
                    part.repeated += 1
                else:
                    part.written += 1
                    image_id = join_keys(keys) or sample.image_id
                    yield replace(sample, id=f"{name}:{sample.id}", image_id=image_id, split="train", instances=())
            part.images_left_out = sum(images.values())
            self.mix.without_keys = len(self.without_keys)
            self.seen |= self.seen_in_part
            self.seen_in_part = set()

    def _usable(self, samples: Dataset, index: int, part: Part) -> Sample | None:
        try:
            sample = samples[index]
            if isinstance(sample.image, Path):
                return sample
            problem = "expected an image file, got pixels; convert the data set with --pictures"
        except (OSError, ValueError) as error:
            problem = str(error)
        part.unusable += 1
        self.mix.problems.append(f"{part.spec}, sample {index}: {problem}")
        return None

    def _is_repeated(self, sample: Sample, keys: tuple[str, ...]) -> bool:
        key = hash((keys or sample.image, sample.box_xyxy_px, sample.phrase))
        self.seen_in_part.add(key)
        return key in self.seen
