"""The largest batch that fits: how it is looked for, and what a try of it says."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.train import batch_finder
from deixis.train.batch_finder import MOST_IMAGES, Try, advice, find_batch, free_bytes, try_batch
from deixis.train.recipes import recipe


def machine(limit):
    """A machine on which so many images fit; and what was tried."""
    tried = []

    def attempt(images):
        tried.append(images)
        return Try(images=images, fits=images <= limit, seconds=0.5, megabytes=images)

    return attempt, tried


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, MOST_IMAGES), first=st.integers(1, 300))
def test_find_when_so_many_fit_then_within_an_eighth_and_never_more_and_soon(limit, first):
    attempt, tried = machine(limit)
    best = find_batch(recipe("debug", images=first), attempt)
    assert best.fits
    assert best.images <= limit <= best.images + max(1, best.images // 8)
    assert len(tried) <= 22
    assert len(set(tried)) == len(tried)


def test_find_when_ten_fit_then_doubled_and_bisected():
    attempt, tried = machine(10)
    told = []
    assert find_batch(recipe("debug", images=2), attempt, told.append).images == 10
    assert tried == [2, 4, 8, 16, 12, 10, 11]
    assert [one.images for one in told] == tried


def test_find_when_all_fit_then_it_ends_at_the_most():
    attempt, tried = machine(10**9)
    assert find_batch(recipe("debug", images=1024), attempt).images == MOST_IMAGES
    assert tried == [1024, 2048, 4096]


def test_find_when_not_even_one_fits_then_one_sentence():
    attempt, tried = machine(0)
    with pytest.raises(ValueError, match=r"^expected one picture a step to fit into memory, got a process") as caught:
        find_batch(recipe("debug", images=4), attempt)
    assert tried == [4, 2, 1]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "told", "error", "fits"),
    [
        (0, "noise\nfits 1.250 800\n", "", True),
        (3, "", "", False),
        (-9, "", "", False),
        (137, "", "", False),
        (1, "", "Traceback\nRuntimeError: DefaultCPUAllocator: can't allocate memory: you tried", False),
        (1, "", "torch.OutOfMemoryError: CUDA out of memory. Tried", False),
        (-6, "", "terminate called: std::bad_alloc", False),
    ],
)
def test_try_when_its_process_ends_then_fits_or_not(monkeypatch, status, told, error, fits):
    monkeypatch.setattr(
        batch_finder.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, status, told, error)
    )
    one = try_batch(recipe("debug"), None, 4)
    assert (one.images, one.fits) == (4, fits)
    assert (one.seconds, one.megabytes) == ((1.25, 800) if fits else (0, 0))


@pytest.mark.parametrize("status", [0, 1])
def test_try_when_its_process_fails_otherwise_then_one_sentence_with_its_reason(monkeypatch, status):
    failed = subprocess.CompletedProcess([], status, "", "Traceback\nFileNotFoundError: expected a file")
    monkeypatch.setattr(batch_finder.subprocess, "run", lambda command, **_: failed)
    with pytest.raises(ValueError, match=r"^expected two training steps of 4 pictures, got .*expected a file$"):
        try_batch(recipe("debug"), None, 4)


def test_try_when_run_then_it_takes_two_steps_and_tells_what_it_held(monkeypatch):
    code = (
        "import deixis.train.setup as s\n"
        "s.training_phrases = lambda made: ['left', 'red circle']\n"
        "from deixis.train.batch_finder import main\nmain()\n"
    )
    run = subprocess.run
    monkeypatch.setattr(
        batch_finder.subprocess, "run", lambda command, **rest: run([sys.executable, "-c", code], **rest)
    )
    one = try_batch(recipe("debug", images=1), None, 2)
    assert one.fits
    assert one.seconds > 0
    assert one.megabytes > 50
    assert not try_batch(recipe("debug", images=1, image_sizes=(1024,)), 1_000_000, 2).fits


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_free_when_asked_then_some_and_less_than_a_petabyte():
    assert 10**6 < free_bytes() < 10**15


def test_advice_when_the_recipe_prints_its_batch_then_what_moves_by_itself():
    told = advice(recipe("smcim"), 48)
    assert "with --images 48" in told
    assert "move by themselves" in told
    assert "lr 0.0001 -> 5e-05" in told
    assert "sigma_lr 5e-05 -> 1.3e-05" in told
    assert "rates stay as they are with --images 40" in advice(recipe("tiny"), 40)
