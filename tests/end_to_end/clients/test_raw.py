"""What reads a stream by itself: requests, httpx, aiohttp, urllib, curl; plain and compressed.

Libraries are imported where they are used: one process runs these tests, several collect them.
"""

import asyncio
import gzip
import json
import subprocess
import urllib.request

import pytest
import requests

from tests.end_to_end.clients.conftest import KEY
from tests.end_to_end.conftest import PATIENCE

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
JSON = {**AUTHORIZED, "Content-Type": "application/json"}
BODY = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 5,
    "stream": True,
}


def by_requests(url):
    given = {"json": BODY, "headers": AUTHORIZED, "timeout": PATIENCE}
    with requests.post(url, stream=True, **given) as answer:
        answer.raise_for_status()
        return list(answer.iter_lines(decode_unicode=True))


def by_httpx(url):
    import httpx

    given = {"json": BODY, "headers": AUTHORIZED, "timeout": PATIENCE}
    with httpx.stream("POST", url, **given) as answer:
        return list(answer.raise_for_status().iter_lines())


def by_async_httpx(url):
    import httpx

    async def lines():
        given = {"json": BODY, "headers": AUTHORIZED, "timeout": PATIENCE}
        async with httpx.AsyncClient() as client, client.stream("POST", url, **given) as answer:
            return [line async for line in answer.raise_for_status().aiter_lines()]

    return asyncio.run(lines())


def by_aiohttp(url):
    import aiohttp

    async def lines():
        async with aiohttp.ClientSession(headers=AUTHORIZED) as client:
            async with client.post(url, json=BODY, raise_for_status=True) as answer:
                return [line.decode().strip() async for line in answer.content]

    return asyncio.run(lines())


def by_aiohttp_in_chunks(url):
    """A body whose length it does not tell."""
    import aiohttp

    async def pieces():
        for byte in json.dumps(BODY).encode():
            yield bytes([byte])

    async def lines():
        async with aiohttp.ClientSession(headers=JSON) as client:
            async with client.post(url, data=pieces(), raise_for_status=True) as answer:
                return [line.decode().strip() async for line in answer.content]

    return asyncio.run(lines())


def by_urllib(url, body=None, headers=JSON):
    request = urllib.request.Request(url, body or json.dumps(BODY).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return [line.decode().strip() for line in answer]


def by_urllib_in_gzip(url):
    body = gzip.compress(json.dumps(BODY).encode())
    return by_urllib(url, body, {**JSON, "Content-Encoding": "gzip"})


def by_curl(url):
    headers = [word for name, value in JSON.items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sSfN", "--compressed", *headers, "-d", json.dumps(BODY), url]
    return subprocess.check_output(command, text=True, timeout=PATIENCE).splitlines()


def by_curl_that_asks_first(url):
    """`Expect: 100-continue`, as it does where a body is large."""
    headers = {**JSON, "Expect": "100-continue"}.items()
    words = [word for name, value in headers for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sSfN", *words, "-d", json.dumps(BODY), url]
    return subprocess.check_output(command, text=True, timeout=PATIENCE).splitlines()


@pytest.mark.parametrize(
    "read",
    [
        by_requests,
        by_httpx,
        by_async_httpx,
        by_aiohttp,
        by_aiohttp_in_chunks,
        by_urllib,
        by_urllib_in_gzip,
        by_curl,
        by_curl_that_asks_first,
    ],
    ids=lambda read: read.__name__,
)
def test_a_stream_is_read(app, read):
    lines = read(f"{app.url}/v1/chat/completions")
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert told.pop() == "[DONE]"
    choices = [choice for event in told for choice in json.loads(event)["choices"]]
    assert sum(bool(choice["delta"].get("content")) for choice in choices) == 5
    assert choices[-1]["finish_reason"] == "length"
