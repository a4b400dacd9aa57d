"""One set of words for an answer, wherever people read it."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from deixis.cli.ground import _print_table
from deixis.evaluate.predictions import Prediction
from deixis.evaluate.report.gallery import notes_on
from deixis.verdict import FOUND_SCORE, VERDICTS, score_in_words, verdict_of

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


@pytest.mark.parametrize(
    ("score", "found", "word"),
    [
        (0.7, True, "found"),
        (0.7, False, "unsure"),  # score enough, agreement not
        (0.41, False, "unsure"),
        (0.35, False, "unsure"),
        (0.34, False, "not found"),
        (0.0, False, "not found"),
    ],
)
def test_verdict_when_07_is_recorded_then_unsure_from_half_of_it(score, found, word):
    assert verdict_of(score, 0.7, found=found) == word
    assert word in VERDICTS


def test_score_in_words_when_not_found_then_it_says_so():
    assert [score_in_words(0.913, word) for word in VERDICTS] == ["0.91", "0.91 (unsure)", "0.91 (not found)"]


def answers():
    return [
        SimpleNamespace(phrase="dog", box=(0.0, 0.0, 9.0, 9.0), score=0.5, agreement=1.0, verdict=word, ms=1.0)
        for word in VERDICTS
    ]


def rows_of(capsys):
    lines = [line for line in capsys.readouterr().out.splitlines() if "dog" in line]
    return [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines]


def test_ground_table_when_printed_then_each_row_has_its_verdict(capsys):
    _print_table(answers())
    assert [row[4] for row in rows_of(capsys)] == list(VERDICTS)


def test_demo_table_when_printed_then_each_row_has_its_verdict(capsys):
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    demo._print_table({"a.jpg": answers()})
    assert [row[5] for row in rows_of(capsys)] == list(VERDICTS)


@pytest.mark.parametrize(
    ("score", "found", "word"), [(0.9, True, "found"), (0.4, False, "unsure"), (0.3, False, "not found")]
)
def test_notes_when_told_of_an_answer_then_they_end_in_its_verdict(score, found, word):
    one = Prediction(
        id="1", image_id="1", phrase="dog", box=None, score=score, agreement=1.0, found=found, iou=None, mask_iou=None
    )
    assert notes_on(one, 0.7) == [f"score {score:.2f}, agreement 1.00, {word}"]
    assert notes_on(one)[0].endswith("found" if found else verdict_of(score, FOUND_SCORE, found=False))
