import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.models.weights import word_vectors
from deixis.models.weights.word_vectors import read_glove_table, read_word_vectors

TEXT = "the 0.5 -1 2e-1\n, .25 3. +4\n"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder that is taken where none is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "deixis"


@pytest.fixture
def write(tmp_path, cache):
    """A function that writes a text file of vectors."""

    def write(text, name="glove.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def parsed(monkeypatch):
    """The paths that were parsed rather than taken from the cache."""
    paths = []
    parse = word_vectors._parse

    def watched(path, progress):
        paths.append(path.name)
        return parse(path, progress)

    monkeypatch.setattr(word_vectors, "_parse", watched)
    return paths


def assert_one_sentence(caught, *words):
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    for word in words:
        assert word in text


def assert_texts_vectors(read):
    assert read.words == ["the", ","]
    np.testing.assert_array_equal(read.vectors, np.array([[0.5, -1, 0.2], [0.25, 3, 4]], np.float32))


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        TEXT.rstrip("\n"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace(" ", "\t"),
        "2 3\n" + TEXT,
        "2 3\n" + TEXT.replace("\n", " \n"),
    ],
    ids=["GloVe", "no last break", "Windows", "tabs", "header", "fastText"],
)
def test_read_when_text_is_of_a_known_form_then_words_and_vectors(write, text):
    read = read_word_vectors(write(text))
    assert_texts_vectors(read)
    assert read.rows == {"the": 0, ",": 1}
    assert isinstance(read.vectors, np.memmap)
    assert read.vectors.dtype == np.float32


@pytest.mark.parametrize("width", [50, 100, 200, 300])
def test_read_when_file_has_glove_width_then_every_number_has_its_place(write, width):
    lines = [f"w{row} " + " ".join(str(row * width + i) for i in range(width)) for row in range(3)]
    read = read_word_vectors(write("\n".join(lines)))
    np.testing.assert_array_equal(read.vectors, np.arange(3 * width).reshape(3, width))


def test_read_when_words_hold_spaces_or_stranger_signs_then_they_are_kept(write):
    words = [". . .", "at name@domain.com", "a\u00a0b", "\u0085", "\u2028", "3", "1 1/2", "nan", "ü"]
    path = write("".join(f"{word} {row} 0.5\n" for row, word in enumerate(words)))
    for _ in range(2):  # from the text, then from the cache
        read = read_word_vectors(path)
        assert read.words == words
        assert read.vectors[:, 0].tolist() == list(range(len(words)))


def test_read_when_bytes_are_no_utf8_then_the_word_alone_suffers(write):
    assert read_word_vectors(write(b"a\xff 1\nb 2\n")).words == ["a\ufffd", "b"]


def test_rows_when_a_word_stands_twice_then_the_first_counts(write):
    assert read_word_vectors(write("a 1\nb 2\na 3\n")).rows == {"a": 0, "b": 1}


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs", "Nd")), min_size=1, max_size=8),
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_read_when_any_vectors_were_written_then_they_come_back_twice(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("vectors")
    text = "".join(f"{word} {' '.join(repr(v) for v in values)}\n" for word, values in rows)
    (folder / "v.txt").write_bytes(text.encode())
    for _ in range(2):
        read = read_word_vectors(folder / "v.txt", folder / "cache")
        assert read.words == [word for word, _ in rows]
        np.testing.assert_array_equal(read.vectors, np.array([values for _, values in rows], np.float32))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a 1 2 3\nb 1 2\n", ("3 finite numbers in line 2", "got 2")),
        ("a 1 2 3\nb 1 2 3\nc 1", ("line 3", "got 1", "torn")),
        ("a 1 2 3\nb 1 2 3\nc 1 2 0.3e-", ("line 3",)),
        ("a 1 2 3\nb 1 2 3 4\n", ("line 2", "got 4")),
        ("a 1 2 3\nb 1 two 3\n", ("line 2", "got 1")),
        ("a 1 2 3\n\nb 1 2 3\n", ("line 2", "got 0")),
        ("a 1 2 3\nb 1 nan 3\nc 1 2 3\n", ("line 2", "finite")),
        ("a 1 inf 3\nb 1 2 3\n", ("line 1", "finite")),
        ("a 1 2 3\nb 1 1e60 3\n", ("line 2", "finite")),
        ("a 1 2 3\nb 1 2 3\0\0\0\0", ("line 2",)),
        ("2 3\na 1 2 3\nb 1 2\n", ("line 3", "got 2")),
        ("a 1 2 3 4 5 6 7 8 9 0\nb", ("line 2", "got 0")),
        ("3 3\na 1 2 3\nb 1 2 3\n", ("3 lines", "got 2 lines")),
        ("0 3\n", ("0 lines",)),
        ("2 0\na\nb\n", ("2 lines of 0",)),
        ("", ("line 1",)),
        ("once upon a time\n", ("line 1", "unpacked")),
        (b"PK\x03\x04\x14\x00\n\n\x00", ("line 1", "unpacked")),
    ],
    ids=[
        "narrow", "torn line", "torn number", "wide", "letters", "blank", "nan", "inf", "overflow", "zeroed", "header",
        "short file", "torn file", "no words", "no width", "empty", "prose", "zip",
    ],
)  # fmt: skip
def test_read_when_text_is_wrong_then_one_sentence_with_the_line_and_no_cache(write, cache, text, words):
    path = write(text)
    with pytest.raises(ValueError, match=r"glove\.txt") as caught:
        read_word_vectors(path)
    assert_one_sentence(caught, *words)
    assert len(str(caught.value)) < 300 + len(str(path))
    assert not cache.exists()


