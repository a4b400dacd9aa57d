import pytest

from deixis.data.captions.statistics import compare_statistics, format_statistics, read_expressions


def rows(phrases, human):
    return {row.name: row for row in compare_statistics(phrases, human)}


def test_compare_statistics_when_hand_counted_then_exact():
    table = rows(["left dog", "a red cup on the table", "stop sign", "dog"], ["the left dog", "big laptop"])

    assert table["words, mean"].written == (2 + 6 + 2 + 1) / 4
    assert table["words, mean"].human == 2.5
    assert table["words, median"].written == 2.0
    assert table["three words or fewer"].written == 0.75
    assert table["names a place"].written == 0.25
    assert table["names a place"].human == 0.5
    assert table["says left"].written == 0.25
    assert table["has a colour word"].written == 0.25
    assert table["has a size word"].human == 0.5
    assert table["human words that are also written"].written == 3 / 5
    assert not table["words, mean"].is_share


def test_compare_statistics_when_a_side_is_empty_then_says_so():
    with pytest.raises(ValueError, match="got 0 written and 1 human"):
        compare_statistics([], ["dog"])


def test_format_statistics_when_printed_then_shares_are_percent():
    text = format_statistics(compare_statistics(["left dog"], ["dog"]))

    assert "written" in text.splitlines()[0]
    assert "100.0 %" in text
    assert "2.00" in text


def test_read_expressions_when_the_column_is_there_then_its_cells(tmp_path):
    path = tmp_path / "human.csv"
    path.write_text('id,expression\n1,"left dog, big"\n2,\n3,cat\n', encoding="utf-8")

    assert read_expressions(path) == ["left dog, big", "cat"]


def test_read_expressions_when_the_file_is_wrong_then_one_sentence(tmp_path):
    path = tmp_path / "human.csv"
    with pytest.raises(FileNotFoundError, match="which is no file"):
        read_expressions(path)
    path.write_text("id,text\n1,dog\n", encoding="utf-8")
    with pytest.raises(ValueError, match="column 'expression'"):
        read_expressions(path)
    path.write_bytes(b"expression\n\xff\xfe\n")
    with pytest.raises(ValueError, match="CSV in UTF-8"):
        read_expressions(path)
