import copyreg
import os
import pickle
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deixis.data.formats import pickles
from deixis.data.formats.pickles import load_refs, read_pickle

REFS = [
    {
        "ref_id": 5,
        "split": "train",
        "sentences": [{"sent": "left dog", "tokens": ["left", "dog"], "raw": "Left 'dog'\\\n\t\"!\"", "sent_id": 0}],
        "sent_ids": [0],
        "odd": (1, (2.5, None), True, -1, 2**40, 70000, 300, "", (), {}, [], "dög ↔", False, -(2**62), 1e300),
    },
    {7: ["left"], "inf": float("inf")},
]


@pytest.mark.parametrize("protocol", range(6))
def test_read_pickle_when_the_values_are_plain_then_they_are_those_of_pickle(protocol):
    assert read_pickle(pickle.dumps(REFS, protocol=protocol), "x") == REFS


def test_read_pickle_when_python_2_wrote_protocol_2_then_its_strings_are_text():
    # [{'sent': 'left caf\xe9', u'raw': u'\u2194'}] as cPickle writes it, and 'sent' again from the memo
    data = b"\x80\x02]q\x01}q\x02(U\x04sentq\x03U\x09left caf\xe9q\x04"
    data += b"X\x03\x00\x00\x00rawX\x03\x00\x00\x00\xe2\x86\x94uah\x03a."
    assert read_pickle(data, "x") == [{"sent": "left café", "raw": "↔"}, "sent"]


def test_read_pickle_when_python_2_wrote_protocol_0_then_its_strings_are_text():
    data = b"(lp1\n(dp2\nS'sent'\np3\nS\"man's caf\\xc3\\xa9\\n\\\\\"\np4\nsS'id'\nL12L\nsS'ok'\nI01\nsS'x'\nF1.5\nsa."
    assert read_pickle(data, "x") == [{"sent": "man's café\n\\", "id": 12, "ok": True, "x": 1.5}]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"caf\xc3\xa9", "café"),  # UTF-8 where it is UTF-8
        (b"caf\xe9", "café"),  # else Latin-1
        (b"\xff\xfe", "ÿþ"),
        (b"plain", "plain"),
    ],
)
@pytest.mark.parametrize("opcode", [b"T", b"U", b"B", b"C"])
def test_read_pickle_when_a_byte_string_comes_then_utf_8_or_latin_1(opcode, raw, text):
    length = struct.pack("<I", len(raw)) if opcode in b"TB" else bytes([len(raw)])
    assert read_pickle(opcode + length + raw + b".", "x") == text


class Calls:
    """Runs a command when a careless reader loads it."""

    def __reduce__(self):
        return os.system, ("touch owned",)


class Slotted:
    def __init__(self):
        self.x = 1


GLOBAL = b"cos\nsystem\n(S'touch owned'\ntR."


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (GLOBAL, "'os.system'"),
        (b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00id\x85R.", "'posix.system'"),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x85R.", "'os.system'"),
        (b"(S'id'\nios\nsystem\n.", "'os.system'"),
        (b"(c__builtin__\neval\nS'1'\no.", "'__builtin__.eval'"),
        (b"(S'os'\nS'id'\no.", "a call (OBJ"),
        (b"S'os'\n(tR.", "a call (REDUCE"),
        (b"}}b.", "an object's state to be set (BUILD"),
        (b"])\x81.", "a call (NEWOBJ"),
        (b"])}\x92.", "a call (NEWOBJ_EX"),
        (b"\x82\x01.", "a class registered with copyreg (EXT1"),
        (b"\x83\x01\x00.", "a class registered with copyreg (EXT2"),
        (b"\x84\x01\x00\x00\x00.", "a class registered with copyreg (EXT4"),
        (b"Pfile:///etc\n.", "an object kept outside the file (PERSID"),
        (b"S'a'\nQ.", "an object kept outside the file (BINPERSID"),
        (b"\x97.", "an object kept outside the file (NEXT_BUFFER"),
        (b"\x8f.", "a set (EMPTY_SET"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f", "a bytearray (BYTEARRAY8"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "bytes (BINBYTES8"),
        (b"(lp0\n(dp1\nS'sentences'\n(l(d" + GLOBAL, "'os.system'"),
        (pickle.dumps({1}, protocol=2), "set'"),
        (pickle.dumps(Slotted.__init__.__code__.co_code, protocol=2), "'_codecs.encode'"),
        *((pickle.dumps([{"a": [Calls()]}], protocol=p), f"'{os.system.__module__}.system'") for p in range(6)),
        *((pickle.dumps([Slotted()], protocol=p), "Slotted'") for p in (2, 4)),
        (pickle.dumps(Slotted(), protocol=0), "'copy_reg._reconstructor'"),
    ],
)  # fmt: skip
def test_read_pickle_when_it_asks_for_more_than_data_then_refused_by_name(data, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"expected only lists, dicts, text and numbers in 'refs\.p'") as caught:
        read_pickle(data, "refs.p")
    assert wanted in str(caught.value)
    assert "which was not done" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert list(tmp_path.iterdir()) == []


def test_read_pickle_when_a_class_is_registered_with_copyreg_then_refused():
    copyreg.add_extension(__name__, "Slotted", 240)
    try:
        with pytest.raises(ValueError, match="a class registered with copyreg"):
            read_pickle(b"\x80\x02\x82\xf0)\x81.", "x")
    finally:
        copyreg.remove_extension(__name__, "Slotted", 240)


@pytest.mark.parametrize("protocol", range(6))
def test_read_pickle_when_cut_anywhere_then_one_sentence(protocol):
    whole = pickle.dumps([{"sent": "left dog", "tokens": ["left"], "x": 2.5, "n": 2**40}], protocol=protocol)
    for end in range(len(whole)):
        with pytest.raises(ValueError, match=r"expected a (whole )?pickle in 'x', got .*get (the file|it) again"):
            read_pickle(whole[:end], "x")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<!DOCTYPE html><html>", "is no opcode"),
        (b"version https://git-lfs", "is no opcode"),
        (b"N." + b"x" * 20, "20 more bytes follow its end"),
        (b"h\x05.", "5"),  # never stored
        (b"a", "pop from empty list"),
        (b"\x80\x09", "protocol: 9"),
        (b"}Na", "append"),
        (b"]NNs", "a NoneType as key"),
        (b"})s", "a dict as key"),
        (b"}))s", "a tuple as key"),
        (b"}NNs", "a NoneType as key"),
        (b"(NNd", "a NoneType as key"),
        (b"}(NNu", "a NoneType as key"),
        (b"I" + b"9" * 5000 + b"\n", "Exceeds the limit"),
        (b"Snone\n", "quote"),
        (b"Fone\n", "could not convert"),
    ],
)
def test_read_pickle_when_it_is_broken_then_the_reason(data, why):
    with pytest.raises(ValueError, match=r"expected a (whole )?pickle in 'x', got .*again"):
        read_pickle(data, "x")
    with pytest.raises(ValueError, match=why):
        read_pickle(data, "x")


