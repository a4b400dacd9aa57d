"""A run that is killed at random moments, again and again, comes to the end of an unbroken one."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

SAVE_EVERY = 3
STOPPED = (130, -signal.SIGTERM)
"""The loop saves and ends; while the model is loaded the signal simply ends the process."""
ENDS = {
    "kill -9": (-signal.SIGKILL,),
    "SIGTERM": STOPPED,
    "full disk": (1,),
    "kill -9 of all": (-signal.SIGKILL,),
    "SIGTERM of all": STOPPED,
}
KINDS = tuple(ENDS)


@pytest.fixture
def command(tmp_path, bert_folder):
    """Arguments of a training of some thousand parameters with dropout, SPSIL's sigma and averaged weights."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(3)
    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    model_fields = {
        "image_encoder": str(tmp_path / "resnet"), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": [1, 2, 3], "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7, "dropout": 0.3,
    }  # fmt: skip
    fields = {
        "model": "smcim-tiny", "text_weights": bert_folder, "images": 2, "phrases": 2, "lr": 1e-3, "workers": 1,
        "save_every": SAVE_EVERY, "keep": 2, "model_fields": json.dumps(model_fields),
    }  # fmt: skip
    return ["debug", *(str(word) for name, value in fields.items() for word in (f"--{name}", value))]


class Runs:
    """Starts `deixis train` in processes of their own, one after the other."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked_runs.py"))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.last = None

    def start(self, *arguments, most_bytes=0):
        self.wait_for_workers()
        asked = {"arguments": ["train", *map(str, arguments)], "most_bytes": most_bytes}
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        self.last = int(self.server.stdout.readline())
        return self.last

    def end(self):
        """The status of the one that was started last, and what it said on stderr."""
        answer = json.loads(self.server.stdout.readline())
        return answer["code"], answer["told"]

    def wait_for_workers(self):
        """Until no process of the last run is left; a worker looks every second whether the run is still there."""
        for _ in range(1500):
            if not any(group == self.last for group in living_groups()):
                return
            time.sleep(0.02)
        raise AssertionError("a worker outlasts its run")

    def close(self):
        with contextlib.suppress(ProcessLookupError, TypeError):
            os.killpg(self.last, signal.SIGKILL)
        self.server.communicate()


@pytest.fixture
def runs():
    started = Runs()
    yield started
    started.close()


def living_groups():
    """The process group of every process that is no zombie; a run is one group."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = path.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:
            continue  # it has just ended
        if state != "Z":
            yield int(group)


def logged(folder):
    log = folder / "metrics.jsonl"
    return log.read_text().splitlines() if log.is_file() else []


def losses(folder):
    rows = [json.loads(line) for line in logged(folder)]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def check_whole(folder):
    """No file but scratch is cut off, and no step is lost but those since the last save; the step of the state."""
    for path in folder.rglob("*"):
        if ".part" in (path.suffix, path.parent.suffix):
            continue
        if path.suffix == ".png":
            Image.open(path).verify()
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            assert load_file(path)
        elif path.suffix == ".pt":
            assert torch.load(path, weights_only=True)["step"] >= 1
    lines = logged(folder)
    steps = [json.loads(line)["step"] for line in lines[:-1]]
    assert steps == list(range(1, len(lines)))
    state = folder / "state.pt"
    saved = torch.load(state, weights_only=True)["step"] if state.is_file() else 0
    assert saved >= max(len(lines) - 2, 0) // SAVE_EVERY * SAVE_EVERY  # the last line may be cut off
    return saved


def assert_same_end(folder, other):
    """Both runs have left the same files, and but for times the same in them."""
    names = [sorted(str(path.relative_to(one)) for path in one.rglob("*")) for one in (folder, other)]
    kept = [[name for name in one if name.startswith("state-")] for one in names]  # perhaps of a SIGTERM's step
    assert len(kept[0]) == len(kept[1])
    names = [[name for name in one if not name.startswith("state-")] for one in names]
    assert names[0] == names[1]
    assert losses(folder) == losses(other)
    for name in names[0]:
        if name.endswith(".pt"):
            assert_same_values(*(torch.load(one / name, weights_only=True) for one in (folder, other)))
        elif name != "metrics.jsonl" and (folder / name).is_file():
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def assert_same_values(one, two):
    if isinstance(one, dict):
        assert one.keys() == two.keys()
    if isinstance(one, dict | list):
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same_values(one[key], two[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def break_off(runs, rng, kind, start, folder):
    """Start the run, and end it while it loads, or in the middle of some step or save."""
    if kind == "full disk":
        largest = max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=100_000)
        runs.start(*start, most_bytes=rng.randrange(100, largest))
        return runs.end()
    pid = runs.start(*start)
    until = len(logged(folder)) + rng.choice((0, 1, 2, 3, 4, 5))
    while pid in living_groups() and len(logged(folder)) < until:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.1))
    end = os.killpg if kind.endswith("of all") else os.kill
    end(pid, signal.SIGKILL if kind.startswith("kill") else signal.SIGTERM)
    return runs.end()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it asks /proc whether a process has ended")
@pytest.mark.parametrize(
    ("kills", "steps"), [(3, 14), pytest.param(30, 200, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_train_when_it_dies_at_random_moments_then_it_goes_on_and_ends_as_if_nothing_was(
    tmp_path, command, runs, kills, steps
):
    command = [*command, "--steps", steps]
    runs.start(*command, "--out", tmp_path / "whole")
    assert runs.end()[0] == 0
    folder, rng, saved = tmp_path / "run", random.Random(kills), 0
    for number in range(kills):
        kind = KINDS[number % len(KINDS)]
        code, told = break_off(runs, rng, kind, ("--resume", folder) if saved else (*command, "--out", folder), folder)
        assert code in ENDS[kind], (number, kind, told)
        assert "Traceback" not in told, (number, kind, told)
        if kind == "full disk":
            assert "deixis: File too large: " in told.splitlines()[-1], told
        before, saved = saved, check_whole(folder)
        assert before <= saved < steps
    runs.start("--resume", folder)
    code, told = runs.end()
    assert code == 0, told
    runs.wait_for_workers()
    assert_same_end(folder, tmp_path / "whole")
