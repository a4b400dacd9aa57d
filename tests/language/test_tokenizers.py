import numpy as np
import pytest

from deixis.language.tokenizers import WordPieceTokenizer, WordTokenizer


@pytest.fixture
def pieces(bert_folder):
    # ids: [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, left 4, right 5, dog 6, cat 7, red 8, the 9, on 10, ball 11, ##s 12
    return WordPieceTokenizer(bert_folder / "tokenizer.json", max_tokens=6)


@pytest.fixture
def whole():
    return WordTokenizer(["left", "dog", "2"], max_tokens=4)


def test_pieces_when_encoded_then_wrapped_lower_cased_split_and_padded(pieces):
    ids, valid = pieces.encode(["Left DOGS", "zebra"])
    np.testing.assert_array_equal(ids, [[2, 4, 6, 12, 3], [2, 1, 3, 0, 0]])
    np.testing.assert_array_equal(valid, [[True] * 5, [True, True, True, False, False]])
    assert (ids.dtype, valid.dtype) == (np.int64, np.bool_)


def test_pieces_when_phrase_is_long_then_cut_and_still_closed(pieces):
    ids, _ = pieces.encode(["the red dog on the left ball"])
    np.testing.assert_array_equal(ids, [[2, 9, 8, 6, 10, 3]])


@pytest.mark.parametrize("phrase", ["", " ", "日本語", "💡", "\x00", "\u200b", "a" * 1000, "left\tdog\nred"])
def test_tokenizers_when_phrase_is_odd_then_ids_in_range(pieces, whole, phrase):
    for tokenizer in (pieces, whole):
        ids, valid = tokenizer.encode([phrase])
        assert valid.any()
        assert ids.min() >= 0
        assert ids.max() < tokenizer.vocab_size


def test_pieces_when_saved_and_read_then_the_same_ids(pieces, tmp_path):
    pieces.save(tmp_path)
    again = WordPieceTokenizer(tmp_path / "tokenizer.json", max_tokens=6)
    assert again.vocab_size == pieces.vocab_size == 13
    np.testing.assert_array_equal(again.encode(["red ball"])[0], pieces.encode(["red ball"])[0])


def test_whole_when_encoded_then_known_unknown_and_padding(whole):
    ids, valid = whole.encode(["LEFT-dog, 2!", "the dog", "???"])
    np.testing.assert_array_equal(ids, [[2, 3, 4], [1, 3, 0], [1, 0, 0]])
    np.testing.assert_array_equal(valid, [[True] * 3, [True, True, False], [True, False, False]])


def test_whole_when_phrase_is_long_then_cut(whole):
    assert whole.encode(["dog dog dog dog dog dog"])[0].shape == (1, 4)


def test_whole_when_saved_and_read_then_equal(whole, tmp_path):
    whole.save(tmp_path)
    again = WordTokenizer.read(tmp_path / "vocab.txt", max_tokens=4)
    assert again.words == whole.words
    assert again.vocab_size == 5


def test_tokenizers_when_batched_then_rows_equal_singles(pieces, whole):
    phrases = ["left dog", "red", "the cat on the left"]
    for tokenizer in (pieces, whole):
        ids, valid = tokenizer.encode(phrases)
        for row, mask, phrase in zip(ids, valid, phrases, strict=True):
            np.testing.assert_array_equal(row[mask], tokenizer.encode([phrase])[0][0])


@pytest.mark.parametrize(
    ("read", "name"),
    [(WordPieceTokenizer, "tokenizer.json"), (WordTokenizer.read, "vocab.txt")],
    ids=["pieces", "words"],
)
def test_read_when_file_is_missing_or_damaged_then_one_sentence_with_its_name(read, name, tmp_path):
    with pytest.raises(FileNotFoundError, match=name):
        read(tmp_path / name, max_tokens=4)
    (tmp_path / name).write_bytes(b'{"version": \xff\xfe')
    with pytest.raises(ValueError, match=f"expected .*{name}"):
        read(tmp_path / name, max_tokens=4)
