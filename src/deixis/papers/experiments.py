"""The tables and the figure of the papers that compare trained variants: rows, what makes each, what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REC, RES, IE = "REC Acc@0.5", "RES IoU", "IE↓"
"""Columns, in percent. The papers' IoU of masks is the mean of the samples' IoU."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    name: str
    """As printed, as far as it reads well."""
    paper: tuple[float | None, ...]
    """As printed, one for each column; None where the paper has none."""
    model_fields: Mapping[str, Any] = field(default_factory=dict)
    recipe_fields: Mapping[str, Any] = field(default_factory=dict)
    suppression: str | None = None
    """Of the mask by the box when it is measured; rows that differ in nothing else share a training."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One table."""

    title: str
    paper_data: str
    """What the paper's column was measured on."""
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    reference: str = ""
    """The row that the others are compared with; empty: each with the one before it."""
    recipes: Mapping[str, str]
    """Budget -> recipe."""
    data: Mapping[str, str]
    """Budget -> what is measured on."""
    recipe_fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Budget -> fields of the recipe that all rows share."""


_BASE = {"text_attention": False, "garan": False, "cem": "off"}
_MCN: dict[str, Any] = {
    "recipes": {"small": "mcn-scenes", "paper": "mcn"},
    "data": {"small": "scenes:val", "paper": "refcoco:val"},
}
_SMCIM: dict[str, Any] = {
    "recipes": {"small": "smcim-scenes", "paper": "smcim"},
    "data": {"small": "scenes:val", "paper": "refcocog-google:val"},
    "recipe_fields": {"small": {"steps": 400, "phrases": 8}, "paper": {"phrased": "refcocog-google:train"}},
}

MCN_TABLE_2 = Experiment(
    title="MCN Table 2: what each component adds",
    paper_data="RefCOCO val",
    columns=(REC, RES, IE),
    rows=(
        Row(name="MCN (Base)", paper=(77.45, 58.24, 13.80), model_fields=_BASE, suppression="none"),
        Row(
            name="+TextAtt",
            paper=(77.65, 58.44, 13.44),
            model_fields={**_BASE, "text_attention": True},
            suppression="none",
        ),
        Row(name="+GARAN", paper=(79.20, 59.07, 13.37), model_fields={"cem": "off"}, suppression="none"),
        Row(name="+CEM", paper=(80.08, 61.61, 10.37), suppression="none"),
        Row(name="+ASNLS", paper=(80.08, 62.44, 6.65), suppression="adaptive"),
    ),
    **_MCN,
)

MCN_TABLE_3 = Experiment(
    title="MCN Table 3: structures without any extra components",
    paper_data="RefCOCO val",
    columns=(REC, RES),
    rows=tuple(
        Row(name=name, paper=paper, model_fields={**_BASE, "structure": structure}, suppression="none")
        for name, structure, paper in (
            ("Single_REC (scale 13²)", "single-rec-13", (70.38, None)),
            ("Single_REC (scale 52²)", "single-rec-52", (68.58, None)),
            ("Single_RES (scale 13²)", "single-res-13", (None, 36.37)),
            ("Single_RES (scale 52²)", "single-res-52", (None, 57.91)),
            ("OnlyHeadDifferent (scale 13²)", "only-head-different-13", (72.42, 34.50)),
            ("OnlyHeadDifferent (scale 52²)", "only-head-different-52", (None, 58.08)),
            ("OnlyBackboneShared", "only-backbone-shared", (75.81, 58.16)),
            ("MCN (Base)", "mcn", (77.45, 58.24)),
        )
    ),
    reference="MCN (Base)",
    **_MCN,
)

_VISUAL = {"One": (5,), "Two": (4, 5), "Three": (3, 4, 5)}
_LINGUISTIC = {"One": (6,), "Two": (4, 6), "Three": (2, 4, 6)}

SMCIM_TABLE_3 = Experiment(
    title="SMCIM Table III: visual x linguistic features, without SPSIL, six blocks of grouping in all",
    paper_data="RefCOCOg-google val",
    columns=(REC,),
    rows=tuple(
        Row(
            name=f"{visual} x {linguistic}",
            paper=(paper,),
            model_fields={
                "visual_features": _VISUAL[visual],
                "text_features": _LINGUISTIC[linguistic],
                "group_blocks": 6 // len(_LINGUISTIC[linguistic]),
            },
            recipe_fields={"spsil": "off"},
        )
        for visual, linguistic, paper in (
            ("One", "One", 66.52),
            ("Three", "One", 70.08),
            ("One", "Three", 70.16),
            ("Three", "Two", 72.48),
            ("Two", "Three", 72.61),
            ("Three", "Three", 72.86),
        )
    ),
    reference="Three x Three",
    **_SMCIM,
)

SMCIM_TABLE_4 = Experiment(
    title="SMCIM Table IV: blocks of grouping (in all three groups) and of merging, without SPSIL",
    paper_data="RefCOCOg-google val",
    columns=(REC,),
    rows=tuple(
        Row(
            name=f"{grouping} grouping, {merging} merging",
            paper=(paper,),
            model_fields={"group_blocks": grouping // 3, "merge_blocks": merging},
            recipe_fields={"spsil": "off"},
        )
        for grouping, merging, paper in (
            (3, 1, 69.60),
            (3, 2, 71.89),
            (6, 1, 71.78),
            (6, 2, 72.59),
            (0, 9, 71.72),
            (6, 3, 72.86),
        )
    ),
    reference="6 grouping, 3 merging",
    **_SMCIM,
)

SMCIM_TABLE_5 = Experiment(
    title="SMCIM Table V, and SPSIL on and off",
    paper_data="RefCOCOg-google val",
    columns=(REC,),
    rows=(
        Row(name="Transformer encoder", paper=(70.83,), model_fields={"interaction": "encoder"}),
        Row(name="CA²M", paper=(73.87,)),
        Row(name="CA²M without SPSIL", paper=(72.86,), recipe_fields={"spsil": "off"}),
    ),
    reference="CA²M",
    **_SMCIM,
)

SPSIL_AS_PRINTED = {"spsil_lambda": 0.75, "sigma": 2.5}
_SAFE = 0.8
"""Sigma's floor over lambda, as in the recipes; below 1 / sqrt(2) of it SPSIL fails, see `self_paced`."""


