import json

import pytest

from app.gateway.upstream_error import shaped


def test_an_error_that_has_the_shape_is_left_as_it_is():
    theirs = b'{"error":{"code":400,"message":"no","type":"invalid_request_error"}}'
    assert shaped(400, theirs) is theirs


@pytest.mark.parametrize(
    "said, told",
    [
        ("Start it with `--embeddings`", " (here that is the field Model/embedding)"),
        ("Start it with `--no-such-option`", ""),
    ],
)
def test_an_option_that_a_field_sets_is_named_by_it_too(said, told):
    theirs = {"code": 501, "message": said, "type": "not_supported_error"}
    body = shaped(501, json.dumps({"error": theirs}).encode())
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
    error = json.loads(shaped(status, body))["error"]
    assert error["code"] == status and words in error["message"]
    assert error["type"] == ("server_error" if status >= 500 else error["type"])
    assert "param" in error and len(error["message"]) < 3000
