"""Progress goes to stderr and changes nothing of the work."""

import sys

import pytest

from deixis.progress import progress_over


def test_progress_when_nobody_watches_then_a_line_each_hundred(capsys):
    assert list(progress_over(range(250), "lines")) == list(range(250))
    told = capsys.readouterr()
    assert told.err == "lines: 100 of 250\nlines: 200 of 250\n"
    assert told.out == ""


def test_progress_when_length_is_unknown_then_only_the_count(capsys):
    assert len(list(progress_over(iter(range(100)), "lines"))) == 100
    assert capsys.readouterr().err == "lines: 100\n"


def test_progress_when_not_shown_then_silent(capsys):
    assert len(list(progress_over(range(300), "lines", show=False))) == 300
    assert capsys.readouterr().err == ""


def test_progress_when_on_a_terminal_then_items_pass_in_order(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress_over([3, 1, 2], "lines")) == [3, 1, 2]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("closed_at", [-1, 50], ids=["before", "while it runs"])
def test_progress_when_stderr_is_closed_then_items_pass_and_stdout_stays_clean(monkeypatch, capsys, closed_at):
    if closed_at < 0:
        monkeypatch.setattr(sys, "stderr", None)
    passed = []
    for item in progress_over(range(300), "lines"):
        if item == closed_at:
            monkeypatch.setattr(sys, "stderr", None)
        passed.append(item)
    assert passed == list(range(300))
    assert capsys.readouterr().out == ""
