import pytest

from app.errors import RequestError
from app.gateway.body.reading import Body, parse_json


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff\xfe{}", b"{}{}", b"[" * 200_000],
)
def test_what_is_no_json(body):
    with pytest.raises(RequestError) as raised:
        parse_json(body)
    assert raised.value.status == 400


def test_utf16_is_not_guessed():
    with pytest.raises(RequestError):
        parse_json('{"model": "a"}'.encode("utf-16"))


def test_a_body_is_an_object():
    with pytest.raises(RequestError, match="object"):
        parse_json(b"[]")


def test_a_body_asks_for_a_stream_only_by_true():
    assert Body(b"", {"stream": True}).streams
    assert not any(Body(b"", {"stream": wrong}).streams for wrong in (1, "true", None))
