"""An evaluation shared out by torchrun: nothing twice, nothing left out, the figures of one process."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.scenes import open_scenes
from deixis.evaluate import processes
from deixis.evaluate.processes import Ranks, Task, torchrun_ranks


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 20), st.integers(1, 5))
def test_own_when_shared_out_then_every_piece_is_one_processs(count, size):
    pieces = [range(number, number + 1) for number in range(count)]
    shares = [Ranks(rank, size).own(pieces) for rank in range(size)]
    assert sorted((one for share in shares for one in share), key=lambda one: one.start) == pieces
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


class Meeting:
    """Stands for the network between processes, which are threads here."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=60)
        self.rank = threading.local()
        self.values = [None] * size

    def all_gather_object(self, answers, mine):
        self.values[self.rank.number] = mine
        self.barrier.wait()
        answers[:] = self.values
        self.barrier.wait()

    def broadcast_object_list(self, values):
        answers = [None] * len(self.values)
        self.all_gather_object(answers, values[0])
        values[0] = answers[0]


def ask(meeting, rank, size, task, samples, known, results):
    meeting.rank.number = rank
    results[rank] = list(Ranks(rank, size).parts(task.predictor(task.load(), samples), known if rank == 0 else {}))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_when_shared_out_then_all_processes_have_those_of_one(tiny_checkpoint, monkeypatch, size):
    monkeypatch.setattr(processes, "SAMPLES_AT_ONCE", 2)
    samples = open_scenes("scenes", "val", 7, 64)
    task = Task(model=str(tiny_checkpoint), dataset="scenes", split="val", limit=7, precision="float32")
    alone = list(task.predictor(task.load(), samples).parts(range(7)))
    known = {0: replace(alone[0].predictions[0], score=0.123)}
    meeting, results = Meeting(size), [None] * size
    monkeypatch.setattr(dist, "all_gather_object", meeting.all_gather_object)
    monkeypatch.setattr(dist, "broadcast_object_list", meeting.broadcast_object_list)
    threads = [
        threading.Thread(target=ask, args=(meeting, rank, size, task, samples, known, results)) for rank in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = [one for part in alone for one in part.predictions]
    for pieces in results:
        assert [index for piece, _ in pieces for index in piece] == list(range(7))
        got = [one for _, parts in pieces for part in parts for one in part.predictions]
        assert len(got) == 7
        assert got[0].score == 0.123  # what the first process knew was not asked again
        assert got[1:] == wanted[1:]


def test_torchrun_ranks_when_it_did_not_start_us_then_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with torchrun_ranks() as alone:
        assert (alone.is_first, alone.size) == (True, 1)
        assert not dist.is_initialized()


@pytest.mark.slow
def test_ranks_when_torchrun_starts_two_then_both_have_all_parts(tiny_checkpoint, tmp_path):
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys\n"
        "from deixis.data.scenes import open_scenes\n"
        "from deixis.evaluate import processes\n"
        "from deixis.evaluate.evaluate import score_parts\n"
        "processes.SAMPLES_AT_ONCE = 3\n"
        "samples = open_scenes('scenes', 'val', 10, 64)\n"
        "task = processes.Task(model=sys.argv[1], dataset='scenes', split='val', limit=10, precision='float32')\n"
        "for _ in range(2):\n"  # one after the other, as a comparison does
        "    with processes.torchrun_ranks() as held:\n"
        "        predictor = task.predictor(task.load(), samples)\n"
        "        if held.size > 1:\n"
        "            parts = [part for _, parts in held.parts(predictor, {}) for part in parts]\n"
        "        else:\n"
        "            parts = list(predictor.parts(range(10)))\n"
        "told = score_parts(parts, ()).report()\n"
        "open(f'{sys.argv[2]}-{held.rank}-of-{held.size}', 'w').write(repr(told))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for start in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]):
        command = [sys.executable, *start, str(script), str(tiny_checkpoint), str(tmp_path / "told")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    one, first, second = ((tmp_path / f"told-{name}").read_text() for name in ("0-of-1", "0-of-2", "1-of-2"))
    assert one == first == second
