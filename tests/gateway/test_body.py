import pytest

from app.errors import RequestError
from app.gateway.body import Body, parse_json, refuse_remote_media

IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "URL"}}]}]
ANTHROPIC = [{"role": "user", "content": [{"source": {"type": "url", "url": "URL"}}]}]
RESPONSES = [{"content": [{"type": "input_image", "image_url": "URL"}]}]


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


def filled(template, url):
    if isinstance(template, list):
        return [filled(item, url) for item in template]
    if isinstance(template, dict):
        return {key: filled(value, url) for key, value in template.items()}
    return url if template == "URL" else template


@pytest.mark.parametrize("key, template", [("messages", IMAGE), ("messages", ANTHROPIC)])
@pytest.mark.parametrize("url", ["http://h/x.png", " HTTPS://h", "file:///etc/passwd", "ftp://h"])
def test_remote_media_are_refused(key, template, url):
    body = {key: filled(template, url)}
    with pytest.raises(RequestError, match="allow_remote_media"):
        refuse_remote_media(body)


def test_remote_media_of_the_responses_api():
    with pytest.raises(RequestError):
        refuse_remote_media({"input": filled(RESPONSES, "http://h/x")})


@pytest.mark.parametrize(
    "body",
    [
        {"messages": filled(IMAGE, "data:image/png;base64,AAAA")},
        {"messages": [{"role": "user", "content": "see http://example.org"}]},
        {"messages": [], "tools": [{"url": "http://h"}]},
        {"input": "http://h"},
    ],
)
def test_what_fetches_nothing_passes(body):
    refuse_remote_media(body)


def test_a_body_is_an_object():
    with pytest.raises(RequestError, match="object"):
        parse_json(b"[]")


def test_a_body_asks_for_a_stream_only_by_true():
    assert Body(b"", {"stream": True}).streams
    assert not any(Body(b"", {"stream": wrong}).streams for wrong in (1, "true", None))
