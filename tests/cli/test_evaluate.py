"""``deixis evaluate``: one model, two models, several processes, cut off and taken up, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.cli import app
from deixis.evaluate import processes

FILES = ["metrics.json", "metrics.md", "predictions.jsonl", "report.html", "run.json"]


class FakeScene:
    def __init__(self, name):
        self.name = name

    def ground_all(self, phrases):
        return [FakeAnswer(self.name, phrase) for phrase in phrases]


class FakeAnswer:
    mask, agreement, found, hw, score = None, 1.0, True, (32, 32), 0.75

    def __init__(self, name, phrase):
        self.box = (0.0, 0.0, 10.0, 10.0) if phrase == "dog" or name == "good" else (20.0, 0.0, 30.0, 10.0)


class FakeGrounder:
    def __init__(self, name):
        self.name, self.suppression = str(name), "none"

    def look(self, image):
        assert image.is_file()
        return FakeScene(self.name)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A file of six phrases on three images; every model that is loaded is a stand-in."""
    monkeypatch.setattr("deixis.grounder.load", lambda model, **_options: FakeGrounder(model))
    rows = []
    for number in range(6):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f"{number // 2}.png")
        rows.append({
            "id": number, "image": f"{number // 2}.png", "phrase": ("dog", "cat")[number % 2], "box": [0, 0, 10, 10]
        })  # fmt: skip
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data.jsonl"


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_evaluate_when_a_report_is_wanted_then_all_files_and_the_same_figures(data, tmp_path):
    done = run("any", data, "--json", "--report", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES
    report = json.loads(done.stdout)
    assert json.loads((tmp_path / "report" / "metrics.json").read_text()) == {**report, "problems": []}
    assert report["rec"]["acc@0.5"] == 0.5
    assert report["ci95"]["rec.acc@0.5"] == [0.5, 0.5]  # each image has one right and one wrong
    assert report["calibration"]["expected_calibration_error"] == 0.25


def test_evaluate_when_printed_then_what_the_score_is_worth_stands_below(data):
    done = run("any", data)
    assert "the score is off by 25.0 points on average" in done.stdout


def test_evaluate_when_cut_off_then_told_how_much_was_there(data, tmp_path):
    folder = tmp_path / "report"
    run("any", data, "--report", folder)
    (folder / "metrics.json").unlink()
    done = run("any", data, "--report", folder)
    assert done.stderr == "deixis: 6 of 6 answers were there from the run that was cut off\n"
    (folder / "metrics.json").unlink()
    assert run("any", data, "--report", folder, "--no-resume").stderr == ""


def test_evaluate_when_two_models_then_compared(data, tmp_path):
    done = run("poor", "good", data, "--report", tmp_path / "report")
    assert done.exit_code == 0, done.output
    assert "A is poor, B is good" in done.stdout
    assert "right: both 3, only A 0, only B 3, neither 0" in done.stdout
    assert (tmp_path / "report" / "comparison.html").is_file()
    printed = run("poor", "good", data, "--json")
    assert json.loads(printed.stdout)["differences"]["rec.acc@0.5"]["difference"] == 0.5


@pytest.mark.parametrize("count", [1, 4])
def test_evaluate_when_the_number_of_words_is_wrong_then_status_2(count):
    done = run(*["word"] * count)
    assert done.exit_code == 2
    assert "MODEL MODEL_B DATASET" in done.output.replace("\n", " ")


def test_evaluate_when_the_report_is_a_file_then_one_sentence(data):
    done = run("any", data, "--report", data)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)


class InPlace:
    """A pool that works in this very process."""

    def __init__(self, processes, *, mp_context, initializer, initargs):
        self.processes = processes
        initializer(*initargs)

    def map(self, work, *arguments):
        return map(work, *arguments)

    def shutdown(self, *, cancel_futures):
        assert cancel_futures


def test_evaluate_when_work_is_shared_out_then_files_are_identical(data, tmp_path, monkeypatch):
    run("any", data, "--report", tmp_path / "one")
    monkeypatch.setattr(processes, "ProcessPoolExecutor", InPlace)
    monkeypatch.setattr(processes, "SAMPLES_AT_ONCE", 2)
    monkeypatch.setattr(signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _count: None)
    assert run("any", data, "--report", tmp_path / "two", "--processes", 2).exit_code == 0
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_evaluate_when_a_process_is_stopped_from_outside_then_one_sentence(data, tmp_path, monkeypatch):
    class Broken(InPlace):
        def map(self, work, *arguments):
            raise BrokenProcessPool

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Broken)
    monkeypatch.setattr(signal, "signal", lambda *_arguments: None)
    monkeypatch.setattr("torch.set_num_threads", lambda _count: None)
    done = run("any", data, "--report", tmp_path / "r", "--processes", 2)
    assert done.exit_code == 1
    assert "stopped from outside" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_evaluate_when_two_processes_are_interrupted_then_all_end_at_once_and_lines_stay(tmp_path):
    words = ["evaluate", "deixis-tiny", "scenes:val", "--limit", "400", "--report", str(tmp_path), "--processes", "2"]
    ours = subprocess.Popen([sys.executable, "-m", "deixis", *words], start_new_session=True, stderr=subprocess.DEVNULL)
    log = tmp_path / "predictions.jsonl"
    while ours.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.1)
    ours.send_signal(signal.SIGINT)
    assert ours.wait(timeout=20) == 130
    assert log.read_text().count("\n") >= 32
    time.sleep(5)
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        os.killpg(ours.pid, 0)


@pytest.mark.slow
def test_evaluate_when_run_by_two_processes_or_killed_and_resumed_then_files_are_identical(tmp_path):
    def command(name, *options):
        words = ["evaluate", "deixis-tiny", "scenes:val", "--limit", "70", "--report", str(tmp_path / name), *options]
        return subprocess.Popen([sys.executable, "-m", "deixis", *words], stdout=subprocess.DEVNULL)

    assert command("one").wait() == 0
    assert command("two", "--processes", "2").wait() == 0
    cut = command("cut")
    log = tmp_path / "cut" / "predictions.jsonl"
    while cut.poll() is None and not (log.exists() and log.stat().st_size > 20_000):
        time.sleep(0.1)
    os.kill(cut.pid, signal.SIGKILL)
    cut.wait()
    assert not (tmp_path / "cut" / "metrics.json").exists()
    assert command("cut").wait() == 0
    for name in ("predictions.jsonl", "metrics.json", "metrics.md"):
        whole = (tmp_path / "one" / name).read_bytes()
        assert (tmp_path / "two" / name).read_bytes() == whole, name
        assert (tmp_path / "cut" / name).read_bytes() == whole, name
