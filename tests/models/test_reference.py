import pytest

from app.errors import FormError
from app.models.reference import (
    ClearMLModel,
    HubFile,
    LocalFile,
    Tiny,
    choose,
    matches,
    parse,
    shards,
    title,
)


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
        ("org/repo@v1.2/m.gguf", HubFile("org/repo", "m.gguf", "v1.2")),
        ("org/repo/L*.gguf", HubFile("org/repo", "L*.gguf")),
        ("0123456789abcdef0123456789abcdef", ClearMLModel("0123456789abcdef0123456789abcdef")),
        ("", Tiny()),
    ],
)
def test_parse(text, expected):
    assert parse(text, trial=True) == expected


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "is empty"),
        ("org/repo", "does not end in .gguf"),
        ("org/repo/m.safetensors", "does not end in .gguf"),
        ("org/repo/../../etc/m.gguf", "neither"),
        ("org/repo//m.gguf", "neither"),
        ("org/repo@/m.gguf", "neither"),
        ("o*g/repo/m.gguf", "neither"),
        ("https://huggingface.co/org/repo/m.gguf", "no address of a GGUF file"),
        ("https://example.org/org/repo/resolve/main/m.gguf", "no address of a GGUF file"),
        ("https://huggingface.co/org/repo/resolve/main/m.bin", "no address of a GGUF file"),
    ],
)
def test_refused(text, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(text, trial=False)
    assert raised.value.field == "Model/model"


def test_shards_of_a_set():
    assert shards("d/m-00001-of-00003.gguf") == [f"d/m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert shards("d/m.gguf") == ["d/m.gguf"]


def test_another_part_than_the_first_is_refused_naming_the_first():
    with pytest.raises(FormError, match="m-00001-of-00003.gguf"):
        shards("m-00002-of-00003.gguf")


@pytest.mark.parametrize(
    "file, expected",
    [
        (HubFile("o/r", "m.gguf"), [("main", "m.gguf")]),
        (HubFile("o/r", "v1/m.gguf"), [("main", "v1/m.gguf"), ("v1", "m.gguf")]),
        (HubFile("o/r", "*/m.gguf"), [("main", "*/m.gguf")]),
        (HubFile("o/r", "a/m.gguf", "v2"), [("v2", "a/m.gguf")]),
    ],
)
def test_where_a_hub_file_may_be(file, expected):
    assert file.meanings() == expected


SET = ["d/L-00001-of-00002.gguf", "d/L-00002-of-00002.gguf"]


@pytest.mark.parametrize(
    "pattern, paths, expected",
    [
        ("d/L*.gguf", [*SET, "d/mmproj.gguf"], SET[0]),
        ("d/L*-of-00002.gguf", SET[::-1], SET[0]),
        ("d/*.gguf", ["d/one.gguf", "e/two.gguf", "d/e/three.gguf"], "d/one.gguf"),
    ],
)
def test_a_glob_is_one_file_or_one_set(pattern, paths, expected):
    assert choose(pattern, paths) == expected


@pytest.mark.parametrize(
    "paths, problem",
    [
        ([], "matches no file"),
        (["d/a.gguf", "d/b.gguf"], "matches d/a.gguf, d/b.gguf"),
        ([*SET, "d/a.gguf"], "must match one file"),
        (SET[1:], "a set without d/L-00001-of-00002.gguf"),
        ([*SET, "d/M-00001-of-00001.gguf"], "must match one file"),
    ],
)
def test_a_glob_that_is_not(paths, problem):
    with pytest.raises(FormError, match=problem):
        choose("d/*.gguf", paths)


def test_no_star_reaches_over_a_slash():
    assert matches("a/*/c", "a/b/c") and not matches("a/*", "a/b/c")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("/models/a/b.Q4_0.gguf", "b.Q4_0"),
        ("~/my-00001-of-00003.gguf", "my"),
        ("tiny.gguf", "tiny"),
        ("folder/tiny.gguf", "tiny"),
        ("org/repo/b.gguf", "org/repo/b.gguf"),
        ("0" * 32, "0" * 32),
        ("", ""),
    ],
)
def test_a_file_on_this_machine_is_called_by_its_own_name(text, expected):
    assert title(text) == expected
