import time

import pytest

from app.errors import RequestError, for_callers


def test_request_errors_have_openais_types():
    types = {s: RequestError(s, "x").type for s in (400, 401, 404, 413, 429, 500, 502, 503)}
    assert types == {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        413: "invalid_request_error",
        429: "rate_limit_error",
        500: "server_error",
        502: "server_error",
        503: "unavailable_error",
    }


@pytest.mark.parametrize(
    "text, told",
    [
        ("/home/ann/secret/m.gguf: corrupt", "m.gguf: corrupt"),
        ("/home/ann smith/my models/m.gguf: cannot be read: no", "m.gguf: cannot be read: no"),
        (
            "llama-server said: cannot open '/a/b c/m.gguf'",
            "llama-server said: cannot open 'm.gguf'",
        ),
        ("~/m.gguf is missing", "m.gguf is missing"),
        (
            "/x/bin/llama-server cannot be run: too many files",
            "llama-server cannot be run: too many files",
        ),
        (
            "https://hub/a/m.gguf: status 404 (s3://b/c/d)",
            "https://hub/a/m.gguf: status 404 (s3://b/c/d)",
        ),
        ("model:/home/ann/m.gguf and file:///home/ann/n.gguf", "model:m.gguf and file://n.gguf"),
        ("../ann/m.gguf", "m.gguf"),
        ("./m.gguf", "m.gguf"),
        ("org/repo/m.gguf has 2/3 parts", "org/repo/m.gguf has 2/3 parts"),
        ("GPU 0 / GPU 1: 3 GB", "GPU 0 / GPU 1: 3 GB"),
    ],
)
def test_callers_are_told_no_folders(text, told):
    assert for_callers(text) == told


def test_a_hostile_text_is_read_in_no_time():
    begun = time.process_time()
    for text in (
        "/",
        "/a",
        "~",
        "/ ",
        " /",
        "~/",
        "./",
        "/a ",
        "//a",
        "/a:",
        "file://",
        "file:///",
    ):
        for_callers(text * (100_000 // len(text)) + ":")
    assert time.process_time() - begun < 1
