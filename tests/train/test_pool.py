import dataclasses
import json

import numpy as np
import pytest
import torch

from deixis.data.attributes import WORD_GROUPS
from deixis.data.batches import BatchShape
from deixis.models.deixis.proposals import Proposals
from deixis.structures import TrainingBatch
from deixis.train import pool as pool_module
from deixis.train import setup as starting
from deixis.train.batch_loader import Steps
from deixis.train.layouts import Described
from deixis.train.pool import Pool, batch_of, fill_pool
from deixis.train.trainer import Trainer, canvas_rules, pool_of, run

FIELDS = [field.name for field in dataclasses.fields(Proposals)]


@pytest.fixture
def made(small_recipe):
    return small_recipe.replaced(pool=12, pool_phrases=3, images=4, phrases=2, absent=0.5)


@pytest.fixture
def fill(made, tmp_path):
    """Fills a pool in the folder and gives it; how often a picture was looked at is counted."""
    model, _ = starting.start_model(made)
    looked = []

    def filled(folder="pool", **values):
        recipe = made.replaced(**values)
        source = starting.start_data(recipe)
        real = pool_module._look
        pool_module._look = lambda *args, **kwargs: looked.append(1) or real(*args, **kwargs)
        try:
            fill_pool(model, source, recipe, canvas_rules(model, recipe), tmp_path / folder, autocast=False)
        finally:
            pool_module._look = real
        return Pool.read(tmp_path / folder, recipe)

    filled.looked, filled.model = looked, model
    return filled


def assert_same(a, b):
    for field in dataclasses.fields(TrainingBatch):
        one, two = getattr(a, field.name), getattr(b, field.name)
        if field.name == "seen":
            assert all(np.array_equal(one[name], two[name]) for name in FIELDS)
        elif isinstance(one, list):
            assert one == two
        else:
            assert np.array_equal(one, two), field.name


def test_fill_when_read_then_a_row_of_every_field_and_what_is_said_of_each_picture(fill, tmp_path):
    pool = fill()
    assert len(pool.described) == 12
    assert {path.name for path in (tmp_path / "pool").iterdir()} == {"told.jsonl", *(f"{n}.npy" for n in FIELDS)}
    assert {name: pool.seen[name].shape for name in ("boxes", "scores", "content")} == {
        "boxes": (12, 21, 4), "scores": (12, 21), "content": (12, 4),
    }  # fmt: skip
    assert pool.seen["features"].dtype == np.float16
    for told in pool.described:
        # up to 3 phrases, and perhaps one that means nothing
        assert len(told.phrases) == len(told.boxes) == len(told.present) <= 4
        assert len(told.boxed_boxes) == len(told.boxed_labels) > 0
    assert not all(all(told.present) for told in pool.described)
    assert pool.problems == ()


def test_fill_when_a_picture_is_taken_then_its_proposals_are_what_the_image_side_makes_of_it(fill, made):
    pool = fill()
    drawing = made.replaced(images=8, phrases=3)
    batch = Steps(starting.start_data(made), drawing, canvas_rules(fill.model, made))[0]
    with torch.no_grad():
        pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2).float() / 255
        _, _, found = fill.model.image.see(pixels, torch.from_numpy(batch.content))
    np.testing.assert_allclose(pool.seen["boxes"][:8], found.boxes.numpy(), atol=1e-5)
    np.testing.assert_allclose(pool.seen["features"][:8], found.features.numpy(), atol=1e-2, rtol=1e-2)
    rows = batch.image_index == 5
    assert pool.described[5].phrases == [p for p, own in zip(batch.phrases, rows, strict=True) if own]
    np.testing.assert_allclose(pool.described[5].boxes, batch.boxes[rows], atol=1e-5)


def test_batch_when_of_one_seed_and_step_then_the_same_from_any_pool_that_was_filled_alike(fill):
    options = {"images": 4, "phrases": 2, "size": 64, "absent": 0.5}
    one, two = fill("one"), fill("two")
    assert_same(one.batch(1, 7, BatchShape(**options)), two.batch(1, 7, BatchShape(**options)))
    assert one.batch(1, 7, BatchShape(**options)).phrases != one.batch(1, 8, BatchShape(**options)).phrases
    assert one.batch(1, 7, BatchShape(**options)).phrases != one.batch(2, 7, BatchShape(**options)).phrases


def test_batch_when_taken_then_no_pixels_different_pictures_and_at_most_so_many_phrases(fill):
    pool = fill()
    batch = pool.batch(0, 0, BatchShape(images=12, phrases=1, size=64, absent=0.0))
    assert batch.pixels.shape == (12, 0, 0, 3)
    assert np.array_equal(batch.seen["boxes"], pool.seen["boxes"])  # all of them, each once
    assert batch.image_index.tolist() == list(range(12))
    for row, told in enumerate(pool.described):
        place = told.phrases.index(batch.phrases[row])
        np.testing.assert_allclose(batch.boxes[row], told.boxes[place], rtol=1e-6)
        assert batch.present[row] == told.present[place]
    assert batch.boxed_index.tolist() == [row for row, told in enumerate(pool.described) for _ in told.boxed_boxes]
    assert not batch.has_mask.any()
    assert not batch.complete.any()


