import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ResNetConfig, ResNetModel

from deixis.structures import TrainingBatch
from deixis.train import setup as starting
from deixis.train.batch_loader import batches
from deixis.train.parts import is_largest, merged, scaled, split_batch, things_in
from deixis.train.recipes import recipe
from deixis.train.trainer import Trainer, canvas_rules


def batch_of(phrases_each, present=None, has_mask=None, things_each=None):
    """Pictures of 32 pixels, the value of all pixels of each its number, with so many phrases and things each."""
    index = np.repeat(np.arange(len(phrases_each)), phrases_each)
    things = np.repeat(np.arange(len(phrases_each)), things_each or [1] * len(phrases_each))
    count = len(index)
    return TrainingBatch(
        pixels=np.stack([np.full((32, 32, 3), number, np.uint8) for number in range(len(phrases_each))]),
        content=np.tile(np.array([[0, 0, 1, 1]], np.float32), (len(phrases_each), 1)),
        phrases=[f"phrase {row}" for row in range(count)],
        image_index=index,
        boxes=np.full((count, 4), 0.5, np.float32),
        masks=np.zeros((count, 8, 8), np.float32),
        has_mask=np.zeros(count, bool) if has_mask is None else np.array(has_mask),
        present=np.ones(count, bool) if present is None else np.array(present),
        thing_index=things,
        thing_cells=np.ones((len(things), 4), np.float32) / 4,
        thing_labels=np.zeros((len(things), 3), np.int64),
        boxed_index=things,
        boxed_boxes=np.full((len(things), 4), 0.5, np.float32),
        boxed_labels=np.tile(np.array([[3, -1, -1]]), (len(things), 1)),
        complete=np.ones(len(phrases_each), np.bool_),
    )


def test_split_when_in_two_then_phrases_and_things_go_with_their_picture():
    one, two = split_batch(batch_of([1, 2, 1], things_each=[0, 1, 2]), 2)
    assert [part.batch.phrases for part in (one, two)] == [["phrase 0", "phrase 1", "phrase 2"], ["phrase 3"]]
    assert (one.batch.image_index.tolist(), two.batch.image_index.tolist()) == ([0, 1, 1], [0])
    assert (one.batch.thing_index.tolist(), two.batch.thing_index.tolist()) == ([1], [0, 0])
    assert [part.batch.pixels[:, 0, 0, 0].tolist() for part in (one, two)] == [[0, 1], [2]]


def test_split_when_counts_differ_by_loss_then_each_share_is_of_what_that_loss_averages():
    present, has_mask = [True, True, False, True], [True, False, False, True]
    one, two = split_batch(batch_of([1, 2, 1], present, has_mask, [1, 1, 2]), 2)
    names = ("exists", "choice", "mask", "pixels", "projection", "place", "words", "told", "things")
    assert [one.share(name) for name in names] == [3 / 4, 2 / 3, 2 / 3, 1 / 2, 1, 1 / 2, 2 / 4, 2 / 4, 2 / 4]
    assert [two.share(name) for name in names] == [1 / 4, 1 / 3, 1 / 3, 1 / 2, 0, 1 / 2, 2 / 4, 2 / 4, 2 / 4]


def test_split_when_words_of_some_things_are_known_then_told_by_these():
    batch = batch_of([1, 1], things_each=[1, 2])
    batch.boxed_labels[:] = [[3, 1, 2], [-1, -1, -1], [3, -1, -1]]
    one, two = split_batch(batch, 2)
    assert [part.share("told") for part in (one, two)] == [3 / 4, 1 / 4]
    assert [part.share("things") for part in (one, two)] == [1 / 3, 2 / 3]


def test_things_in_when_a_picture_has_none_then_one_if_that_is_known():
    batch = batch_of([1, 1, 1], things_each=[2, 0, 0])
    batch.complete[:] = [False, True, False]
    assert things_in(batch).tolist() == [2, 1, 0]


def test_split_when_of_a_pool_then_proposals_go_with_their_picture():
    batch = batch_of([1, 2, 1])
    batch = dataclasses.replace(batch, seen={"scores": np.arange(6.0).reshape(3, 2)})
    one, two = split_batch(batch, 2)
    assert one.batch.seen["scores"].tolist() == [[0, 1], [2, 3]]
    assert two.batch.seen["scores"].tolist() == [[4, 5]]


def test_split_when_there_is_one_part_then_the_batch_itself_and_losses_untouched():
    batch = batch_of([1, 1])
    (part,) = split_batch(batch, 1)
    assert part.batch is batch
    value = torch.tensor(2.0)
    assert scaled(part, {"choice": value})["choice"] is value


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=6), st.integers(2, 8))
def test_split_when_of_any_count_then_shares_add_up_to_1_and_every_phrase_counts_once(phrases_each, count):
    batch = batch_of(phrases_each)
    parts = split_batch(batch, count)
    assert len(parts) == count
    for name in ("exists", "choice", "words", "told", "things"):
        assert sum(part.share(name) for part in parts) == pytest.approx(1)
    counting = [part for part in parts if part.share("exists")]
    assert [phrase for part in counting for phrase in part.batch.phrases] == batch.phrases
    assert all(len(part.batch.phrases) for part in parts)