@pytest.mark.parametrize(
    "data",
    [
        b"T\xff\xff\xff\x7f" + b"a" * 20,  # texts of two gigabytes and more
        b"T\xff\xff\xff\xff" + b"a" * 20,
        b"X\xff\xff\xff\xff" + b"a" * 20,
        b"B\xff\xff\xff\xff" + b"a" * 20,
        b"\x8d" + b"\xff" * 8 + b"a" * 20,
    ],
)
def test_read_pickle_when_a_length_is_huge_then_refused_without_memory(data):
    with pytest.raises(ValueError, match="again"):
        read_pickle(data, "x")


def test_read_pickle_when_a_memo_index_is_huge_then_no_memory_is_taken_for_it():
    assert read_pickle(b"Nr\xff\xff\xff\xffp9999999999999\n.", "x") is None


def test_read_pickle_when_nested_deep_then_it_is_read():
    value = read_pickle(b"(" * 50_000 + b"l" * 50_000 + b".", "x")
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 49_999


def test_read_pickle_when_tuples_double_through_the_memo_then_no_key_may_be_one():
    # (((), ()), ((), ())) sixty times over: to hash it would take 2**60 steps
    laughs = b"})" + b"2\x86" * 60 + b"Ns."
    with pytest.raises(ValueError, match="a tuple as key"):
        read_pickle(laughs + b" " * 20, "x")


def test_read_pickle_when_there_are_too_many_opcodes_then_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 10)
    assert read_pickle(b"N" + b"N0" * 4 + b".", "x") is None
    with pytest.raises(ValueError, match="more than 10 opcodes"):
        read_pickle(b"N" + b"N0" * 5 + b".", "x")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 5), st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
@example(0, [(0, 0)])
def test_read_pickle_when_bytes_are_changed_then_data_or_one_sentence(protocol, changes):
    data = bytearray(pickle.dumps(REFS, protocol=protocol))
    for place, byte in changes:
        data[place % len(data)] = byte
    try:
        read_pickle(bytes(data), "x")
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60))
def test_read_pickle_when_any_bytes_come_then_data_or_one_sentence(data):
    try:
        read_pickle(data, "x")
    except ValueError as error:
        assert str(error).startswith("expected ")  # noqa: PT017


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner) | st.tuples(inner, inner),
        max_leaves=12,
    ),
    st.integers(0, 5),
)
def test_read_pickle_when_plain_values_are_pickled_then_they_come_back(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol=protocol), "x") == value


def test_load_refs_when_the_file_is_right_then_its_records(tmp_path):
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(REFS, protocol=2))
    assert load_refs(path) == load_refs(str(path)) == REFS


def test_load_refs_when_it_is_another_thing_then_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "refs(unc).p"
    with pytest.raises(FileNotFoundError, match="which is no file; check the path"):
        load_refs(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"expected a list of referents .* got dict"):
        load_refs(path)
    path.write_bytes(pickle.dumps([{}, 3]))
    with pytest.raises(ValueError, match=r"expected a dict as each referent .* got int at place 1"):
        load_refs(path)
    monkeypatch.setattr(pickles, "MAX_BYTES", 5)
    with pytest.raises(ValueError, match="expected at most 5 bytes"):
        load_refs(path)