def test_batch_of_when_nothing_is_said_then_shapes_as_always():
    seen = {"content": np.array([[0, 0, 1, 1]], np.float32)}
    batch = batch_of([Described([], [], [], [], [])], seen, 64)
    assert (batch.boxes.shape, batch.boxed_boxes.shape) == ((0, 4), (0, 4))
    assert batch.boxed_labels.shape == (0, len(WORD_GROUPS))
    assert batch.thing_cells.shape == (0, 16)


def test_fill_when_it_is_there_then_left_as_it_is(fill, tmp_path):
    fill()
    count = len(fill.looked)
    assert count == 2  # eight pictures at once
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()}
    fill()
    assert len(fill.looked) == count
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "pool").iterdir()} == times


def test_fill_when_it_was_interrupted_then_filled_anew(fill, tmp_path):
    whole = fill("whole")
    (tmp_path / "pool").mkdir()
    np.save(tmp_path / "pool" / "boxes.npy", np.ones((3, 2)))
    again = fill()
    assert again.described == whole.described
    assert all(np.array_equal(again.seen[name], whole.seen[name]) for name in FIELDS)


def test_fill_when_the_number_is_no_multiple_of_those_drawn_at_once_then_so_many_all_the_same(fill):
    pool = fill(pool=11)
    assert len(pool.described) == 11
    assert len(pool.seen["boxes"]) == 11


def layouts_file(tmp_path):
    lines = ["image_id,width,height,box_x,box_y,box_w,box_h,expression"]
    for key in (2, 3, 4):
        lines += [f"{key},100,50,0,0,40,40,left dog", f"{key},100,50,50,0,40,40,right cat"]
    (tmp_path / "layouts.csv").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "layouts.csv")


def test_batch_when_there_are_layouts_then_a_share_of_the_pictures_is_theirs_and_losses_are_finite(
    fill, made, tmp_path
):
    values = {"layouts": layouts_file(tmp_path), "layouts_share": 0.5}
    pool = fill(**values)
    batch = pool.batch(0, 0, BatchShape(images=4, phrases=2, size=64, absent=0.0))
    assert batch.pixels.shape[0] == len(batch.content) == 4
    spoken = {batch.phrases[p] for p in np.flatnonzero(batch.image_index >= 2)}
    assert spoken <= {"left dog", "right cat", "right dog", "left cat"}
    theirs = batch.seen["valid"][2:]
    assert (theirs.sum(1) >= 2).all()
    assert not theirs[:, 12:].any()  # no cells
    np.testing.assert_allclose(batch.content[2:], [[0, 0.25, 1, 0.75]] * 2)
    held = Trainer(made.replaced(**values))
    losses = held.train_step(batch)
    assert set(losses) == {"loss", "choice", "box", "exists", "told"}
    assert np.isfinite(list(losses.values())).all()


def test_step_when_a_batch_of_the_pool_is_accumulated_then_the_losses_are_the_whole_ones(fill, made):
    batch = fill().batch(0, 0, BatchShape(images=4, phrases=2, size=64, absent=0.0))
    found = []
    for accumulate in (1, 2, 3):
        held = Trainer(made.replaced(accumulate=accumulate))
        held.model.train = lambda mode=True, held=held: type(held.model).train(held.model, False)  # no dropout
        found.append(held.train_step(batch))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    assert found[2] == pytest.approx(found[0], rel=1e-5)


def test_run_when_it_has_a_pool_then_the_detector_stays_and_a_resumed_run_reads_the_same_pool(made, tmp_path):
    made = made.replaced(steps=2, save_every=1)
    run(made, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all({"choice", "box", "exists", "told"} <= set(row) and "things" not in row for row in rows)
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["model"]
    begun, _ = starting.start_model(made)
    moved = {name for name, value in begun.state_dict().items() if not torch.equal(value, state[name])}
    assert moved
    detector = ("image.encoder.", "image.neck.", "image.head.", "image.prototypes.", "mask.")
    assert not [name for name in moved if name.startswith(detector)]
    before = (tmp_path / "run" / "pool" / "told.jsonl").stat().st_mtime_ns
    run(made, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "pool" / "told.jsonl").stat().st_mtime_ns == before


def test_pool_when_the_family_proposes_nothing_then_one_sentence(small_mcn_recipe, tmp_path):
    made = small_mcn_recipe.replaced(pool=8)
    with pytest.raises(ValueError, match="expected pool=0 for the family 'mcn', got 8"):
        pool_of(Trainer(made), starting.start_data(made), tmp_path)
