import json
import math
from functools import partial

import ijson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deixis.data.formats import json_stream
from deixis.data.formats.json_stream import stream_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def gather(path):
    """What the elements say, put together again."""
    found = {}
    for key, number, value in stream_json(path):
        if number is None:
            found[key] = value
        else:
            assert number == len(found.setdefault(key, []))
            found[key].append(value)
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(st.text(min_size=1, max_size=4), VALUES, max_size=4), st.integers(1, 9), st.sampled_from([None, 2])
)
def test_stream_json_when_read_in_small_pieces_then_the_same_document(tmp_path_factory, document, chunk, indent):
    path = tmp_path_factory.getbasetemp() / "stream.json"
    path.write_text(json.dumps(document, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream.ijson, "basic_parse", partial(ijson.basic_parse, buf_size=chunk))
        assert gather(path) == document


@pytest.mark.parametrize(("text", "found"), [("[]", {"": []}), ("[1, [2]]", {"": [1, [2]]}), ("{}", {})])
def test_stream_json_when_a_list_then_its_elements_under_no_key(tmp_path, text, found):
    (tmp_path / "a.json").write_text("\ufeff " + text, encoding="utf-8")
    assert gather(tmp_path / "a.json") == found


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "premature EOF"),
        (b"3", "3, no list and no object"),
        (b"[1, 2", "premature EOF"),
        (b'{"a": [1', "premature EOF"),
        (b'{"a" 1}', "separated by a colon"),
        (b"{3: 1}", "invalid object key"),
        (b"[1] 2", "trailing garbage"),
        (b"[1 2]", "after array element"),
        (b"[nothing]", "invalid string"),
        (b'["\xff"]', "invalid bytes in UTF8"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" + b"9" * 5000 + b"]", "integer overflow"),
    ],
)
def test_stream_json_when_it_is_no_json_then_one_sentence(tmp_path, content, why):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="expected JSON in ") as caught:
        list(stream_json(tmp_path / "a.json"))
    assert why in str(caught.value)


def test_stream_json_when_there_is_no_file_then_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is no file"):
        list(stream_json(tmp_path / "none.json"))


def test_stream_json_when_numbers_are_such_as_python_alone_writes_then_all_elements(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [{"area": 1.5}, {"area": NaN}, {"area": 18446744073709551616}, {"area": 2}]}')
    areas = [element.value["area"] for element in stream_json(path)]
    assert areas[0] == 1.5
    assert math.isnan(areas[1])
    assert areas[2:] == [2**64, 2]