def test_read_when_a_line_has_no_end_then_refused_without_reading_it_whole(write, monkeypatch):
    monkeypatch.setattr(word_vectors, "_LONGEST_LINE", 40)
    with pytest.raises(ValueError, match="line 2 ") as caught:
        read_word_vectors(write("a 1 2 3\nb " + "x " * 100 + "1 2 3\n"))
    assert_one_sentence(caught)


def test_read_when_file_shrinks_meanwhile_then_one_sentence(write, monkeypatch):
    monkeypatch.setattr(word_vectors, "_count_lines", lambda path: 3)
    with pytest.raises(ValueError, match=r"3 lines .* got 2"):
        read_word_vectors(write(TEXT))


@pytest.mark.parametrize("name", ["missing.txt", "missing/glove.txt"])
def test_read_when_file_is_missing_then_one_sentence(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"\.txt") as caught:
        read_word_vectors(tmp_path / name)
    assert_one_sentence(caught)


def test_cache_when_read_again_then_nothing_is_parsed(write, cache, parsed):
    path = write(TEXT)
    for _ in range(3):
        assert_texts_vectors(read_word_vectors(str(path)))
    assert parsed == ["glove.txt"]
    assert sorted(file.suffix for file in cache.iterdir()) == [".npy", ".txt"]


def test_cache_when_folder_is_named_then_written_there_alone(write, cache, tmp_path):
    read_word_vectors(write(TEXT), tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 2
    assert not cache.exists()


def test_cache_when_variable_is_unset_then_below_home(write, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(word_vectors.Path, "home", lambda: tmp_path / "home")
    read_word_vectors(write(TEXT))
    assert len(list((tmp_path / "home" / ".cache" / "deixis").iterdir())) == 2


def test_cache_when_there_is_no_home_then_parsed_each_time(write, parsed, monkeypatch):
    def homeless():
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(word_vectors.Path, "home", homeless)
    for _ in range(2):
        assert_texts_vectors(read_word_vectors(write(TEXT)))
    assert len(parsed) == 2


@pytest.mark.parametrize("what", ["size", "time"])
def test_cache_when_file_changes_then_read_anew_and_the_stale_copy_goes(write, cache, parsed, what):
    path = write(TEXT)
    read_word_vectors(path)
    before = path.stat()
    write("longer 1 2 3 4\n" if what == "size" else TEXT.replace("the", "der"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (what == "time")))
    assert read_word_vectors(path).words[0] == ("longer" if what == "size" else "der")
    assert len(parsed) == 2
    assert len(list(cache.iterdir())) == 2


def test_cache_when_two_files_are_read_then_both_keep_theirs(write, cache, parsed):
    one, two = write(TEXT), write(TEXT.replace("the", "der"), "german.txt")
    for _ in range(2):
        assert (read_word_vectors(one).words[0], read_word_vectors(two).words[0]) == ("the", "der")
    assert len(parsed) == 2


def damage_header(file):
    file.write_bytes(file.read_bytes().replace(b"'descr'", b"'d\0'cr("))


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".npy", lambda file: file.write_bytes(b"")),
        (".npy", lambda file: file.write_bytes(file.read_bytes()[:-1])),
        (".npy", lambda file: file.write_bytes(file.read_bytes() + b"\0")),
        (".npy", damage_header),
        (".npy", lambda file: np.save(file, np.zeros((2, 3)))),
        (".npy", lambda file: np.save(file, np.zeros(2, np.float32))),
        (".npy", lambda file: np.save(file, np.array([[{}]] * 2), allow_pickle=True)),
        (".npy", lambda file: file.unlink()),
        (".txt", lambda file: file.write_bytes(b"the")),
        (".txt", lambda file: file.write_bytes(b"\xff\n,")),
        (".txt", lambda file: file.unlink()),
    ],
    ids=["empty", "torn", "long", "header", "float64", "flat", "pickle", "no array", "few", "no text", "no words"],
)
def test_cache_when_damaged_then_built_again(write, cache, parsed, suffix, damage):
    path = write(TEXT)
    read_word_vectors(path)
    damage(next(cache.glob(f"*{suffix}")))
    assert_texts_vectors(read_word_vectors(path))
    assert_texts_vectors(read_word_vectors(path))
    assert len(parsed) == 2


