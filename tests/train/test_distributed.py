"""Several processes: what they agree on, and that together they do the step of one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist
from torch import nn

from deixis.train import distributed as parallel
from deixis.train.distributed import ALONE, Group, process_group
from deixis.train.recipes import recipe
from deixis.train.trainer import run


def logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture
def twins(monkeypatch):
    """A group of two processes of which the other holds the same values as this one."""

    def both(tensor, op=dist.ReduceOp.SUM):
        if op == dist.ReduceOp.SUM:
            tensor.mul_(2)

    monkeypatch.setattr(dist, "all_reduce", both)
    return Group(rank=1, size=2)


def test_own_when_parts_are_shared_then_neighbours_and_as_many_each():
    assert [Group(rank=rank, size=2).own([0, 1, 2, 3]) for rank in (0, 1)] == [[0, 1], [2, 3]]
    assert ALONE.own([0, 1]) == [0, 1]


def test_merge_when_losses_come_from_two_then_added_but_for_what_is_no_mean(twins):
    assert twins.merge({"l1": 0.25, "sigma_l1": 2.5}) == {"l1": 0.5, "sigma_l1": 2.5}
    assert ALONE.merge({"l1": 0.25}) == {"l1": 0.25}


def test_add_gradients_when_of_two_then_doubled_in_their_own_layout_and_none_stays_none(twins, monkeypatch):
    monkeypatch.setattr(parallel, "_BUCKET", 30)
    kernels = nn.Conv2d(3, 2, 2).to(memory_format=torch.channels_last)
    unused = nn.Parameter(torch.zeros(3))
    frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
    kernels(torch.arange(48.0).view(1, 3, 4, 4)).sum().backward()
    before = kernels.weight.grad.clone()
    assert before.is_contiguous(memory_format=torch.channels_last)
    twins.add_gradients([kernels.weight, unused, frozen, kernels.bias])
    assert torch.equal(kernels.weight.grad, 2 * before)
    assert kernels.weight.grad.is_contiguous(memory_format=torch.channels_last)
    assert kernels.bias.grad.tolist() == [18.0, 18.0]  # 9 places, twice
    assert unused.grad is None


def test_add_gradients_when_only_the_other_has_one_then_it_is_taken(twins, monkeypatch):
    mine = nn.Parameter(torch.zeros(2))

    def other(tensor, op=dist.ReduceOp.SUM):
        tensor.fill_(1)

    monkeypatch.setattr(dist, "all_reduce", other)
    twins.add_gradients([mine])
    assert mine.grad.tolist() == [1.0, 1.0]


def test_average_statistics_when_of_two_then_their_mean_and_frozen_ones_stay(twins, monkeypatch):
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2))
    model[1].eval()

    def other(tensor, op=dist.ReduceOp.SUM):
        tensor.add_(3)

    monkeypatch.setattr(dist, "all_reduce", other)
    twins.average_statistics(model)
    assert model[0].running_mean.tolist() == [1.5, 1.5]
    assert model[0].running_var.tolist() == [2.0, 2.0]
    assert model[1].running_mean.tolist() == [0.0, 0.0]


def test_seed_when_of_several_then_numbers_differ_by_process_and_step_and_alone_nothing_happens():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    ALONE.seed(1, 2)
    assert torch.equal(torch.get_rng_state(), before)
    drawn = []
    for rank, step in ((0, 1), (1, 1), (0, 2), (0, 1)):
        Group(rank=rank, size=2).seed(1, step)
        drawn.append(torch.rand(1).item())
    assert drawn[0] == drawn[3]
    assert len(set(drawn)) == 3


def test_check_same_when_a_process_stands_elsewhere_then_one_sentence(twins, monkeypatch):
    twins.check_same(5)

    def other_at_7(tensor, op):
        torch.maximum(tensor, torch.tensor([7.0, -7.0], dtype=tensor.dtype), out=tensor)

    monkeypatch.setattr(dist, "all_reduce", other_at_7)
    with pytest.raises(ValueError, match="expected all processes to go on from one step, got 5 to 7; let all machines"):
        twins.check_same(5)


def test_process_group_when_one_process_is_all_then_no_group_and_torchrun_is_known(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group() as group:
        assert (group.rank, group.size, group.by_torchrun) == (0, 1, False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    with process_group() as group:
        assert group.by_torchrun
        assert not dist.is_initialized()


def test_run_when_torchrun_starts_it_again_then_it_goes_on_by_itself_but_not_with_another_recipe(
    small_mcn_recipe, tmp_path, monkeypatch
):
    run(small_mcn_recipe, tmp_path / "whole")
    run(small_mcn_recipe, tmp_path / "again", minutes=0.0)
    with pytest.raises(ValueError, match="expected an empty folder"):
        run(small_mcn_recipe, tmp_path / "again")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    with pytest.raises(ValueError, match="expected an empty folder"):
        run(small_mcn_recipe.replaced(lr=0.5), tmp_path / "again")
    run(small_mcn_recipe, tmp_path / "again")
    assert logged(tmp_path / "again") == logged(tmp_path / "whole")


# real processes


@pytest.fixture
def tiny(tmp_path):
    """Fields of `debug`, whose model has no batch-norm, with words that need not be gathered first."""
    words = ("the", "left", "right", "top", "bottom", "red", "green", "blue", "circle", "square", "star", "of", "and")
    numbers = torch.randn(len(words), 50, generator=torch.Generator().manual_seed(0)).tolist()
    lines = [" ".join([word, *(f"{one:.4f}" for one in row)]) for word, row in zip(words, numbers, strict=True)]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    return {"text_weights": str(tmp_path / "words.txt"), "images": 3, "phrases": 2}


def options(fields):
    return [str(word) for name, value in fields.items() for word in (f"--{name}", value)]


def one_of_two(rank, folder, fields):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.rendezvous", rank=rank, world_size=2)
    try:
        run(recipe("debug", **fields), folder)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"accumulate": 2, "workers": 1}], ids=["plain", "accumulated"])
def test_two_processes_when_they_share_a_batch_then_the_losses_and_weights_are_those_of_one(tmp_path, tiny, more):
    fields = {**tiny, "steps": 4, "save_every": 2}
    run(recipe("debug", **fields), tmp_path / "one")
    torch.multiprocessing.spawn(one_of_two, (tmp_path / "two", {**fields, **more}), nprocs=2)
    for one, two in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True)["average"] for name in ("one", "two"))
    for name, value in one.items():
        if name.endswith("key.bias"):
            continue  # a softmax does not see what is added to all of its inputs: at most rounding moves these
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-4)


def deixis_train(*arguments, torchrun=()):
    command = [sys.executable, *torchrun, "-m", "deixis", "train", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_steps(process, folder, count):
    """Until so many lines are logged; the process must not have ended before."""
    log = folder / "metrics.jsonl"
    while not log.is_file() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_torchrun_when_a_process_dies_then_all_start_again_and_end_as_if_nothing_was(tmp_path, tiny):
    fields = {**tiny, "steps": 6, "save_every": 2, "images": 4}
    run(recipe("debug", **fields), tmp_path / "whole")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import os, sys\n"
        "from deixis.train.trainer import Trainer\n"
        "from deixis.cli import main\n"
        "step = Trainer.train_step\n"
        "def train_step(self, batch):\n"
        "    if self.step == 3 and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        os._exit(9)\n"
        "    return step(self, batch)\n"
        "Trainer.train_step = train_step\n"
        "main()\n"
    )
    command = [
        sys.executable,
        *torchrun,
        str(dying),
        "train",
        "debug",
        *options(fields),
        "--out",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "run" / "checkpoint")]  # the first process alone speaks
    for one, two in zip(logged(tmp_path / "whole"), logged(tmp_path / "run"), strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_train_when_all_its_processes_are_told_to_stop_then_saved_and_resumed_without_a_lost_step(tmp_path, tiny):
    fields = {**tiny, "steps": 40, "save_every": 1000}
    run(recipe("debug", **fields), tmp_path / "whole")
    process = deixis_train("debug", *options({**fields, "workers": 2}), "--out", tmp_path / "run")
    for number, steps in ((signal.SIGTERM, 3), (signal.SIGINT, 6)):
        wait_for_steps(process, tmp_path / "run", steps)
        os.killpg(process.pid, number)
        _, told = process.communicate()
        assert process.returncode == 130, told
        assert "the state is saved" in told
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        assert state["step"] == len(logged(tmp_path / "run"))
        process = deixis_train("--resume", tmp_path / "run")
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert logged(tmp_path / "run") == logged(tmp_path / "whole")


@pytest.mark.slow
def test_train_when_killed_again_and_again_then_every_restart_goes_on_to_the_same_end(tmp_path, tiny):
    fields = {**tiny, "steps": 24, "save_every": 1, "keep": 2}
    run(recipe("debug", **fields), tmp_path / "whole")
    folder = tmp_path / "run"
    process = deixis_train("debug", *options(fields), "--out", folder)
    for steps, pause in ((2, 0.0), (7, 0.03), (12, 0.1)):
        wait_for_steps(process, folder, steps)
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        process = deixis_train("--resume", folder)
    _, told = process.communicate()
    assert process.returncode == 0, told
    assert logged(folder) == logged(tmp_path / "whole")
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
