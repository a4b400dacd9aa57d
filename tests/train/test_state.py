import errno
import json
import os
import pathlib

import pytest
import torch
from safetensors import SafetensorError

from deixis.files import atomic_write, write_text
from deixis.train import state
from deixis.train.state import clear_leftovers, kept_states, naming, read_state, write_state
from deixis.train.trainer import Trainer, run


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and what would tidy up after it does nothing."""


OPERATIONS = ("fsync", "replace", "link", "unlink")


def stop_at(patch, number, error):
    """Raise at file operation ``number`` and at all after it, as a dead process does nothing more."""
    seen = []

    def stopping(operation):
        def guarded(*arguments, **options):
            seen.append(operation)
            if len(seen) > number:
                raise error
            return operation(*arguments, **options)

        return guarded

    for name in OPERATIONS:
        patch.setattr(os, name, stopping(getattr(os, name)))
    patch.setattr(pathlib.Path, "unlink", lambda self, missing_ok=False: os.path.lexists(self) and os.unlink(self))
    return seen


def count_operations(monkeypatch, work):
    with monkeypatch.context() as patch:
        seen = stop_at(patch, 10_000, Killed())
        work()
    return len(seen)


def logged(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize("keep", [1, 2])
def test_state_when_killed_between_any_two_file_operations_then_one_of_both_states_is_whole(
    tmp_path, monkeypatch, keep
):
    def save(folder, step):
        write_state(folder, {"step": step, "value": torch.full((9,), step)}, keep)

    def started(name):
        folder = tmp_path / name
        folder.mkdir()
        for step in (1, 2, 3):
            save(folder, step)
        return folder

    counted = started("counted")
    count = count_operations(monkeypatch, lambda: save(counted, 4))
    assert count >= (5 if keep > 1 else 3)
    for number in range(count):
        for error in (Killed(), OSError(errno.ENOSPC, "No space left on device")):
            folder = started(f"{number}-{type(error).__name__}")
            with monkeypatch.context() as patch:
                stop_at(patch, number, error)
                with pytest.raises(type(error)):
                    save(folder, 4)
            got = []
            clear_leftovers(folder)
            read_state(folder, got.append)
            (found,) = got
            assert found["step"] in (3, 4)
            assert (found["value"] == found["step"]).all()
            save(folder, found["step"] + 1)
            assert not list(folder.glob(".*.part"))
            assert len(kept_states(folder)) == (keep if keep > 1 else 0)


def test_run_when_killed_at_any_file_operation_of_its_end_then_it_resumes_to_the_same_end(
    small_mcn_recipe, tmp_path, monkeypatch
):
    made = small_mcn_recipe.replaced(steps=2, save_every=1, keep=2)
    run(made, tmp_path / "unbroken")
    wanted = logged(tmp_path / "unbroken")
    weights = torch.load(tmp_path / "unbroken" / "state.pt", weights_only=True)["model"]
    held = Trainer(made)
    (tmp_path / "counted").mkdir()
    each = count_operations(monkeypatch, lambda: held.save(tmp_path / "counted"))
    for number in range(1, 2 * each + 8, 5):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_at(patch, number, Killed())
            with pytest.raises(Killed):
                run(made, folder)
        run(made, folder, resume=(folder / "state.pt").exists())
        assert logged(folder) == wanted
        for name, value in torch.load(folder / "state.pt", weights_only=True)["model"].items():
            assert torch.equal(value, weights[name]), name
        assert (folder / "checkpoint" / "model.safetensors").read_bytes() == (
            tmp_path / "unbroken" / "checkpoint" / "model.safetensors"
        ).read_bytes()
        assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "unbroken").iterdir()}


def test_whole_when_the_disk_is_full_then_the_old_file_stays_and_the_room_is_given_back(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fill_the_disk():
        with atomic_write(path) as file:
            file.write(b"ne")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill_the_disk()
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.bin"]


class FullDisk:
    """A file upon a disk that has room for some bytes."""

    def __init__(self, room):
        self.room = room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def flush(self):
        pass


@pytest.mark.parametrize("room", [0, 300, 20_000])
def test_save_state_when_the_disk_is_full_then_that_error_and_not_the_one_that_follows_from_it(room):
    with pytest.raises(OSError, match="No space left on device"):
        state._save_state({"step": 5, "value": torch.zeros(10_000)}, FullDisk(room))


def test_naming_when_the_system_refuses_then_its_error_names_the_file_whoever_wrote(tmp_path):
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        with pytest.raises(OSError, match="No space left on device") as caught, naming(tmp_path / "a.bin"):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.bin"))
    with pytest.raises(SafetensorError, match="HeaderTooSmall"), naming(tmp_path / "a.bin"):
        raise SafetensorError("Error while deserializing: HeaderTooSmall")
    with pytest.raises(FileNotFoundError) as caught, naming(tmp_path / "a.bin"):
        (tmp_path / "none" / "b.bin").open()
    assert caught.value.filename == str(tmp_path / "none" / "b.bin")


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_write_state_when_some_are_kept_then_the_newest_and_one_name_more_for_the_last(tmp_path, keep):
    for step in (5, 10, 15, 20):
        write_state(tmp_path, {"step": step}, keep)
    steps = [torch.load(path, weights_only=True)["step"] for path in kept_states(tmp_path)]
    assert steps == ([] if keep == 1 else [20, 15, 10][:keep])
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 20
    if keep > 1:
        assert (tmp_path / "state.pt").samefile(tmp_path / "state-00000020.pt")


def test_write_state_when_later_ones_lie_there_then_those_go_and_keeping_fewer_drops_the_rest(tmp_path):
    for step in (5, 10, 15):
        write_state(tmp_path, {"step": step}, 3)
    write_state(tmp_path, {"step": 10}, 3)  # a run that went back
    assert [path.name for path in kept_states(tmp_path)] == ["state-00000010.pt", "state-00000005.pt"]
    write_state(tmp_path, {"step": 12}, 1)
    assert kept_states(tmp_path) == []


def test_write_state_when_the_file_system_has_no_links_then_copies(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    write_state(tmp_path, {"step": 5}, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"state.pt", "state-00000005.pt"}
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 5


def test_write_state_when_linking_fails_for_another_reason_then_that_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        write_state(tmp_path, {"step": 5}, 2)


def test_read_state_when_the_last_is_damaged_then_the_one_before_it_and_it_is_told(tmp_path, capsys):
    for step in (5, 10):
        write_state(tmp_path, {"step": step}, 2)
    (tmp_path / "state.pt").write_bytes(b"half")  # its other name is the same file
    got = []
    read_state(tmp_path, got.append)
    assert got == [{"step": 5}]
    (line,) = capsys.readouterr().err.splitlines()
    assert "state.pt" in line
    assert line.endswith("going on from state-00000005.pt instead")


def test_read_state_when_all_are_damaged_then_one_sentence_on_the_last(tmp_path):
    for step in (5, 10):
        write_state(tmp_path, {"step": step}, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"^expected the whole state of a run of this recipe in '.*state\.pt'"):
        read_state(tmp_path, lambda held: None)


def test_clear_leftovers_when_a_save_was_killed_then_only_what_it_left_goes(tmp_path):
    for name in (".checkpoint.ab12_cd9.part", "tmp_of_mine", "checkpoint"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    for name in ("state.pt", ".state.pt.part", ".metrics.jsonl.ab12_cd9.part", "mine.part"):
        (tmp_path / name).touch()
    clear_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tmp_of_mine", "checkpoint", "state.pt", "mine.part"}


def test_write_whole_when_text_has_any_letters_then_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "größe\n")
    assert (tmp_path / "a.txt").read_bytes() == "größe\n".encode()
    assert state.STATE == "state.pt"
