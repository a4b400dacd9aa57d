"""Progress goes to stderr and changes nothing of the work."""

import sys

import pytest

from deixis.progress import progress_over, progress_report


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


def test_report_when_on_a_terminal_then_a_bar_with_the_note(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "120"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    with progress_report("training") as report:
        for step in range(1, 4):
            report(step, 8, f"loss [{step}], rate 6e-04")
    told = capsys.readouterr()
    assert told.out == ""
    for part in ("training", "━", "3/8", "loss [3], rate 6e-04", ":"):
        assert part in told.err


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr("deixis.progress.time.monotonic", lambda: self.now)


def test_report_when_items_are_slow_then_a_line_a_minute_with_note_and_time_left(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress_report("training") as report:
        for step in range(41, 46):  # the first 40 were done in an earlier run
            clock.now += 40
            report(step, 500, f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "training: 42 of 500, loss 42, 5 h 5 min left",
        "training: 44 of 500, loss 44, 5 h 4 min left",
    ]


def test_report_when_little_is_left_or_the_end_unknown_then_no_time(monkeypatch, capsys):
    clock = Clock(monkeypatch)
    with progress_report("lines") as report:
        for done, total in ((1, 101), (100, 101), (200, None)):
            clock.now += 50
            report(done, total)
    assert capsys.readouterr().err.splitlines() == ["lines: 100 of 101", "lines: 200"]
