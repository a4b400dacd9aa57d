"""Batches of a run: signals while their workers start, and the end of workers whose run is gone."""

import signal
import threading

from deixis.train import batch_loader as batches
from deixis.train.batch_loader import signals_held_back


def test_signals_held_back_when_one_comes_then_it_waits():
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append("SIGTERM"))
    try:
        with signals_held_back():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)
            assert got == []
        assert got == ["SIGTERM"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_end_after_when_the_parent_is_another_then_the_process_ends_at_once(monkeypatch):
    parents, ended = iter([7, 7, 1]), []
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    monkeypatch.setattr("os._exit", ended.append)
    monkeypatch.setattr(batches, "_SECONDS_BETWEEN_LOOKS", 0.0)
    batches._end_after(7)
    assert (ended, list(parents)) == ([1], [])
