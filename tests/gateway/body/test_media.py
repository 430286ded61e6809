import pytest

from app.errors import RequestError
from app.gateway.body.media import media_in, refuse_remote

U = "http://h/x"


def refuse_remote_media(fields):
    refuse_remote(media_in(fields))


def message(*parts, **more):
    return {"messages": [{"role": "user", "content": list(parts), **more}]}


@pytest.mark.parametrize("url", [U, " HTTPS://h", "\tHttp://h", "file:///etc/passwd", "ftp://h"])
def test_every_url_that_a_fetcher_takes_is_refused(url):
    with pytest.raises(RequestError, match="allow_remote_media"):
        refuse_remote_media(message({"type": "image_url", "image_url": {"url": url}}))


@pytest.mark.parametrize("key", ["url", "data", "image_url", "new_url", "file", "file_data"])
@pytest.mark.parametrize("depth", [0, 1, 7])
def test_any_key_that_names_media_at_any_depth(key, depth):
    body = {key: U}
    for _ in range(depth):
        body = {"anything": [[body]]}
    with pytest.raises(RequestError):
        refuse_remote_media(body)


def test_a_list_of_urls():
    with pytest.raises(RequestError):
        refuse_remote_media(message({"type": "image_url", "image_url": {"url": ["data:", U]}}))


def test_a_body_that_claims_to_be_a_tool_use():
    part = {"type": "input_image", "image_url": U}
    with pytest.raises(RequestError):
        refuse_remote_media({"type": "tool_use", "input": [{"role": "user", "content": [part]}]})


@pytest.mark.parametrize(
    "body",
    [
        message({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}),
        message({"type": "input_audio", "input_audio": {"data": "AAAA"}}),
        message({"type": "text", "text": U}),
        {"messages": [{"role": "user", "content": U}]},
        {"messages": [], "tools": [{"type": "mcp", "server_url": U}]},
        message({"type": "tool_use", "input": {"url": U}}),
        message({"type": "server_tool_use", "name": "web_fetch", "input": {"url": U}}),
        message(tool_calls=[{"function": {"arguments": {"url": U}}}]),
        message(annotations=[{"url_citation": {"url": U}}]),
        {"prompt": "a", "metadata": {"url": U}},
        {"input": U},
        {"prompt": U, "url": {"not": "a string"}, "data": 1, "file": None},
    ],
)
def test_what_fetches_nothing_passes(body):
    refuse_remote_media(body)