def test_merged_when_a_value_is_no_mean_then_the_largest_counts():
    one = {"l1": torch.tensor(1.0), "difficulty_max_l1": torch.tensor(0.2), "sigma_l1": torch.tensor(2.5)}
    two = {"l1": torch.tensor(2.0), "difficulty_max_l1": torch.tensor(0.1), "sigma_l1": torch.tensor(2.5)}
    assert merged(merged({}, one), two) == {"l1": 3.0, "difficulty_max_l1": pytest.approx(0.2), "sigma_l1": 2.5}
    assert not is_largest("difficulty_l1")


@pytest.fixture
def small_smcim_recipe(tmp_path, bert_folder):
    """Of the smcim family, from scratch, but for a ResNet whose batch-norm stays as it is."""
    torch.manual_seed(3)
    # with fewer channels and two threads, oneDNN's convolutions write past their memory on the way back
    sizes = ResNetConfig(embedding_size=16, hidden_sizes=[64, 128, 128, 128], depths=[1, 1, 1, 1])
    ResNetModel(sizes).save_pretrained(tmp_path / "resnet")
    fields = {
        "image_encoder": str(tmp_path / "resnet"), "image_size": 64, "text_dim": 12, "text_heads": 2, "text_layers": 3,
        "text_features": (1, 2, 3), "group_dim": 8, "group_heads": 2, "merge_heads": 2, "max_tokens": 7,
    }  # fmt: skip
    return recipe(
        "debug", model="smcim-tiny", model_fields=fields, text_weights=str(bert_folder), phrases=2, place_weight=1.0
    )


def step_of(made, batch, training=False):
    """Losses and gradients of a step; without ``training``, dropout is off and batch-norm stays as it is."""
    held = Trainer(made)
    if not training:
        held.model.train = lambda mode=True: type(held.model).train(held.model, False)
    losses = held.train_step(batch)
    named = [*held.model.named_parameters(), *held.objective.helper.named_parameters(prefix="helper")]
    return losses, {name: p.grad for name, p in named}, held


def mixed_batch(made):
    """Five pictures, of whose phrases some mean nothing there and some have no mask."""
    made = dataclasses.replace(made, images=5, absent=0.7)
    rules = canvas_rules(starting.start_model(made)[0], made)
    batch = next(iter(batches(starting.start_data(made), made, 0, rules)))
    assert not batch.present.all()
    batch.has_mask[::3] = False
    batch.masks[::3] = 0
    return batch


@pytest.mark.parametrize("family", ["small_recipe", "small_mcn_recipe", "small_smcim_recipe"])
def test_step_when_accumulated_then_losses_and_gradient_are_the_whole_batchs(family, request):
    made = dataclasses.replace(request.getfixturevalue(family), clip=0.0)
    batch = mixed_batch(made)
    losses, gradients, whole = step_of(made, batch)
    for accumulate in (2, 7):
        parts_losses, parts_gradients, held = step_of(dataclasses.replace(made, accumulate=accumulate), batch)
        assert parts_losses == pytest.approx(losses, rel=1e-5, abs=1e-5)
        for name, gradient in gradients.items():
            other = parts_gradients[name]
            assert (gradient is None) == (other is None), name
            if gradient is not None:
                torch.testing.assert_close(other, gradient, atol=1e-5, rtol=1e-4, msg=lambda told: f"{name}: {told}")  # noqa: B023
        assert held.step == whole.step == 1


def test_step_when_checkpointing_then_losses_and_gradient_are_the_same_and_dropout_too(small_smcim_recipe):
    fields = {**small_smcim_recipe.model_fields, "dropout": 0.3}
    made = dataclasses.replace(small_smcim_recipe, model_fields=fields)
    batch = mixed_batch(made)
    losses, gradients, _ = step_of(made, batch, training=True)
    again, others, held = step_of(dataclasses.replace(made, checkpointing=True), batch, training=True)
    assert held.model.interaction.checkpointing
    assert again == losses
    for name, gradient in gradients.items():
        assert gradient is None or torch.equal(gradient, others[name]), name


@pytest.mark.parametrize(("family", "name"), [("small_recipe", "deixis"), ("small_mcn_recipe", "mcn")])
def test_checkpointing_when_the_family_has_none_then_refused(family, name, request):
    made = dataclasses.replace(request.getfixturevalue(family), checkpointing=True)
    with pytest.raises(ValueError, match=rf"expected checkpointing=false for the family '{name}', got true"):
        Trainer(made)


def test_channels_last_when_off_then_kernels_lie_as_torch_makes_them(small_recipe):
    for wanted in (True, False):
        kernel = next(p for p in Trainer(dataclasses.replace(small_recipe, channels_last=wanted)).model.parameters())
        assert kernel.ndim == 4
        assert kernel.is_contiguous(memory_format=torch.channels_last) == wanted


def test_compile_when_on_then_the_models_parts_are_and_a_copy_is_not(small_recipe, monkeypatch):
    compiled = []
    monkeypatch.setattr("deixis.train.trainer.check_compiler", lambda: None)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    held = Trainer(dataclasses.replace(small_recipe, compile=True))
    assert compiled == list(held.model.children())
    assert compiled


@pytest.mark.parametrize(("named", "wanted"), [("", r"\['g\+\+', 'clang\+\+', 'cl'\]"), ("my-c++", r"\['my-c\+\+'\]")])
def test_compile_when_there_is_no_compiler_then_one_sentence_before_the_first_step(
    small_recipe, monkeypatch, named, wanted
):
    monkeypatch.setenv("CXX", named)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=rf"^expected a C\+\+ compiler out of {wanted} .* leave compile out$"):
        Trainer(dataclasses.replace(small_recipe, compile=True))
