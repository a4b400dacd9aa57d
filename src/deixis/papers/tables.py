"""The papers' tables: which rows they have, what trains each of them, on which data, and what is printed there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deixis.papers import printed
from deixis.papers.printed import Printed, Published

BUDGETS = ("small", "paper")
"""Drawn scenes on a CPU, or the paper's own data and schedule."""
REC, RES, IE = "REC Acc@0.5", "RES IoU", "IE↓"
"""Columns, in percent. The papers' IoU of masks is the mean of the samples' IoU."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of one data set."""

    name: str
    """As printed."""
    data: Mapping[str, str]
    """Budget -> what is measured on; a budget without a counterpart is left out."""

    @property
    def trained_on(self) -> str:
        """With the budget ``paper``; drawn scenes of all kinds are learnt together."""
        return f"{self.data['paper'].partition(':')[0]}:train"


def _part(name: str, data: str, small: str | None) -> Part:
    return Part(name=name, data={"paper": data} if small is None else {"paper": data, "small": small})


REFCOCO = (
    _part("RefCOCO val", "refcoco:val", "scenes:val"),
    _part("RefCOCO testA", "refcoco:testA", "scenes:testA"),
    _part("RefCOCO testB", "refcoco:testB", "scenes:testB"),
)
REFCOCO_PLUS = (
    _part("RefCOCO+ val", "refcoco+:val", "scenes+:val"),
    _part("RefCOCO+ testA", "refcoco+:testA", "scenes+:testA"),
    _part("RefCOCO+ testB", "refcoco+:testB", "scenes+:testB"),
)
REFCOCOG_GOOGLE = _part("RefCOCOg val-g", "refcocog-google:val", None)
REFCOCOG = (
    _part("RefCOCOg val-u", "refcocog-umd:val", "scenesg:val"),
    _part("RefCOCOg test-u", "refcocog-umd:test", "scenesg:testA"),
)
REFERIT = _part("ReferItGame test", "referit:test", None)

MCN_PARTS = (*REFCOCO, *REFCOCO_PLUS, *REFCOCOG)
SMCIM_PARTS = (*REFCOCO, *REFCOCO_PLUS, REFCOCOG_GOOGLE, *REFCOCOG, REFERIT)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant."""

    name: str
    """As printed, as far as it reads well."""
    paper: Printed
    """As printed, one for each column."""
    model_fields: Mapping[str, Any] = field(default_factory=dict)
    recipe_fields: Mapping[str, Any] = field(default_factory=dict)
    suppression: str | None = None
    """Of the mask by the box when it is measured; rows that differ in nothing else share a training."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A table of variants that are trained alike and measured on one split."""

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
    "paper_data": "RefCOCO val",
    "recipes": {"small": "mcn-scenes", "paper": "mcn"},
    "data": {"small": "scenes:val", "paper": "refcoco:val"},
}
_SMCIM: dict[str, Any] = {
    "paper_data": "RefCOCOg-google val",
    "columns": (REC,),
    "recipes": {"small": "smcim-scenes", "paper": "smcim"},
    "data": {"small": "scenes:val", "paper": "refcocog-google:val"},
    "recipe_fields": {"small": {"steps": 400, "phrases": 8}, "paper": {"phrased": "refcocog-google:train"}},
}
_MCN_TABLE_2 = printed.MCN_TABLE_2["RefCOCO val"]
MCN_TABLE_2 = Experiment(
    title="MCN Table 2: what each component adds",
    columns=(REC, RES, IE),
    rows=(
        Row(name="MCN (Base)", paper=_MCN_TABLE_2[0], model_fields=_BASE, suppression="none"),
        Row(name="+TextAtt", paper=_MCN_TABLE_2[1], model_fields={**_BASE, "text_attention": True}, suppression="none"),
        Row(name="+GARAN", paper=_MCN_TABLE_2[2], model_fields={"cem": "off"}, suppression="none"),
        Row(name="+CEM", paper=_MCN_TABLE_2[3], suppression="none"),
        Row(name="+ASNLS", paper=_MCN_TABLE_2[4], suppression="adaptive"),
    ),
    **_MCN,
)

_STRUCTURES = {
    "single-rec-13": "Single_REC (scale 13²)",
    "single-rec-52": "Single_REC (scale 52²)",
    "single-res-13": "Single_RES (scale 13²)",
    "single-res-52": "Single_RES (scale 52²)",
    "only-head-different-13": "OnlyHeadDifferent (scale 13²)",
    "only-head-different-52": "OnlyHeadDifferent (scale 52²)",
    "only-backbone-shared": "OnlyBackboneShared",
    "mcn": "MCN (Base)",
}
MCN_TABLE_3 = Experiment(
    title="MCN Table 3: structures without any extra components",
    columns=(REC, RES),
    rows=tuple(
        Row(
            name=name,
            paper=printed.MCN_TABLE_3[structure],
            model_fields={**_BASE, "structure": structure},
            suppression="none",
        )
        for structure, name in _STRUCTURES.items()
    ),
    reference="MCN (Base)",
    **_MCN,
)

