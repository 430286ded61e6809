import json

import pytest

from app.gateway.upstream_error import shaped


def test_an_error_that_has_the_shape_is_left_as_it_is():
    theirs = b'{"error":{"code":400,"message":"no","type":"invalid_request_error"}}'
    assert shaped(400, theirs) == (400, theirs)


@pytest.mark.parametrize(
    "said, told",
    [
        ("Start it with `--embeddings`", " (here that is the field Model/embedding)"),
        ("Start it with `--reranking`", " (here that goes into the field Model/extra_args)"),
        ("Start it with `--no-such-option`", ""),
    ],
)
def test_an_option_that_a_field_sets_is_named_by_it_too(said, told):
    theirs = {"code": 501, "message": said, "type": "not_supported_error"}
    _, body = shaped(501, json.dumps({"error": theirs}).encode())
    assert json.loads(body) == {"error": {**theirs, "message": said + told}}


@pytest.mark.parametrize(
    "status, body, words",
    [
        (400, b"", "a form or an Accept header"),
        (413, b" ", "413 (Request Entity Too Large)"),
        (599, b"", "599 (unknown)"),
        (500, b"std::bad_alloc", "llama-server answered: std::bad_alloc"),
        (404, b"<html>\xff", "<html>"),
        (500, b'{"error":"text"}', "text"),
        (500, b'{"error":{"message":"told","type":null}}', "told"),
        (500, b'{"error":{"message":1,"type":"x"}}', "message"),
        (500, b"[" * 99999, "[[["),
        (500, b"[1]", "[1]"),
        (500, b"x" * 9999, "xxx"),
    ],
)
def test_another_one_is_given_it(status, body, words):
    error = json.loads(shaped(status, body)[1])["error"]
    assert error["code"] == status and words in error["message"]
    assert error["type"] == ("server_error" if status >= 500 else error["type"])
    assert "param" in error and len(error["message"]) < 3000


@pytest.mark.parametrize(
    "message, status, code",
    [
        ("input (7500 tokens) is too large to process. increase the physical batch size (current "
         "batch size: 4096)", 400, "context_length_exceeded"),
        ("[json.exception.type_error.302] type must be string, but is number", 400, 400),
        ("[json.exception.out_of_range.403] key 'input_suffix' not found", 400, 400),
        ("Failed to parse messages: Missing 'role' in message", 400, 400),
        ("Unknown reasoning format: x", 400, 400),
        ("vector::_M_default_append", 400, 400),
        ('"prompt" elements must be a string, a list of tokens', 400, 400),
        ("'messages' is required", 400, 400),
        ("image input is not supported - hint: if this is unexpected", 501, 501),
        ("Compute error.", 500, 500),
        ("Context size has been exceeded.", 500, 500),
        ("got exception: anything", 500, 500),
        ("decode() failed: Unknown", 500, 500),
        ("Failed to parse input at pos 3", 500, 500),
        ("[json.exception.type_error.316] invalid UTF-8 byte", 500, 500),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [False, True])
def test_what_is_wrong_with_the_request_is_no_fault_of_the_server(message, status, code, named):
    body = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}})
    found, told = shaped(500, body.encode(), named=named)
    error = json.loads(told)["error"]
    assert (found, error["code"]) == (status, code)
    assert error["type"] == ("invalid_request_error" if status == 400 else "server_error")
    assert error["message"] == message or (code != status and "7500" in error["message"])
    assert shaped(503, body.encode())[0] == 503  # what it says with another status is meant so
