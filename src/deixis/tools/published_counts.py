"""How many expressions, referents and images the splits of public data sets hold, and who says so.

Where sources disagree all are listed, and a copy that agrees with any of them is taken for whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

KINDS = ("expressions", "referents", "images")
ALL = "all"
"""In the place of a split: all splits together."""

_MCN = "MCN paper, section 4.1"
_TFDS = "TensorFlow Datasets, catalogue page ref_coco"
_TRANSVG = "TransVG paper, section on data sets"
_UMD = "readers of the release; their sum 95,010 is confirmed in luogen1996/MCN#7"
_GOOGLE = "readers of the release, kdwonn/SaG#4"
_GREF_PAPER = "gRefCOCO paper"
_GREF_FILE = "the file as released, henghuiding/gRefCOCO#6: a part is held back"
_FLICKR = "Flickr30k Entities, its lists of images"
_VG = "Visual Genome's site"


@dataclass(frozen=True)
class Count:
    """A published number. Another one in a copy is an error where it is ``firm``, else a warning."""

    value: int
    source: str
    firm: bool = True


Counts = Mapping[str, tuple[Count, ...]]
"""By one of `KINDS`, what the sources say."""


def _counts(source: str, *, firm: bool = True, refs: str = "", **values: int) -> dict[str, tuple[Count, ...]]:
    return {
        kind: (Count(value, refs if refs and kind != "expressions" else source, firm),)
        for kind, value in values.items()
    }


PUBLISHED: dict[str, dict[str, Counts]] = {
    "refcoco": {
        "train": _counts(_MCN, refs=_TFDS, expressions=120_624, referents=42_404, images=16_994),
        "val": _counts(_MCN, refs=_TFDS, expressions=10_834, referents=3_811, images=1_500),
        "testA": _counts(_MCN, refs=_TFDS, expressions=5_657, referents=1_975, images=750),
        "testB": _counts(_MCN, refs=_TFDS, expressions=5_095, referents=1_810, images=750),
        ALL: _counts(_MCN, expressions=142_210, referents=50_000, images=19_994),
    },
    "refcoco+": {
        "train": _counts(_MCN, refs=_TFDS, expressions=120_191, referents=42_278, images=16_992),
        "val": _counts(_MCN, refs=_TFDS, expressions=10_758, referents=3_805, images=1_500),
        "testA": _counts(_MCN, refs=_TFDS, expressions=5_726, referents=1_975, images=750),
        "testB": _counts(_MCN, refs=_TFDS, expressions=4_889, referents=1_798, images=750),
        ALL: _counts(_MCN, expressions=141_564, referents=49_856, images=19_992),
    },
    "refcocog-umd": {
        "train": _counts(_UMD, refs=_TFDS, expressions=80_512, referents=42_226, images=21_899),
        "val": _counts(_UMD, refs=_TFDS, expressions=4_896, referents=2_573, images=1_300),
        "test": _counts(_UMD, refs=_TFDS, expressions=9_602, referents=5_023, images=2_600),
        ALL: {"expressions": (Count(95_010, _UMD), Count(104_560, f"{_MCN}: as first published, unfiltered"))},
    },
    "refcocog-google": {
        "train": _counts(_GOOGLE, refs=_TFDS, expressions=85_474, referents=44_822, images=24_698),
        "val": _counts(_GOOGLE, refs=_TFDS, expressions=9_536, referents=5_000, images=4_650),
        ALL: {"expressions": (Count(95_010, _GOOGLE), Count(104_560, f"{_MCN}: as first published, unfiltered"))},
    },
    "refcoco-google": {
        "train": _counts(_TFDS, referents=40_000, images=19_213),
        "val": _counts(_TFDS, referents=5_000, images=4_559),
        "test": _counts(_TFDS, referents=5_000, images=4_527),
    },
    "referit": {
        "train": _counts(_TRANSVG, firm=False, expressions=54_127),
        "val": _counts(_TRANSVG, firm=False, expressions=5_842),
        "test": _counts(_TRANSVG, firm=False, expressions=60_103),
        ALL: {
            "expressions": (
                Count(120_072, _TRANSVG, firm=False),
                Count(130_525, "ReferItGame paper: as first published, unfiltered", firm=False),
            )
        },
    },
    "grefcoco": {
        ALL: {"expressions": (Count(278_232, _GREF_PAPER, firm=False), Count(259_859, _GREF_FILE, firm=False))},
    },
    "flickr30k": {
        "train": _counts(_FLICKR, firm=False, images=29_783),
        "val": _counts(_FLICKR, firm=False, images=1_000),
        "test": _counts(_FLICKR, firm=False, images=1_000),
    },
    "vg": {ALL: _counts(_VG, firm=False, images=108_077)},
}
"""By name and split."""
_TRANSVG_STEMS = {
    "unc": "refcoco",
    "unc+": "refcoco+",
    "gref": "refcocog-google",
    "gref_umd": "refcocog-umd",
    "referit": "referit",
    "flickr": "flickr30k",
}
"""What TransVG calls the data sets in the names of its files, ``gref_umd_val.pth``."""


def published_name(dataset: str | Path, split: str | None) -> tuple[str, str | None]:
    """The public data set and split that a name, a file's name or a folder's name says it is a copy of.

    >>> published_name("refcoco", "val"), published_name("data/gref_umd/gref_umd_test.pth", None)
    (('refcoco', 'val'), ('refcocog-umd', 'test'))
    >>> published_name("pairs.jsonl", None)
    ('', None)

    Returns:
        (name, split); the name is empty where none is known.
    """
    path = Path(dataset)
    if str(dataset) in PUBLISHED:
        return str(dataset), split
    if path.suffix.lower() == ".pth":
        stem, _, told = path.stem.rpartition("_")
        name = _TRANSVG_STEMS.get(stem, "")
        return name, (split or told) if name else None
    name = path.name if path.name in ("refcoco", "refcoco+", "grefcoco") and not path.suffix else ""
    return name, split if name else None


def published_counts(name: str, split: str | None) -> Counts:
    """What is published of a split; empty where nothing is."""
    return PUBLISHED.get(name, {}).get(split or ALL, {})
