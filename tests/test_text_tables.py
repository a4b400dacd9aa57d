from deixis.text_tables import aligned_table, cell, markdown_table

ROWS = [["", "n", "what"], ["all samples", "7", "a|b\n<c>"]]


def test_markdown_table_when_cells_hold_markup_then_it_cannot_leave_them():
    assert markdown_table(ROWS, align="lrl").splitlines() == [
        "|  | n | what |", "| --- | ---: | --- |", "| all samples | 7 | a\\|b &lt;c> |",
    ]  # fmt: skip


def test_aligned_table_when_ruled_then_columns_of_one_width_below_a_rule():
    rows = [["", "n"], ["all", "700"], ["b", "7"]]
    assert aligned_table(rows, is_ruled=True).splitlines() == ["       n", "--------", "all  700", "b      7"]
    assert aligned_table(rows, align="ll").splitlines()[2] == "b    7"


def test_cell_when_there_is_no_number_then_a_dash():
    assert [cell(1.234), cell(0.5, "+.1f"), cell(None)] == ["1.23", "+0.5", "-"]
