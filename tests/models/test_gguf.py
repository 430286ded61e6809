import struct

import pytest

from app.errors import TransferError
from app.models import tiny_writer
from app.models.gguf import read_header, verify
from app.models.header import HeaderError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tiny_writer.write(path)
    return path.read_bytes()


def header_of(data):
    return read_header(lambda offset, size: data[offset : offset + size], len(data))


def test_what_is_in_the_file(whole):
    header = header_of(whole)
    assert header.architecture == "llama"
    assert header.training_context == 4096
    assert header.pooling is None
    assert header.meta == {
        "n_ctx_train": 4096,
        "n_embd": 128,
        "n_params": 483968,  # these two as llama-server counts them
        "size": 969216,
    }
    assert len(header.metadata["tokenizer.ggml.tokens"]) == 352
    assert {t.name for t in header.tensors} >= {"token_embd.weight", "blk.1.ffn_up.weight"}
    embedding = next(t for t in header.tensors if t.name == "token_embd.weight")
    assert embedding.size == 352 * 128 * 2


def without(header, *keys):
    return {key: value for key, value in header.metadata.items() if key not in keys}


def test_a_window_smaller_than_the_header(whole, monkeypatch):
    expected = header_of(whole)
    for window in (1, 8, 9, 64, 1000):
        monkeypatch.setattr("app.models.gguf.WINDOW", window)
        assert header_of(whole) == expected


@pytest.fixture
def walked_over(monkeypatch):
    """Of every list, all but four entries are walked over, as those of a vocabulary are."""
    monkeypatch.setattr("app.models.gguf.MAX_KEPT_ARRAY", 4)


LISTS = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"


@pytest.mark.parametrize("window", [1, 8, 9, 64, 1000, 1 << 20])
def test_behind_a_list_that_is_walked_over_all_is_read(whole, monkeypatch, window):
    expected = header_of(whole)
    monkeypatch.setattr("app.models.gguf.MAX_KEPT_ARRAY", 4)
    monkeypatch.setattr("app.models.gguf.WINDOW", window)
    found = header_of(whole)
    assert without(found, *LISTS) == without(expected, *LISTS)
    assert (found.tensors, found.data_offset) == (expected.tensors, expected.data_offset)
    for key in LISTS:
        assert found.metadata[key] == expected.metadata[key][:4]


def test_a_list_that_is_walked_over_and_cut_off_is_found(whole, walked_over):
    begin = whole.index(b"tokenizer.ggml.tokens")
    end = whole.index(b"tokenizer.ggml.token_type")
    for size in range(begin + 40, end, 7):
        with pytest.raises(HeaderError, match="cut off"):
            header_of(whole[:size])


def test_a_string_in_a_list_that_is_walked_over_is_bounded(whole, walked_over):
    word = "\u0120model".encode()
    at = whole.index(struct.pack("<Q", len(word)) + word)
    data = whole[:at] + struct.pack("<Q", 1 << 60) + whole[at + 8 :]
    with pytest.raises(HeaderError, match="a string of 1152921504606846976 bytes"):
        header_of(data)


@pytest.mark.usefixtures("walked_over")
def test_random_damage_of_what_is_walked_over_never_raises_anything_else(whole):
    test_random_damage_never_raises_anything_else(whole)


def test_a_file_cut_anywhere_is_found(whole, tmp_path):
    path = tmp_path / "cut.gguf"
    for size in [0, 3, 10, 100, 5000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(TransferError, match="cut.gguf: corrupt or incomplete"):
            verify([path])


@pytest.mark.parametrize(
    "change, problem",
    [
        pytest.param((0, b"GGML"), "not a GGUF file", id="magic"),
        pytest.param((4, struct.pack("<I", 9)), "version 9", id="version"),
        pytest.param((8, struct.pack("<Q", 1 << 60)), "cannot be", id="tensor-count"),
        pytest.param((16, struct.pack("<Q", 1 << 60)), "cannot be", id="key-count"),
        pytest.param((24, struct.pack("<Q", 1 << 60)), "a string of", id="string-length"),
    ],
)
def test_a_header_that_lies_is_bounded(whole, change, problem):
    offset, replacement = change
    data = whole[:offset] + replacement + whole[offset + len(replacement) :]
    with pytest.raises(HeaderError, match=problem):
        header_of(data)


def test_random_damage_never_raises_anything_else(whole):
    head = whole[:20_000]
    for position in range(0, len(head), 37):
        data = bytearray(head)
        data[position] ^= 0xFF
        try:
            read_header(lambda o, n, d=bytes(data): d[o : o + n], len(whole))
        except HeaderError:
            continue


def test_a_split_set(tmp_path):
    tiny_writer.write(tmp_path / "m.gguf", shard_tensors=8)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) == 3
    assert verify(parts).shard_count == 3
    with pytest.raises(TransferError, match="part 0 .* of 3"):
        verify(parts[:1])
    with pytest.raises(TransferError, match="stands as part 0 of 3"):
        verify([parts[1], parts[0], parts[2]])


def test_a_missing_file(tmp_path):
    with pytest.raises(TransferError, match="cannot be read"):
        verify([tmp_path / "none.gguf"])


def test_numbers_that_cannot_be_are_refused_before_anything_computes_with_them(whole, tmp_path):
    key = b"llama.block_count"
    at = whole.index(key) + len(key) + 4  # after the value's type
    path = tmp_path / "m.gguf"
    path.write_bytes(whole[:at] + struct.pack("<I", (1 << 32) - 1) + whole[at + 4 :])
    with pytest.raises(TransferError, match="m.gguf: corrupt or incomplete: llama.block_count"):
        verify([path])


def test_a_big_endian_file_is_told(whole):
    with pytest.raises(HeaderError, match="a big-endian GGUF file"):
        header_of(whole[:4] + whole[4:8][::-1] + whole[8:])
