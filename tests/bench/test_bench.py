"""Counting by hand-worked sizes, timing in this process, and the run over processes at the smallest sizes."""

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from deixis.bench import bench as bench_file
from deixis.bench.bench import (
    BLOCKS,
    Result,
    Row,
    bench,
    describe_machine,
)
from deixis.bench.operations import (
    FUSION,
    HEAD,
    IMAGE,
    PARTS,
    TEXT,
    Counts,
    count_operations,
    count_parameters,
    present_parts,
)
from deixis.bench.report import PAPER_BLOCK_RATIO, PAPER_BLOCKS_SAVED, PRINTED, Point, report, speed_panel
from deixis.bench.subjects import (
    GroundingDinoPeer,
    OwlViTPeer,
    Subject,
    TimedGrounder,
    build,
    count,
    find_subject,
    find_subjects,
    random_inputs,
)
from deixis.bench.timing import Bench, Job, MatrixProducts, Turn, Worker, peak_bytes, serve


class Small(nn.Module):
    """An encoder, a head, and between them an attention of 2 heads and one product of its own."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Conv2d(3, 4, 2, stride=2)
        self.head = nn.Linear(4, 5)
        self.between = nn.Parameter(torch.zeros(4, 4))

    def forward(self, pixels):
        tokens = self.encoder(pixels).flatten(2).transpose(1, 2)  # [1, 6, 4]
        q = tokens.unflatten(-1, (2, 2)).transpose(1, 2)
        tokens = nn.functional.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)
        return self.head(tokens @ self.between)


SMALL_PARTS = {"encoder": IMAGE, "head": HEAD}


def test_count_operations_when_worked_by_hand_then_each_part_is_equal():
    counts = count_operations(Small(), SMALL_PARTS, pixels=torch.zeros(1, 3, 4, 6))
    convolution = 2 * 6 * 4 * (3 * 2 * 2)
    attention = 2 * (2 * 6 * 6 * 2) * 2  # both products, 2 heads, 6 x 6 tokens, 2 wide
    assert counts == {IMAGE: convolution, TEXT: 0, FUSION: attention + 2 * 6 * 4 * 4, HEAD: 2 * 6 * 4 * 5}


def test_count_parameters_when_worked_by_hand_then_the_rest_is_fusion():
    counts = count_parameters(Small(), SMALL_PARTS)
    assert counts == {IMAGE: 3 * 4 * 4 + 4, TEXT: 0, FUSION: 16, HEAD: 25}


def test_present_parts_when_a_module_is_missing_then_left_out():
    assert present_parts(Small(), {"encoder": IMAGE, "text": TEXT}) == {"encoder": IMAGE}


def test_count_operations_when_shapes_are_enough_then_values_never_come():
    given = []
    model = Small()
    model.head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    counts = count_operations(model, SMALL_PARTS, pixels=torch.zeros(1, 3, 4, 6))
    assert [isinstance(one, FakeTensor) for one in given] == [True]
    assert not isinstance(model.between, FakeTensor)  # the network is as before
    model.head.register_forward_pre_hook(lambda _, inputs: given.append(float(inputs[0].sum())))
    assert count_operations(model, SMALL_PARTS, pixels=torch.zeros(1, 3, 4, 6)) == counts  # now one looks at values
    assert isinstance(given[-1], float)


def test_find_subject_when_checkpoint_preset_or_fields_then_told_apart(tiny_checkpoint):
    assert find_subject(str(tiny_checkpoint)).kind == "checkpoint"
    assert find_subject("deixis-tiny").kind == "checkpoint"  # bundled
    assert find_subject("mcn-tiny") == Subject(name="mcn-tiny", kind="preset", where="mcn-tiny")
    fields = find_subject("mcn-tiny:dim=64:cem=off:garan=false:anchors_px=[[1,2],[3,4]]").fields
    assert fields == {"dim": 64, "cem": "off", "garan": False, "anchors_px": ([1, 2], [3, 4])}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nothing", "mcn-tiny"),
        ("mcn-tiny:dim", "NAME:field=value"),
        ("mcn-tiny:dimm=3", "dimm"),
        ("mcn-tiny:dim=0", "dim"),
        ("mcn-tiny:dim=" + "[" * 100_000, "dim"),
    ],
)
def test_find_subject_when_wrong_then_told_what_can_be(text, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        find_subject(text)


def test_find_subjects_when_one_twice_then_refused_and_peers_come_last():
    with pytest.raises(ValueError, match="'mcn-tiny' twice"):
        find_subjects(["mcn-tiny", "mcn-tiny"])
    assert [one.name for one in find_subjects(["mcn-tiny"], peers=True)] == ["mcn-tiny", "grounding-dino", "owl-vit"]


@pytest.fixture
def threads_for_processes(monkeypatch):
    """Models live in threads of this process: the same messages, a fraction of the time."""

    class ThreadProcess:
        exitcode = 0

        def __init__(self, target, args, daemon):
            pipe, job = args
            own = multiprocessing.connection.Connection(os.dup(pipe.fileno()))  # the caller closes what it handed over
            self._thread = threading.Thread(target=target, args=(own, job), daemon=daemon)
            self.start, self.join, self.is_alive = self._thread.start, self._thread.join, self._thread.is_alive

        def terminate(self):
            pass

    class Threads:
        Pipe, Process = staticmethod(multiprocessing.Pipe), ThreadProcess

    monkeypatch.setattr(multiprocessing, "get_context", lambda method: Threads)
    monkeypatch.setattr(signal, "signal", lambda number, action: None)
    monkeypatch.setattr("deixis.bench.timing.LONGEST_PRODUCT_S", 0.0)


def job(subject, **values):
    return Job(**{"subject": subject, "precision": "float32", "image_px": None, "words": 5, "threads": None, **values})


def tiny_subject(folder):
    return Subject(name="tiny", kind="checkpoint", where=str(folder))


def test_count_when_mcn_then_parts_add_up_and_words_cost(small_mcn_encoder, small_mcn_fields):
    subject = Subject(name="mcn", kind="preset", where="mcn-tiny", fields={**small_mcn_fields, "vocab_size": 10})
    short, long = (count(subject, image_px=None, words=words) for words in (4, 8))
    model = build(subject, image_px=None, words=4).model
    assert short.all_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert all(short.operations[part] > 0 for part in PARTS)
    assert long.operations[TEXT] > short.operations[TEXT]
    assert {part: long.operations[part] for part in (IMAGE, HEAD)} == {
        part: short.operations[part] for part in (IMAGE, HEAD)
    }
    assert (short.image_px, short.words) == (64, 4)


def test_build_when_size_is_no_multiple_of_32_then_refused(tiny_checkpoint):
    with pytest.raises(ValueError, match="multiple of 32, got 100"):
        build(tiny_subject(tiny_checkpoint), image_px=100, words=5)


def test_random_inputs_when_drawn_then_no_word_is_padding_and_twice_the_same(make_mcn):
    model, _ = make_mcn()
    timed = TimedGrounder(model, image_px=32, words=25)
    pixels, ids = random_inputs(timed, 2, dtype=torch.bfloat16)
    assert pixels.shape == (2, 3, 32, 32)
    assert pixels.dtype == torch.bfloat16
    assert ids.shape == (2, 25)
    assert ids.min() == 1
    assert ids.max() < model.config.vocab_size
    assert torch.equal(pixels, random_inputs(timed, 2, dtype=torch.bfloat16)[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bench_when_asked_in_this_process_then_parts_lie_inside_the_whole(tiny_checkpoint, precision):
    one = Bench(job(tiny_subject(tiny_checkpoint), precision=precision))
    assert one.first() > 0
    turn = one.turn()
    assert turn.ms > 0
    assert turn.second_ms is not None
    assert turn.second_ms > 0
    assert sum(turn.part_ms.values()) == pytest.approx(turn.ms)
    assert all(turn.part_ms[part] > 0 for part in PARTS)
    assert one.batch(3) > 0


def test_bench_when_a_batch_is_new_then_one_call_before_is_not_timed(tiny_checkpoint, monkeypatch):
    one = Bench(job(tiny_subject(tiny_checkpoint)))
    asked = []
    monkeypatch.setattr(one, "_ask", lambda size: (asked.append(size) or 1.0, None))
    one.batch(2)
    one.batch(2)
    one.batch(4)
    assert asked == [2, 2, 2, 4, 4]


def test_peak_bytes_when_memory_is_given_back_then_it_stays():
    held = bytearray(b"x" * 100_000_000)
    peak = peak_bytes()
    del held
    assert peak > 100_000_000
    assert peak_bytes() >= peak


def test_matrix_products_when_tried_then_best_only_grows_and_threads_stay():
    before = torch.get_num_threads()
    products = MatrixProducts("float32", threads=1)
    assert torch.get_num_threads() == before
    products.sides = [64, 128]
    products.turn()
    first = products.best
    products.turn()
    assert products.best >= first > 0


def counts(**values):
    given = {"parameters": dict.fromkeys(PARTS, 1), "operations": dict.fromkeys(PARTS, 5_000_000_000)}
    return Counts(**{**given, "image_px": 512, "words": 40, **values})


def row(name, times, *, fusion=1.0, precision="float32"):
    turns = [Turn(ms=ms, second_ms=None, part_ms={**dict.fromkeys(PARTS, 0.0), FUSION: fusion * ms}) for ms in times]
    subject = Subject(name=name, kind="preset", where="mcn-tiny")
    values = {"threads": 1, "start_s": 1.0, "first_ms": 9.0, "best_gflops": 400.0, "counts": counts()}
    return Row(
        subject=subject,
        precision=precision,
        turns=turns,
        batch_ms={2: [50.0, 40.0, 45.0]},
        peak_mb={"one": 1.0},
        **values,
    )


def result(*rows):
    names = dict.fromkeys(one.subject.name for one in rows)
    return Result(
        counts={name: counts() for name in names},
        kinds=dict.fromkeys(names, "preset"),
        rows=rows,
        machine={},
        problems=[],
    )


def test_row_when_worked_by_hand_then_rates_and_shares_are_equal():
    one = row("a", [100.0, 90.0, 110.0])
    assert one.per_second == {2: pytest.approx(1000 * 2 / 45)}
    assert one.gflops == pytest.approx(200.0)  # 20 G operations in 100 ms
    assert one.share_of_peak == pytest.approx(0.5)
    assert one.second_ms == []
    assert report(result(one))["times"][0]["second_phrase_ms"] is None


def test_times_over_first_when_the_load_drifts_then_rounds_are_compared_one_by_one():
    first, other = row("a", [10.0, 100.0, 1000.0]), row("b", [20.0, 200.0, 2000.0])
    bfloat16 = row("a", [5.0, 5.0, 5.0], precision="bfloat16")
    measured = result(first, other, bfloat16)
    assert measured.times_over_first(other) == 2.0
    assert measured.times_over_first(first) == 1.0
    assert measured.times_over_first(bfloat16) == 1.0  # the first of its own precision


def test_blocks_when_both_rows_were_measured_then_whole_and_fusion():
    ours, other = row(BLOCKS[0], [100.0], fusion=0.4), row(BLOCKS[1], [120.0], fusion=0.5)
    assert result(ours, other).blocks() == {"float32": (pytest.approx(1.2), pytest.approx(1.5))}
    assert result(ours).blocks() == {}
    assert pytest.approx(1.245, abs=5e-4) == PAPER_BLOCK_RATIO


def test_block_sizes_when_both_networks_are_counted_then_of_their_stacks_alone():
    both = [find_subject(name) for name in BLOCKS]
    measured = bench(both, batch_sizes=(), rounds=0)
    assert measured.block_sizes() == (52_004_352, 26_002_176)
    assert [one["block_parameters"] for one in report(measured)["models"]] == [52_004_352, 26_002_176]
    assert replace(measured, counts={BLOCKS[0]: counts()}).block_sizes() is None
    assert pytest.approx(26.01e6) == PAPER_BLOCKS_SAVED


def test_printed_when_named_then_each_is_a_preset_that_can_be_found():
    assert [find_subject(name).kind for name in PRINTED] == ["preset"] * len(PRINTED)


def test_bench_when_run_then_all_is_measured_and_counted(tiny_checkpoint, threads_for_processes):
    steps = []
    measured = bench(
        [tiny_subject(tiny_checkpoint)], words=5, batch_sizes=(2, 1, 2), rounds=2, threads=torch.get_num_threads(),
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert steps == [(number, 8) for number in range(1, 9)]  # the start, 2 turns, 2 batches of 2 sizes, the count
    (one,) = measured.rows
    assert len(one.turns) == 2
    assert {size: len(times) for size, times in one.batch_ms.items()} == {1: 2, 2: 2}
    assert 0 < one.peak_mb["one"] <= one.peak_mb["1"] <= one.peak_mb["2"]
    assert one.threads == torch.get_num_threads()
    assert one.best_gflops > 0
    assert one.counts == measured.counts["tiny"]
    told = json.loads(json.dumps(report(measured), allow_nan=False))
    assert told["times"][0]["times_over_first"] == 1.0
    assert told["times"][0]["warm_ms"]["p95"] >= told["times"][0]["warm_ms"]["median"]
    assert told["models"][0]["parameters"]["all"] == measured.counts["tiny"].all_parameters


def test_bench_when_no_rounds_then_no_process_is_started(small_mcn_encoder, small_mcn_fields, monkeypatch):
    monkeypatch.setattr(bench_file, "Worker", None)
    subject = Subject(name="mcn", kind="preset", where="mcn-tiny", fields={**small_mcn_fields, "vocab_size": 10})
    measured = bench([subject], rounds=0)
    assert measured.rows == []
    assert measured.counts["mcn"].all_operations > 0
    with pytest.raises(ValueError, match="at least one model"):
        bench([])


class FailingWorker:
    def __init__(self, job):
        raise RuntimeError(f"{job.subject.name}: no such kernel")


@pytest.mark.parametrize(("kind", "is_left_out"), [("peer", True), ("preset", False)])
def test_bench_when_a_model_cannot_run_then_only_a_peer_is_left_out(kind, is_left_out, monkeypatch):
    monkeypatch.setattr(bench_file, "Worker", FailingWorker)
    monkeypatch.setattr(bench_file, "count", lambda subject, **sizes: counts())
    subjects = [Subject(name="x", kind=kind, where="owl-vit")]
    if is_left_out:
        assert bench(subjects, rounds=1).problems == ["x in float32 is left out: x: no such kernel"]
    else:
        with pytest.raises(RuntimeError, match="no such kernel"):
            bench(subjects, rounds=1)


class OnePipe:
    """What a process is asked, and what it answers."""

    def __init__(self, *requests):
        self.requests, self.answers = list(requests), []

    def send(self, answer):
        self.answers.append(answer)

    def recv(self):
        if not self.requests:
            raise EOFError
        return self.requests.pop(0)


def test_serve_when_asked_then_answers_until_the_pipe_closes(tiny_checkpoint, threads_for_processes):
    pipe = OnePipe(("peak_mb", ()), ("batch", (-1,)), ("threads", ()))
    serve(pipe, job(tiny_subject(tiny_checkpoint), threads=torch.get_num_threads()))
    threads, peak, refused, again = pipe.answers
    assert threads == again == (None, torch.get_num_threads())
    assert peak[0] is None
    assert peak[1] > 0
    assert refused[0] == "RuntimeError"


def test_worker_when_the_model_refuses_its_size_then_its_sentence_and_the_end(tiny_checkpoint, threads_for_processes):
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"^expected an image size that is a multiple of 32, got 33$"):
        Worker(job(tiny_subject(tiny_checkpoint), image_px=33))
    assert threading.active_count() == before


def test_worker_when_a_call_fails_then_told_of_which_model_and_ended(tiny_checkpoint, threads_for_processes):
    worker = Worker(job(tiny_subject(tiny_checkpoint)))
    with pytest.raises(RuntimeError, match=r"^tiny in float32: RuntimeError: "):
        worker.ask("batch", -1)
    assert not worker._process.is_alive()


def test_worker_when_its_process_dies_then_told_what_may_help(tiny_checkpoint):
    with Worker(job(tiny_subject(tiny_checkpoint))) as worker:
        assert worker.ask("first") > 0
        worker._process.kill()
        with pytest.raises(ValueError, match=r"status -9\); if memory ran out"):
            worker.ask("turn")


def test_machine_when_described_then_load_and_versions_but_no_names():
    machine = describe_machine()
    assert set(machine) == {"processor", "cores", "load_before", "torch", "python"}
    assert machine["cores"] >= 1


def small_dino():
    from transformers import GroundingDinoConfig, SwinConfig

    swin = SwinConfig(
        image_size=64, embed_dim=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return GroundingDinoConfig(
        backbone_config=swin, text_config={**text, "intermediate_size": 16}, disable_custom_kernels=True,
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=10,
    )  # fmt: skip


def small_owl():
    from transformers import OwlViTConfig

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return OwlViTConfig(text_config=sizes, vision_config={**sizes, "patch_size": 16}, projection_dim=16)


@pytest.mark.parametrize(
    ("peer", "config", "keeps"), [(GroundingDinoPeer, small_dino, False), (OwlViTPeer, small_owl, True)]
)
def test_peer_when_small_then_answers_and_counts_like_the_others(peer, config, keeps):
    timed = peer(image_px=64, words=7, config=config())
    assert timed.keeps_images is keeps
    pixels, ids = random_inputs(timed, 2, dtype=torch.float32)
    with torch.inference_mode():
        assert timed.answer(timed.encode(pixels), pixels, ids) is not None
    found = count_operations(timed.model, timed.parts, **timed.inputs(pixels, ids))
    assert all(found[part] > 0 for part in (IMAGE, TEXT, HEAD))
    assert found[FUSION] >= 0
    assert present_parts(timed.model, timed.parts) == timed.parts
    numbers = count_parameters(timed.model, timed.parts)
    assert sum(numbers.values()) == sum(parameter.numel() for parameter in timed.model.parameters())


def test_owl_peer_when_the_second_phrase_is_asked_then_as_in_one_pass():
    torch.manual_seed(0)
    timed = OwlViTPeer(image_px=64, words=7, config=small_owl())
    pixels, ids = random_inputs(timed, 1, dtype=torch.float32)
    with torch.inference_mode():
        whole = timed.model(**timed.inputs(pixels, ids))
        logits, boxes = timed.answer(timed.encode(pixels), pixels, ids)
    torch.testing.assert_close(boxes, whole.pred_boxes)
    torch.testing.assert_close(logits, whole.logits, atol=1e-4, rtol=1e-4)


def test_speed_panel_when_two_models_then_a_point_each_in_percent():
    points = [Point(name="slow", per_second=10, accuracy=0.9), Point(name="fast", per_second=30, accuracy=0.5)]
    panel = speed_panel(points, "Acc@0.5 on scenes:val")
    assert {line.name: list(line.points) for line in panel.lines} == {"slow": [(10, 90.0)], "fast": [(30, 50.0)]}
    with pytest.raises(ValueError, match="--accuracy"):
        speed_panel([], "")


def test_turns_when_taken_then_every_second_round_goes_backwards(monkeypatch):
    asked = []

    class Quiet:
        threads, start_s = 1, 0.0

        def __init__(self, job):
            self.name = job.subject.name

        def __enter__(self):
            return self

        def __exit__(self, *_):
            asked.append("closed")

        def ask(self, method, *arguments):
            asked.append((self.name, method, *arguments))
            return Turn(ms=1.0, second_ms=None, part_ms=dict.fromkeys(PARTS, 0.0)) if method == "turn" else 1.0

    monkeypatch.setattr(bench_file, "Worker", Quiet)
    monkeypatch.setattr(bench_file, "count", lambda subject, **sizes: counts())
    bench([Subject(name=name, kind="preset", where="x") for name in "ab"], rounds=2, batch_sizes=(1,))
    assert [one[0] for one in asked if one[1] == "turn"] == ["a", "b", "b", "a"]
    assert [one[0] for one in asked if one[1] == "first"] == ["a", "b"]
    assert asked[-2:] == ["closed", "closed"]