def test_cache_when_it_cannot_be_written_then_the_vectors_come_all_the_same(write, tmp_path, parsed):
    (tmp_path / "cache").write_bytes(b"a file where the folder would be")
    for _ in range(2):
        assert_texts_vectors(read_word_vectors(write(TEXT)))
    assert len(parsed) == 2


def test_cache_when_the_disk_is_full_then_no_half_file_stays(write, cache, parsed, monkeypatch):
    def full(file, array, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(word_vectors.np, "save", full)
    assert_texts_vectors(read_word_vectors(write(TEXT)))
    assert [file.suffix for file in cache.iterdir()] == [".txt"]
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    assert isinstance(read_word_vectors(write(TEXT)).vectors, np.memmap)


def test_progress_when_text_is_parsed_then_thousands_are_told_and_from_the_cache_nothing(write):
    path = write("".join(f"w{i} 1\n" for i in range(2001)))
    told = []
    for _ in range(2):
        assert len(read_word_vectors(path, progress=lambda *now: told.append(now)).words) == 2001
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.fixture
def packaged(tmp_path):
    """A function that writes the packaged table's two files."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(vectors, **columns):
        np.save(tmp_path / "glove_6B_50d_emb.npy", vectors, allow_pickle=True)
        parquet.write_table(pa.table(columns), tmp_path / "glove_6B_index.parquet")
        return tmp_path

    return write


VECTORS = np.arange(150, dtype=np.float32).reshape(3, 50)


@pytest.mark.parametrize(
    "columns",
    [{"word": ["b", "c", "a"], "row": [1, 2, 0]}, {"row": [1, 2, 0], "word": ["b", "c", "a"]}, {"index": [*"abc"]}],
    ids=["shuffled", "row first", "words alone"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_packaged_when_read_then_word_and_row_meet(packaged, columns, order):
    folder = packaged(np.asarray(VECTORS, order=order), **columns)
    words, vectors = read_glove_table(folder)
    assert words == ["a", "b", "c"]
    np.testing.assert_array_equal(vectors, VECTORS)
    read = read_word_vectors(str(folder))
    assert read.rows == {"a": 0, "b": 1, "c": 2}
    assert isinstance(read.vectors, np.memmap)


@pytest.mark.parametrize(
    ("vectors", "columns"),
    [
        (VECTORS, {"word": ["a", "b"]}),
        (VECTORS, {"word": ["a", "b", "c"], "row": [0, 1, 3]}),
        (VECTORS, {"word": ["a", "b", "c"], "row": [0, 1, 1]}),
        (VECTORS, {"word": ["a", "b", None]}),
        (VECTORS, {"row": [0, 1, 2]}),
        (VECTORS.astype(np.float64), {"word": ["a", "b", "c"]}),
        (VECTORS[0], {"word": ["a"] * 50}),
        (np.where(VECTORS == 7, np.nan, VECTORS), {"word": ["a", "b", "c"]}),
        (np.array([[{}]] * 3), {"word": ["a", "b", "c"]}),
    ],
    ids=["few words", "row beyond", "row twice", "no word", "no words", "float64", "flat", "nan", "pickle"],
)
def test_packaged_when_files_do_not_fit_then_one_sentence(packaged, vectors, columns):
    with pytest.raises(ValueError, match=r"glove_6B_") as caught:
        read_word_vectors(packaged(vectors, **columns))
    assert_one_sentence(caught, "fetch")


@pytest.mark.parametrize("name", ["glove_6B_50d_emb.npy", "glove_6B_index.parquet"])
def test_packaged_when_a_file_is_damaged_or_missing_then_one_sentence_names_it(packaged, name):
    folder = packaged(VECTORS, word=["a", "b", "c"])
    (folder / name).write_bytes((folder / name).read_bytes()[:70])
    with pytest.raises(ValueError, match=name) as caught:
        read_word_vectors(folder)
    assert_one_sentence(caught)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name) as caught:
        read_word_vectors(folder)
    assert_one_sentence(caught)


def test_packaged_when_folder_is_of_something_else_then_both_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"parquet and glove_6B_50d_emb\.npy"):
        read_word_vectors(tmp_path)
