import pytest

from app.models.header import MOST_LAYERS, NUMBERS, Header, HeaderError


def header(architecture, **own):
    keys = {f"{architecture}.{key.replace('__', '.')}": value for key, value in own.items()}
    return Header({"general.architecture": architecture, **keys}, (), 0)


@pytest.mark.parametrize(
    "architecture, size, windowed",
    [
        ("gemma3", 1024, True),
        ("gemma3", None, False),
        ("gpt-oss", 128, True),
        ("lfm2", None, False),
        ("llama", 0, False),
        ("llama4", None, True),
        ("llama4", 0, False),
        ("phi3", 2047, False),
    ],
)
def test_a_sliding_window_is_what_the_file_says_and_llama_cpp_makes_use_of(
    architecture, size, windowed
):
    own = {} if size is None else {"attention__sliding_window": size}
    assert header(architecture, **own).sliding_window is windowed


def test_a_model_is_causal_unless_its_file_says_otherwise():
    assert header("llama").causal and header("llama", attention__causal=True).causal
    assert not header("nomic-bert", attention__causal=False).causal


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize(
    "value", ["2", -1, True, 1.0, float("nan"), float("inf"), 1 << 32, (1 << 64) - 1, ["2"], [[2]]]
)
def test_what_is_computed_with_is_a_number_within_bounds(key, value):
    made = header("llama", **{key: value})
    with pytest.raises(HeaderError, match=f"llama.{key} is no number from 0 to"):
        made.check()


def test_no_model_has_more_layers_than_can_be():
    header("llama", block_count=MOST_LAYERS).check()
    with pytest.raises(HeaderError, match="llama.block_count"):
        header("llama", block_count=MOST_LAYERS + 1).check()


def test_an_architecture_is_text():
    with pytest.raises(HeaderError, match="general.architecture is no text"):
        Header({"general.architecture": ["llama"]}, (), 0).check()


@pytest.mark.parametrize(
    "kv_heads, bytes_",
    [(None, 10 * 4 * 32 * 2), (2, 10 * 2 * 32 * 2), (0, 10 * 4 * 32 * 2), ([1, 0, 2], 3 * 32 * 2)],
)
def test_a_tokens_kv_cache_is_that_of_all_layers(kv_heads, bytes_):
    own = {} if kv_heads is None else {"attention__head_count_kv": kv_heads}
    made = header("llama", block_count=10, attention__head_count=4, embedding_length=64, **own)
    assert made.kv_bytes == bytes_


def test_the_heads_of_each_layer_may_be_a_list():
    own = {"attention__head_count": [4, 2, 4], "attention__head_count_kv": [2, 1, 2]}
    made = header("openelm", block_count=3, embedding_length=64, **own)
    assert made.kv_bytes == 5 * 32 * 2
