import pytest

from app.errors import FormError
from app.models.reference import HubFile, LocalFile, Tiny, parse, shards


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/models/m.gguf", LocalFile("/models/m.gguf")),
        ("./m.gguf", LocalFile("./m.gguf")),
        ("~/m.gguf", LocalFile("~/m.gguf")),
        ("m.gguf", LocalFile("m.gguf")),
        ("dir/m.gguf", LocalFile("dir/m.gguf")),
        ("org/repo/m.gguf", HubFile("org/repo", "m.gguf")),
        ("org/repo/a/b/m.Q4_K.gguf", HubFile("org/repo", "a/b/m.Q4_K.gguf")),
        ("", Tiny()),
    ],
)
def test_parse(text, expected):
    assert parse(text, offline=True) == expected


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "is empty"),
        ("org/repo", "does not end in .gguf"),
        ("org/repo/m.safetensors", "does not end in .gguf"),
        ("org/repo/../../etc/m.gguf", "neither"),
        ("org/repo//m.gguf", "neither"),
        ("https://huggingface.co/org/repo/m.gguf", "neither"),
        ("0123456789abcdef0123456789abcdef", "ClearML"),
    ],
)
def test_refused(text, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(text, offline=False)
    assert raised.value.field == "Model/model"


def test_shards_of_a_set():
    assert shards("d/m-00001-of-00003.gguf") == [f"d/m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert shards("d/m.gguf") == ["d/m.gguf"]


def test_another_part_than_the_first_is_refused_naming_the_first():
    with pytest.raises(FormError, match="m-00001-of-00003.gguf"):
        shards("m-00002-of-00003.gguf")
