import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import FormError
from app.models.reference import (
    BucketFile,
    ClearMLModel,
    HubFile,
    LocalFile,
    NamedModel,
    Tiny,
    WebFile,
    censored,
    choose,
    matches,
    parse,
    shards,
    shown,
    title,
)
from app.models.repository import of_repository


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
        ("hf://org/repo/m.gguf", HubFile("org/repo", "m.gguf")),
        ("org/repo", HubFile("org/repo")),
        ("org/repo@v1", HubFile("org/repo", "", "v1")),
        ("org/repo:Q4_K_M", HubFile("org/repo", kind="Q4_K_M")),
        ("hf://org/repo@v1:UD-Q4_K_XL", HubFile("org/repo", "", "v1", "UD-Q4_K_XL")),
        ("https://huggingface.co/org/repo", HubFile("org/repo")),
        ("https://hf.co/org/repo/", HubFile("org/repo")),
        ("https://a.example/m.gguf", WebFile("https://a.example/m.gguf")),
        ("http://a.example:8080/get?id=7", WebFile("http://a.example:8080/get?id=7")),
        (
            f"https://a.example/m.gguf#sha256={'A' * 64}",
            WebFile("https://a.example/m.gguf", "a" * 64),
        ),
        ("s3://bucket/dir/m.gguf", BucketFile("s3://bucket/dir/m.gguf")),
        ("gs://bucket/m.gguf", BucketFile("gs://bucket/m.gguf")),
        (
            "azure://account.blob.core.windows.net/container/m.gguf",
            BucketFile("azure://account.blob.core.windows.net/container/m.gguf"),
        ),
        ("clearml://project/sub/My Model", NamedModel("project/sub", "My Model")),
        ("/models", LocalFile("/models")),
    ],
)
def test_parse(text, expected):
    assert parse(text, trial=True) == expected


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "is empty"),
        ("repo", "neither"),
        ("org/repo/m.safetensors", "does not end in .gguf"),
        ("org/repo/../../etc/m.gguf", "neither"),
        ("org/repo//m.gguf", "neither"),
        ("org/repo@/m.gguf", "neither"),
        ("o*g/repo/m.gguf", "neither"),
        ("https://huggingface.co/org/repo/m.gguf", "no address of a GGUF file"),
        ("https://huggingface.co/org/repo/resolve/main/m.bin", "no address of a GGUF file"),
        ("org/repo:Q4_K_M/m.gguf", "names a quantization and a file"),
        ("org/repo:", "neither"),
        ("hf://m.gguf", "neither"),
        ("s3://bucket/m.bin", "does not end in .gguf"),
        ("s3://user:secret@host/bucket/m.gguf", "'s3://host/bucket/m.gguf': credentials belong"),
        ("clearml://name", "is not clearml://project/name"),
        ("ftp://a.example/m.gguf", "is no address"),
        ("file:///etc/passwd", "is no address"),
        ("https:///m.gguf", "is no address"),
        ("https://a:b:c/m.gguf", "is no address"),
        ("https://a.example/m.gguf#md5=1", "after # only sha256"),
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


FILES = [
    "README.md",
    "mmproj-F16.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-UD-Q4_K_M.gguf",
    "m-IQ2_XS.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
]


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_s", "m-Q4_K_S.gguf"),
        ("UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
        ("IQ2_XS", "m-IQ2_XS.gguf"),
        ("BF16", "BF16/m-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_quantization_names_a_file(kind, expected):
    assert of_repository("o/r", kind, FILES) == expected


def test_a_repository_with_one_model_needs_no_more():
    assert of_repository("o/r", "", ["mmproj.gguf", "m.gguf", "x.bin"]) == "m.gguf"


@pytest.mark.parametrize(
    "kind, files, problem",
    [
        ("Q4_K", FILES, r"o/r has no Q4_K: name one of o/r:Q4_K_[MS], "),
        ("", FILES, r"o/r has several models: name one of .*o/r:UD-Q4_K_M"),
        (
            "",
            ["a-Q8_0.gguf", "b-Q8_0.gguf"],
            "several models: name a file: o/r/a",
        ),
        (
            "Q8_0",
            ["a-Q8_0.gguf", "b-Q8_0.gguf"],
            "has 2 files of the quantization Q8_0: name",
        ),
        ("", ["a.gguf", "b.gguf"], "several models: name one of o/r/"),
        ("", ["x.bin", "mmproj.gguf"], "o/r has no GGUF file"),
        ("", [f"m-Q{n}_0.gguf" for n in range(30)], "and 18 more"),
    ],
)
def test_a_repository_offers_what_it_has(kind, files, problem):
    with pytest.raises(FormError, match=problem):
        of_repository("o/r", kind, files)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("https://u:p@a.example/dir/m%20x.gguf?token=s#sha256=", "m x"),
        ("s3://bucket/dir/m-00001-of-00002.gguf", "m"),
        ("hf://org/repo:Q8_0", "org/repo:Q8_0"),
        ("clearml://p/m", "p/m"),
        ("https://huggingface.co/org/repo", "huggingface.co/org/repo"),
    ],
)
def test_titles_of_addresses(text, expected):
    assert title(text) == expected


def test_what_may_be_secret_is_not_shown():
    assert shown("https://u:p@a.example:8/m.gguf?t=s#f") == "https://a.example:8/m.gguf"
    assert shown("org/repo/m.gguf") == "org/repo/m.gguf"
    told = "403 for url 'https://u:p@a.example/m?sig=s', see http://b.example?x"
    assert censored(told) == "403 for url 'https://a.example/m', see http://b.example"
    # What a server says may be long: to look through it takes no longer than to read it.
    long = "a" * 200_000
    assert censored(f"{long}://u:p@b.example/m?sig=s {long}") == f"{long}://b.example/m {long}"
    page = "https://huggingface.co/o/r/raw/main/m.bin?token=s3cr3t"
    for text in (page, "clearml://?s3cr3t", "https://user:a/s3cr3t@host/m.gguf"):
        with pytest.raises(FormError) as error:
            parse(text, trial=True)
        assert "s3cr3t" not in str(error.value)
    assert "s3cr3t" not in title(page)


@given(st.text(max_size=60) | st.text("htps3:/#?@.-ab%[]", max_size=40))
def test_any_text_is_a_reference_or_a_fault_of_the_field(text):
    try:
        parse(text, trial=True)
    except FormError as error:
        assert error.field == "Model/model"
    assert title(text) is not None and shown(text) is not None


@pytest.mark.parametrize("count", ["00000", "99999"])
def test_sets_that_cannot_be(count):
    with pytest.raises(FormError, match="a set of [0-9]+ parts; known are 1 to 1000"):
        shards(f"m-00001-of-{count}.gguf")
