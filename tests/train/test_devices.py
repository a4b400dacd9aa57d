"""Training on a device other than the CPU, here one that knows shapes alone."""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deixis.train import distributed as parallel
from deixis.train import setup as starting
from deixis.train.batch_loader import batches
from deixis.train.recipes import recipe
from deixis.train.run_logging import draw_predictions
from deixis.train.trainer import Trainer, canvas_rules

META = torch.device("meta")
aten = torch.ops.aten


@pytest.fixture
def small_smcim_recipe(tmp_path, bert_folder):
    from transformers import ResNetConfig, ResNetModel

    sizes = ResNetConfig(embedding_size=4, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    fields = {
        "image_encoder": str(tmp_path / "resnet"), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": (1, 2, 3), "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7,
    }  # fmt: skip
    return recipe(
        "debug", model="smcim-tiny", model_fields=fields, text_weights=str(bert_folder), place_weight=1.0, images=1
    )


class OneDevice(TorchDispatchMode):
    """Refuses what mixes tensors of two devices, but for single numbers, as a GPU does and not every kernel of meta."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation is aten._local_scalar_dense.default and args[0].device == META:
            return 1  # of values that are not there
        if operation is aten._to_copy.default and kwargs.get("device") == torch.device("cpu"):
            return torch.ones_like(args[0], device="cpu")
        held = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor) and one.ndim]
        if operation not in (aten._to_copy.default, aten.copy_.default, aten._pack_padded_sequence.default):
            assert len({one.device.type for one in held}) < 2, f"{operation} of tensors on several devices"
        return operation(*args, **kwargs)


def test_one_device_when_tensors_are_mixed_then_refused():
    there, here = torch.empty(2, 2, device=META), torch.empty(2, 2)
    assert (there @ here).device == META  # so that this would pass unnoticed
    with OneDevice():
        assert (there @ there + 1).device == META
        with pytest.raises(AssertionError, match=r"mm\.default of tensors on several devices"):
            there @ here


@pytest.mark.parametrize("family", ["small_recipe", "small_mcn_recipe", "small_smcim_recipe"])
def test_losses_when_the_model_is_on_another_device_then_all_of_the_batch_goes_there(request, monkeypatch, family):
    made = request.getfixturevalue(family).replaced(absent=1.0)
    held = Trainer(made)
    batch = next(iter(batches(starting.start_data(made), made, 0, canvas_rules(held.model, made))))
    names = set(held.criterion(batch))
    held.model.to(META)
    held.criterion.helper.to(META)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta has none
    with OneDevice():
        found = held.criterion(batch)
        total = held.criterion.total(found)
        total.backward()
    assert {name: value.device for name, value in found.items()} == dict.fromkeys(names, META)
    for name, parameter in held.model.named_parameters():
        assert parameter.grad is None or parameter.grad.device == META, name
    assert sum(parameter.grad is not None for parameter in held.model.parameters()) > 20


def test_draw_predictions_when_the_model_is_on_another_device_then_the_batch_goes_there(small_mcn_recipe):
    held = Trainer(small_mcn_recipe)
    rules = canvas_rules(held.model, small_mcn_recipe)
    batch = next(iter(batches(starting.start_data(small_mcn_recipe), small_mcn_recipe, 0, rules)))
    with OneDevice():
        assert draw_predictions(held.model.eval().to(META), held.tokenizer, batch).size == (2 * 326 + 6, 332)


def test_device_when_there_are_gpus_then_one_for_each_process_and_too_many_are_refused(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert [parallel._device(number) for number in (0, 1)] == [torch.device("cuda", number) for number in (0, 1)]
    assert chosen == [0, 1]
    with pytest.raises(ValueError, match="expected a GPU for each process, got 2 for process 3; start as many"):
        parallel._device(2)


def test_join_when_devices_are_gpus_then_nccl(monkeypatch):
    asked = []
    monkeypatch.setattr(parallel, "rendezvous", lambda url: iter([(torch.distributed.HashStore(), 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **how: asked.append((backend, how)))
    for device in ("cpu", "cuda"):
        parallel._join(torch.device(device), 2)
    assert [(backend, how["world_size"]) for backend, how in asked] == [("gloo", 2), ("nccl", 2)]
