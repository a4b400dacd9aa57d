"""What is copied from the papers' tables agrees with what their text says of it."""

import pytest

from deixis.papers import printed
from deixis.papers.tables import BY_PART, COMPARISONS, EXPERIMENTS, MCN_PARTS, SMCIM_PARTS


def of(rows, method, place=-1):
    return [row for row in rows if row.method == method][place].values


@pytest.mark.parametrize("name", COMPARISONS)
def test_rows_when_counted_then_a_number_for_each_part(name):
    table = COMPARISONS[name]
    for row in (*table.others, *table.own):
        assert len(row.values) == len(table.parts)
        assert all(value is None or 20 < value < 95 for value in row.values)
    assert len(table.own) == len(table.presets)
    assert not any(value is None for row in table.own for value in row.values)


def test_table_1_when_compared_with_the_text_then_the_margins_over_others_are_those_printed_there():
    own = of(printed.SMCIM_TABLE_1_OWN, "SMCIM")  # ResNet-101
    margins = {
        "TransVG": (4.08, 5.51, 1.73, 9.62, 8.78, 8.27, 7.48, 8.58, 8.05, 4.45),
        "Ref-NMS": (4.40, 4.23, 4.04, 6.19, 5.80, 5.79, None, 6.70, 5.16, None),
        "RT*": (2.87, 2.64, 3.51, 2.86, 3.52, 3.05, None, 7.84, 6.38, 3.76),
    }
    for method, told in margins.items():
        other = of(printed.SMCIM_TABLE_1, method)
        for ours, theirs, margin in zip(own, other, told, strict=True):
            assert (theirs is None) == (margin is None)
            assert margin is None or ours - theirs == pytest.approx(margin, abs=1e-9)


def test_table_2_when_compared_with_the_text_then_the_margins_over_seqtr_are_those_printed_there():
    own, other = of(printed.SMCIM_TABLE_2_OWN, "SMCIM"), of(printed.SMCIM_TABLE_2, "SeqTR")
    margins = [a - b for a, b in zip(own, other, strict=True)]
    assert margins == pytest.approx([2.60, 2.11, 3.10, 3.78, 2.81, 3.67, 2.71, 1.88])


def test_tables_of_mcn_when_compared_with_the_text_then_the_margins_are_those_printed_there():
    own, mattnet = of(printed.MCN_TABLE_4_OWN, "MCN"), of(printed.MCN_TABLE_4, "MattNet", 0)
    assert own[3] - of(printed.MCN_TABLE_4, "MattNet")[3] == pytest.approx(1.83)
    assert own[0] > mattnet[0]
    assert own[2] - of(printed.MCN_TABLE_4, "NMTree")[2] == pytest.approx(7.64)
    rows = [row.values for row in printed.MCN_TABLE_5]
    best = [max(row[i] for row in rows if row[i] is not None) for i in range(8)]
    gains = [a - b for a, b in zip(of(printed.MCN_TABLE_5_OWN, "MCN"), best, strict=True)]
    assert all(gain > 0 for gain in gains)


def test_table_1_of_smcim_when_it_cites_mcn_then_the_numbers_are_mcns_own():
    cited = of(printed.SMCIM_TABLE_1, "MCN")
    assert [value for value in cited if value is not None] == list(of(printed.MCN_TABLE_4_OWN, "MCN"))


def test_tables_by_part_when_read_then_they_hold_what_the_tables_of_one_part_have():
    names = {part.name: part.data["paper"] for part in (*MCN_PARTS, *SMCIM_PARTS)}
    for name, parts in BY_PART.items():
        rows = EXPERIMENTS[name].rows
        assert all(len(paper) == len(rows) for paper in parts.values())
        here = {names[part]: paper for part, paper in parts.items()}[EXPERIMENTS[name].data["paper"]]
        assert list(here) == [row.paper for row in rows]


def test_table_5_by_part_when_it_repeats_table_1_then_the_numbers_agree():
    ours = [paper[1][0] for paper in BY_PART["smcim-table-5"].values()]
    assert ours == list(of(printed.SMCIM_TABLE_1_OWN, "SMCIM", 0))
    last = [paper[-1][0] for paper in BY_PART["mcn-table-2"].values()]
    own = dict(zip((part.name for part in MCN_PARTS), of(printed.MCN_TABLE_4_OWN, "MCN"), strict=True))
    assert last == [own[name] for name in BY_PART["mcn-table-2"]]


def test_parts_when_listed_then_each_name_stands_once():
    for parts in (MCN_PARTS, SMCIM_PARTS):
        assert len({part.name for part in parts}) == len(parts)
        assert len({part.data["paper"] for part in parts}) == len(parts)
