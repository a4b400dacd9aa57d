"""What ``auto`` becomes, and that a training computes in it and says so."""

import pytest
import torch

from deixis.train import setup as starting
from deixis.train import trainer
from deixis.train.batch_loader import batches
from deixis.train.setup import uses_bfloat16
from deixis.train.trainer import Trainer, canvas_rules, run

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("fast", [True, False])
def test_precision_when_auto_then_what_the_device_is_fast_in(monkeypatch, fast):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: fast)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *, including_emulation: not fast)
    assert uses_bfloat16("auto", CPU) is fast
    assert uses_bfloat16("auto", GPU) is not fast
    assert uses_bfloat16("auto", torch.device("meta")) is False


@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_precision_when_named_then_this_one_whatever_the_device(monkeypatch, device):
    for fast in (True, False):
        monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda fast=fast: fast)
        assert uses_bfloat16("bfloat16", device)
        assert not uses_bfloat16("float32", device)


@pytest.mark.parametrize(("fast", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_step_when_precision_is_auto_then_computed_in_what_the_processor_has(small_mcn_recipe, monkeypatch, fast, kind):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: fast)
    made = small_mcn_recipe.replaced(precision="auto")
    held = Trainer(made)
    seen = set()

    def watch(_module, _given, result):
        seen.add(result.dtype)

    for module in held.model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.register_forward_hook(watch)
    held.train_step(next(iter(batches(starting.start_data(made), made, 0, canvas_rules(held.model, made)))))
    assert kind in seen
    assert (torch.bfloat16 in seen) is fast


def test_run_when_it_starts_then_its_precision_is_one_line_and_the_recipe_still_says_auto(
    small_mcn_recipe, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("deixis.grounder.has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(trainer, "loop", lambda *_, **__: None)
    run(small_mcn_recipe.replaced(precision="auto"), tmp_path / "run")
    assert capsys.readouterr().err.count("training: precision: float32\n") == 1
    assert '"precision": "auto"' in (tmp_path / "run" / "recipe.json").read_text()