def _paced(paper: float | None = None, **moved: float) -> Row:
    """A row of Fig. 6: one of both values moved, the other as printed."""
    values = {**SPSIL_AS_PRINTED, **moved}
    name = "λ {spsil_lambda:g}, σ {sigma:g}".format(**values)
    if values["spsil_lambda"] > SPSIL_AS_PRINTED["spsil_lambda"]:
        values["sigma_floor"] = _SAFE * values["spsil_lambda"]
    return Row(name=name, paper=(paper,), recipe_fields=values)


SMCIM_FIG_6 = Experiment(
    title="SMCIM Fig. 6: λ and σ of SPSIL, one of them moved and the other as printed",
    paper_data="RefCOCOg-google val; its text prints the best point and the one without SPSIL, the values are ours",
    columns=(REC,),
    rows=(
        Row(name="without SPSIL", paper=(72.86,), recipe_fields={"spsil": "off"}),
        _paced(spsil_lambda=0.25),
        _paced(spsil_lambda=0.5),
        _paced(73.87),
        _paced(spsil_lambda=1.0),
        _paced(spsil_lambda=1.25),
        _paced(sigma=1.5),
        _paced(sigma=2.0),
        _paced(sigma=3.0),
        _paced(sigma=3.5),
    ),
    reference="λ 0.75, σ 2.5",
    **_SMCIM,
)

EXPERIMENTS = {
    "mcn-table-2": MCN_TABLE_2,
    "mcn-table-3": MCN_TABLE_3,
    "smcim-table-3": SMCIM_TABLE_3,
    "smcim-table-4": SMCIM_TABLE_4,
    "smcim-table-5": SMCIM_TABLE_5,
    "smcim-fig-6": SMCIM_FIG_6,
}
