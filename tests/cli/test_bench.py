"""``deixis bench`` over a very small checkpoint: what it prints, writes and refuses."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from deixis.bench import bench as bench_file
from deixis.bench.bench import Result, Row
from deixis.bench.operations import PARTS, Counts
from deixis.bench.report import read_accuracy, recorded_accuracy, tables
from deixis.bench.subjects import Subject
from deixis.bench.timing import Turn
from deixis.cli import app
from deixis.cli.bench import parse_sizes


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def assert_one_sentence(ended, *words):
    assert ended.exit_code == 1, ended.output
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.output
    for word in words:
        assert word in ended.stderr


COUNTS = Counts(
    parameters=dict.fromkeys(PARTS, 36_000_000), operations=dict.fromkeys(PARTS, 27_690_000_000), image_px=512, words=40
)


def measured_row(name, *, where="mcn-tiny", kind="preset", ms=100.0, precision="float32", second_ms=None):
    return Row(
        subject=Subject(name=name, kind=kind, where=str(where)),
        precision=precision,
        threads=2,
        start_s=1.5,
        first_ms=300.0,
        turns=[Turn(ms=ms, second_ms=second_ms, part_ms=dict.fromkeys(PARTS, ms / 4))],
        batch_ms={1: [ms], 4: [2 * ms]},
        peak_mb={"one": 500.0, "1": 510.0, "4": 900.0},
        counts=COUNTS,
        best_gflops=2000.0,
    )


def measured_result(*rows):
    return Result(
        counts={row.subject.name: COUNTS for row in rows},
        kinds={row.subject.name: row.subject.kind for row in rows},
        rows=rows,
        machine={"processor": "a chip", "cores": 2, "threads": 2, "load_before": 0.1, "torch": "2", "python": "3"},
        problems=[],
    )


@pytest.fixture
def measure(monkeypatch):
    """Gives a function that puts rows in the place of a measurement, and returns what was asked for."""

    def put(*rows):
        asked = {}

        def instead(subjects, **options):
            asked.update(options, names=[subject.name for subject in subjects])
            return measured_result(*rows)

        monkeypatch.setattr(bench_file, "bench", instead)
        return asked

    return put


def test_bench_when_run_then_prints_tables_and_writes_json(tiny_checkpoint, tmp_path):
    out = tmp_path / "times.json"
    ended = run(tiny_checkpoint, "--rounds", 1, "--words", 5, "--batch-sizes", 2, "--threads", 1, "--json", out)
    assert ended.exit_code == 0, ended.output
    for word in ("parameters, M", "operations, G", "second phrase", "2 at once", "share", " 1 threads"):
        assert word in ended.stdout
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert stored["models"][0]["model"] == str(tiny_checkpoint)
    assert stored["times"][0]["rounds"] == 1
    assert list(tmp_path.iterdir()) == [out]


def test_bench_when_only_counted_then_no_times(small_mcn_encoder, small_mcn_fields):
    spec = ":".join(["mcn-tiny", "vocab_size=10", *(f"{name}={value}" for name, value in small_mcn_fields.items())])
    ended = run(spec, "--rounds", 0)
    assert ended.exit_code == 0, ended.output
    assert "operations, G" in ended.stdout
    assert "second phrase" not in ended.stdout


def test_bench_when_block_then_both_rows_of_table_v_in_both_precisions(measure):
    names = ("smcim-r50", "smcim-r50:interaction=encoder")
    asked = measure(*(measured_row(name, ms=ms) for name, ms in zip(names, (100.0, 125.0), strict=True)))
    ended = run("--block")
    assert ended.exit_code == 0, ended.output
    assert asked["names"] == list(names)
    assert asked["precisions"] == ("float32", "bfloat16")
    assert "float32: 1.250 times as fast (the paper: 1.245), the fusion alone 1.250 times" in ended.stdout
    assert "147.15 (-2.14 %)" in ended.stdout  # ours are 144 M
    assert "110.76 (+0.00 %)" in ended.stdout  # and 4 x 27.69 G


def test_bench_when_sizes_differ_from_the_papers_then_operations_stand_alone():
    result = measured_result(measured_row("mcn-vgg16"), measured_row("smcim-r101"))
    (rows,) = [rows for title, _, rows in tables(result) if title == "Beside the papers"]
    assert rows == [
        ["mcn-vgg16", "MCN Table 4", "144.00", "-", "110.76", "-", "20.8"],
        ["smcim-r101", "SMCIM section IV-C", "144.00", "-", "110.76", "-", "24.6"],
    ]


def test_tables_when_a_model_keeps_no_image_then_a_dash_for_the_second_phrase():
    result = measured_result(measured_row("a", second_ms=25.0), measured_row("b", ms=150.0))
    (rows,) = [rows for title, _, rows in tables(result) if title.startswith("Time")]
    assert rows == [
        ["a", "float32", "1.5", "300.0", "100.0", "100.0", "25.0", "25.0", "1.000", "1108 of 2000", "55 %"],
        ["b", "float32", "1.5", "300.0", "150.0", "150.0", "-", "-", "1.500", "738 of 2000", "37 %"],
    ]


def test_bench_when_plotted_then_points_without_accuracy_are_told(measure, tmp_path):
    measure(measured_row("a"), measured_row("b", ms=50.0))
    (tmp_path / "accuracy.json").write_text('{"a": 0.9, "c": 1}')
    ended = run("mcn-tiny", "--plot", tmp_path / "plot.png", "--accuracy", tmp_path / "accuracy.json")
    assert ended.exit_code == 0, ended.output
    assert "b is not plotted" in ended.stderr
    assert "a is not plotted" not in ended.stderr
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size == (960, 640)


def test_bench_when_no_accuracy_is_known_then_tables_but_no_plot(measure, tmp_path):
    measure(measured_row("a"))
    ended = run("mcn-tiny", "--plot", tmp_path / "plot.png")
    assert ended.exit_code == 1
    assert "give --accuracy" in ended.stderr
    assert "second phrase" in ended.stdout
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"scenes:val": {"acc@0.5": 0.9}, "other": {"acc@0.5": 0.1}}, ("scenes:val", {"m": 0.9})),
        ({"scenes:val": {"miou": 0.9}, "odd": 3, "other": {"acc@0.5": 0.1}}, ("other", {"m": 0.1})),
        ({"scenes:val": {"acc@0.5": "high"}, "more": {"acc@0.5": True}, "nan": {"acc@0.5": 7}}, ("", {})),
        ([1], ("", {})),
        (None, ("", {})),
    ],
)
def test_recorded_accuracy_when_a_checkpoint_says_then_the_first_data_set(metrics, expected, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"metrics": metrics}))
    result = measured_result(measured_row("m", kind="checkpoint", where=tmp_path), measured_row("preset"))
    assert recorded_accuracy(result) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"[1]", b"{}", b'{"a": "x"}', b'{"a": NaN}', b'{"a": 81}', b'{"a": true}', b"\xff", b"[" * 90000],
)
def test_read_accuracy_when_damaged_then_one_sentence(content, tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_bytes(content)
    assert_one_sentence(run("mcn-tiny", "--plot", tmp_path / "p.png", "--accuracy", path), "expected")


def test_read_accuracy_when_huge_or_missing_then_refused(tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_bytes(b" " * 1_000_001)
    with pytest.raises(ValueError, match="more than 1000000 bytes"):
        read_accuracy(path)
    with pytest.raises(FileNotFoundError, match="JSON file"):
        read_accuracy(tmp_path)


@pytest.mark.parametrize("text", ["", "0", "1,,2", "-1", "4097", "1.5", "²", "9" * 5000])
def test_parse_sizes_when_wrong_then_refused(text):
    with pytest.raises(ValueError, match="batch sizes from 1 to 4096"):
        parse_sizes(text)


def test_parse_sizes_when_given_then_in_their_order():
    assert parse_sizes("8, 1") == [8, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-like-it"], ["nothing-like-it", "mcn-tiny"]),
        (["mcn-tiny", "mcn-tiny"], ["twice"]),
        (["mcn-tiny:dim=-3"], ["dim", "-3"]),
        (["mcn-tiny", "--image-size", 100, "--rounds", 0], ["multiple of 32", "100"]),
        (["mcn-tiny", "--batch-sizes", "x"], ["batch sizes"]),
        (["mcn-tiny", "--json", "no/such/folder.json"], ["folder"]),
        (["mcn-tiny", "--plot", "plot.jpg"], [".png"]),
    ],
)
def test_bench_when_asked_wrongly_then_one_sentence(arguments, words):
    assert_one_sentence(run(*arguments), *words)


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "0", "--plot", "p.png"], ["--accuracy", "a.json"], ["--words", "0"], ["--precision", "int4"]],
)
def test_bench_when_options_contradict_then_wrong_usage(arguments):
    assert run("mcn-tiny", *arguments).exit_code == 2
