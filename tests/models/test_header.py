import pytest

from app.models.header import Header


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
