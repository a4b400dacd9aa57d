"""The splits that the papers measure on, the drawn scenes that stand for them at a small scale, and tables on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deixis.papers.experiments import EXPERIMENTS, Experiment, Row

Printed = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One split of one data set."""

    name: str
    """As printed."""
    data: Mapping[str, str]
    """Budget -> what is measured on; a budget without a counterpart is left out."""
    trained_on: str
    """With the budget ``paper``; drawn scenes of all kinds are learnt together."""


def _part(name: str, data: str, small: str | None) -> Part:
    budgets = {"paper": data, "small": small}
    known = {budget: one for budget, one in budgets.items() if one is not None}
    return Part(name=name, data=known, trained_on=f"{data.partition(':')[0]}:train")


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

_MCN_WORDS = 20
"""MCN section 4.3: phrases of up to 20 words for RefCOCOg, 15 elsewhere."""


def on_part(experiment: Experiment, part: Part, budget: str, paper: Sequence[Printed] | None = None) -> Experiment:
    """The experiment, trained and measured on that data instead.

    Args:
        experiment: its rows say what is trained.
        part: has data for that budget.
        budget: out of `deixis.papers.ablations.BUDGETS`.
        paper: what is printed of each row there; None where nothing is.
    """
    fields = dict(experiment.recipe_fields.get(budget, {}))
    longer = {}
    if budget == "paper":
        fields["phrased"] = part.trained_on
        if experiment.recipes[budget] == "mcn" and part.trained_on.startswith("refcocog"):
            longer = {"max_tokens": _MCN_WORDS}
    printed = paper or [(None,) * len(experiment.columns)] * len(experiment.rows)
    rows: list[Row] = [
        replace(row, paper=numbers, model_fields={**row.model_fields, **longer})
        for row, numbers in zip(experiment.rows, printed, strict=True)
    ]
    return replace(
        experiment,
        paper_data=part.name,
        data={budget: part.data[budget]},
        recipe_fields={budget: fields},
        rows=tuple(rows),
    )


MCN_TABLE_2_BY_PART: tuple[tuple[Part, tuple[Printed, ...]], ...] = (
    (
        REFCOCO[0],
        (
            (77.45, 58.24, 13.80),
            (77.65, 58.44, 13.44),
            (79.20, 59.07, 13.37),
            (80.08, 61.61, 10.37),
            (80.08, 62.44, 6.65),
        ),
    ),
    (
        REFCOCO_PLUS[0],
        (
            (62.74, 44.08, 20.70),
            (63.07, 44.38, 19.88),
            (66.22, 47.89, 17.12),
            (67.16, 49.55, 13.51),
            (67.16, 50.62, 7.54),
        ),
    ),
    (
        REFCOCOG[0],
        (
            (62.29, 44.58, 19.87),
            (64.51, 46.58, 18.71),
            (65.98, 47.33, 17.44),
            (66.46, 48.56, 14.90),
            (66.46, 49.22, 9.41),
        ),
    ),
)

_ENCODER_LAYER = (82.68, 85.81, 77.35, 71.84, 77.60, 62.38, 70.83, 72.04, 72.30, 71.43)
_CA2M = (84.71, 87.91, 79.49, 73.54, 79.26, 63.60, 73.87, 75.61, 74.91, 74.55)
_WITHOUT_SPSIL = {REFCOCOG_GOOGLE.name: 72.86}
SMCIM_TABLE_5_BY_PART: tuple[tuple[Part, tuple[Printed, ...]], ...] = tuple(
    (part, ((encoder,), (ours,), (_WITHOUT_SPSIL.get(part.name),)))
    for part, encoder, ours in zip(SMCIM_PARTS, _ENCODER_LAYER, _CA2M, strict=True)
)

BY_PART: Mapping[str, tuple[tuple[Part, tuple[Printed, ...]], ...]] = {
    "mcn-table-2": MCN_TABLE_2_BY_PART,
    "smcim-table-5": SMCIM_TABLE_5_BY_PART,
}
"""Table -> every split that the paper prints it on, with a tuple a row and a number a column."""


def everywhere(table: str, budget: str) -> list[Experiment]:
    """The table on every split of its paper that has a counterpart in that budget."""
    return [on_part(EXPERIMENTS[table], part, budget, paper) for part, paper in BY_PART[table] if budget in part.data]


def structures_everywhere(budget: str) -> list[Experiment]:
    """MCN Fig. 5 (a): the structures of Table 3 on three data sets; the figure's values are printed nowhere."""
    table = EXPERIMENTS["mcn-table-3"]
    printed = {REFCOCO[0].name: [row.paper for row in table.rows]}
    return [on_part(table, part, budget, printed.get(part.name)) for part in (REFCOCO[0], REFCOCO_PLUS[0], REFCOCOG[0])]