_VISUAL = {"One": (5,), "Two": (4, 5), "Three": (3, 4, 5)}
_LINGUISTIC = {"One": (6,), "Two": (4, 6), "Three": (2, 4, 6)}
SMCIM_TABLE_3 = Experiment(
    title="SMCIM Table III: visual x linguistic features, without SPSIL, six blocks of grouping in all",
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
        for (visual, linguistic), paper in printed.SMCIM_TABLE_3.items()
    ),
    reference="Three x Three",
    **_SMCIM,
)

SMCIM_TABLE_4 = Experiment(
    title="SMCIM Table IV: blocks of grouping (in all three groups) and of merging, without SPSIL",
    rows=tuple(
        Row(
            name=f"{grouping} grouping, {merging} merging",
            paper=(paper,),
            model_fields={"group_blocks": grouping // 3, "merge_blocks": merging},
            recipe_fields={"spsil": "off"},
        )
        for (grouping, merging), paper in printed.SMCIM_TABLE_4.items()
    ),
    reference="6 grouping, 3 merging",
    **_SMCIM,
)

_TABLE_5_BY_PART = {
    part.name: ((encoder,), (ours,), (printed.SMCIM_WITHOUT_SPSIL if part is REFCOCOG_GOOGLE else None,))
    for part, encoder, ours in zip(SMCIM_PARTS, printed.SMCIM_TABLE_5_ENCODER, printed.SMCIM_TABLE_5_CA2M, strict=True)
}
_TABLE_5 = _TABLE_5_BY_PART[REFCOCOG_GOOGLE.name]
SMCIM_TABLE_5 = Experiment(
    title="SMCIM Table V, and SPSIL on and off",
    rows=(
        Row(name="Transformer encoder", paper=_TABLE_5[0], model_fields={"interaction": "encoder"}),
        Row(name="CA²M", paper=_TABLE_5[1]),
        Row(name="CA²M without SPSIL", paper=_TABLE_5[2], recipe_fields={"spsil": "off"}),
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
    rows=(
        Row(name="without SPSIL", paper=(printed.SMCIM_WITHOUT_SPSIL,), recipe_fields={"spsil": "off"}),
        *(_paced(spsil_lambda=value) for value in (0.25, 0.5)),
        _paced(_TABLE_5[1][0]),
        *(_paced(spsil_lambda=value) for value in (1.0, 1.25)),
        *(_paced(sigma=value) for value in (1.5, 2.0, 3.0, 3.5)),
    ),
    reference="λ 0.75, σ 2.5",
    **{
        **_SMCIM,
        "paper_data": "RefCOCOg-google val; the best point and the one without SPSIL are printed, the others are not",
    },
)

EXPERIMENTS = {
    "mcn-table-2": MCN_TABLE_2,
    "mcn-table-3": MCN_TABLE_3,
    "smcim-table-3": SMCIM_TABLE_3,
    "smcim-table-4": SMCIM_TABLE_4,
    "smcim-table-5": SMCIM_TABLE_5,
    "smcim-fig-6": SMCIM_FIG_6,
}
BY_PART: Mapping[str, Mapping[str, Sequence[Printed]]] = {
    "mcn-table-2": printed.MCN_TABLE_2,
    "smcim-table-5": _TABLE_5_BY_PART,
}
"""Table -> every split that the paper prints it on -> its rows there."""
_PART_OF = {part.name: part for part in (*MCN_PARTS, *SMCIM_PARTS)}

_MCN_WORDS = 20
"""MCN section 4.3: phrases of up to 20 words for RefCOCOg, 15 elsewhere."""


def on_part(experiment: Experiment, part: Part, budget: str, paper: Sequence[Printed] | None = None) -> Experiment:
    """The experiment, trained and measured on that data instead.

    Args:
        experiment: its rows say what is trained.
        part: has data for that budget.
        budget: one of `BUDGETS`.
        paper: what is printed of each row there; None where nothing is.
    """
    fields = dict(experiment.recipe_fields.get(budget, {}))
    longer = {}
    if budget == "paper":
        fields["phrased"] = part.trained_on
        if experiment.recipes[budget] == "mcn" and part.trained_on.startswith("refcocog"):
            longer = {"max_tokens": _MCN_WORDS}
    rows = zip(experiment.rows, paper or [(None,) * len(experiment.columns)] * len(experiment.rows), strict=True)
    return replace(
        experiment,
        paper_data=part.name,
        data={budget: part.data[budget]},
        recipe_fields={budget: fields},
        rows=tuple(replace(row, paper=numbers, model_fields={**row.model_fields, **longer}) for row, numbers in rows),
    )


def everywhere(table: str, budget: str) -> list[Experiment]:
    """The table on every split of its paper that has a counterpart in that budget."""
    parts = ((_PART_OF[name], paper) for name, paper in BY_PART[table].items())
    return [on_part(EXPERIMENTS[table], part, budget, paper) for part, paper in parts if budget in part.data]


def structures_everywhere(budget: str) -> list[Experiment]:
    """MCN Fig. 5 (a): the structures of Table 3 on three data sets; only those on RefCOCO val are printed."""
    here = [row.paper for row in MCN_TABLE_3.rows]
    parts = ((REFCOCO[0], here), (REFCOCO_PLUS[0], None), (REFCOCOG[0], None))
    return [on_part(MCN_TABLE_3, part, budget, paper) for part, paper in parts]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table against other methods: one metric on many splits."""

    title: str
    column: str
    """What is measured: one of `REC`, `RES`, `IE`."""
    parts: tuple[Part, ...]
    others: tuple[Published, ...]
    own: tuple[Published, ...]
    """The paper's own rows."""
    presets: tuple[str, ...]
    """What makes each of them here."""
    main: int = 0
    """Which of them a small model is set beside."""
    recipes: Mapping[str, str]
    """Budget -> recipe."""
    pretraining: Mapping[str, str] = field(default_factory=dict)
    """Budget -> the recipe that comes before; empty for none."""
    small_fields: Mapping[str, object] = field(default_factory=dict)
    """Of the recipe with the budget ``small``."""

    def parts_of(self, budget: str) -> list[Part]:
        """Those with data in that budget."""
        return [part for part in self.parts if budget in part.data]

    def beside(self, budget: str) -> tuple[Published, ...]:
        """The paper's row for each of :meth:`rows`."""
        return self.own if budget == "paper" else (self.own[self.main],)

    def rows(self, budget: str) -> list[Row]:
        """What is trained: the presets, or with the budget ``small`` the recipe's model alone."""
        if budget == "paper":
            return [Row(name=name, paper=(None,), recipe_fields={"model": name}) for name in self.presets]
        return [Row(name=self.recipes[budget], paper=(None,))]

    def experiment(self, budget: str, rows: Sequence[Row], recipes: Mapping[str, str]) -> Experiment:
        """Rows trained by these recipes, measured on the first split; :func:`on_part` makes it another."""
        data = {budget: self.parts_of(budget)[0].data[budget]}
        return Experiment(
            title=self.title, paper_data="", columns=(self.column,), rows=tuple(rows), recipes=recipes, data=data
        )


_MCN_OTHERS: dict[str, Any] = {
    "parts": MCN_PARTS,
    "presets": ("mcn-vgg16", "mcn-darknet53"),
    "main": 1,
    "recipes": {"small": "mcn-scenes", "paper": "mcn"},
}
COMPARISONS = {
    "mcn-table-4": Comparison(
        title="MCN Table 4: REC against other methods, Acc@0.5",
        column=REC,
        others=printed.MCN_TABLE_4,
        own=printed.MCN_TABLE_4_OWN,
        **_MCN_OTHERS,
    ),
    "mcn-table-5": Comparison(
        title="MCN Table 5: RES against other methods, mean IoU",
        column=RES,
        others=printed.MCN_TABLE_5,
        own=printed.MCN_TABLE_5_OWN,
        **_MCN_OTHERS,
    ),
    "smcim-table-1": Comparison(
        title="SMCIM Table I: against other methods, Acc@0.5",
        column=REC,
        parts=SMCIM_PARTS,
        others=printed.SMCIM_TABLE_1,
        own=printed.SMCIM_TABLE_1_OWN,
        presets=("smcim-r50", "smcim-r101"),
        recipes={"small": "smcim-scenes", "paper": "smcim"},
    ),
    "smcim-table-2": Comparison(
        title="SMCIM Table II: with large-scale pre-training, Acc@0.5",
        column=REC,
        parts=tuple(part for part in SMCIM_PARTS if part not in (REFCOCOG_GOOGLE, REFERIT)),
        others=printed.SMCIM_TABLE_2,
        own=printed.SMCIM_TABLE_2_OWN,
        presets=("smcim-r50", "smcim-r101"),
        recipes={"small": "smcim-scenes", "paper": "smcim-finetune"},
        pretraining={"small": "smcim-scenes", "paper": "smcim-pretrain"},
        small_fields={"lr": 5e-5, "pretrained_lr": 1.5e-5, "sigma_lr": 2e-4},
    ),
}
