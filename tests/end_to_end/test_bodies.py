"""What bodies say, against a real llama-server with a projector and a listener that counts.

One llama-server stands behind two fronts: one as it is by default, and one that allows remote
media, so that nothing but llama-server decides what is fetched.
"""

import asyncio
import json
import subprocess
import tempfile
from pathlib import Path

import pytest

from app.engine.capabilities import find
from app.gateway.admission import Keys
from app.gateway.rules import Rules
from app.models import tiny_writer
from tests import projector
from tests.end_to_end.conftest import PATIENCE
from tests.fakes import RawClient
from tests.gateway.front import Front, head

URL = "http://LISTENER/x.png"
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
IMAGE = {"type": "image_url", "image_url": {"url": URL}}
INPUT_IMAGE = {"type": "input_image", "image_url": URL}
SOURCE = {"type": "image", "source": {"type": "url", "url": URL}}
TEXT = {"type": "text", "text": "a"}


def user(*parts, **more):
    return {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": 1, **more}


def after(*history, **more):
    """A conversation with a history."""
    return {"messages": [*history, {"role": "user", "content": "a"}], "max_tokens": 1, **more}


def item(*parts, **more):
    return {"input": [{"role": "user", "content": list(parts), **more}], "max_output_tokens": 1}


def film(kind, key):
    return {"type": kind, kind: {key: URL}}


# Every way to a fetch that llama-server's source knows.
FETCHED = {
    "an image": (CHAT, user(TEXT, IMAGE)),
    "an image, the other path": ("/chat/completions", user(IMAGE)),
    "an image in a tool's answer": (CHAT, after({"role": "tool", "content": [IMAGE]})),
    "an image of the assistant": (CHAT, after({"role": "assistant", "content": [IMAGE]})),
    "a film's data": (CHAT, user(film("input_video", "data"))),
    "a film's url": (CHAT, user(film("input_video", "url"))),
    "a film by its url's data": (CHAT, user(film("video_url", "data"))),
    "a film by its url": (CHAT, user(film("video_url", "url"))),
    "a template": ("/apply-template", user(film("video_url", "data"))),
    "a count of tokens": ("/v1/chat/completions/input_tokens", user(IMAGE)),
    "an item": (RESPONSES, item(INPUT_IMAGE)),
    "an item, the other path": ("/responses", item(INPUT_IMAGE)),
    "an item's tokens": ("/v1/responses/input_tokens", item(INPUT_IMAGE)),
    "a tool's output": (
        RESPONSES,
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [INPUT_IMAGE]}]},
    ),
    "a body that claims to be a tool_use": (RESPONSES, {"type": "tool_use", **item(INPUT_IMAGE)}),
    "an item that claims to be a tool_use": (RESPONSES, item(INPUT_IMAGE, type="tool_use")),
    "a source": (MESSAGES, user(SOURCE)),
    "a source's tokens": ("/v1/messages/count_tokens", user(SOURCE)),
    "a tool's result": (
        MESSAGES,
        user({"type": "tool_result", "tool_use_id": "t", "content": [SOURCE]}),
    ),
    "embeddings of content": ("/embeddings", {"content": [{"content": [IMAGE]}]}),
    "embeddings of one content": ("/embedding", {"content": {"content": [IMAGE]}}),
    "embeddings of input": ("/v1/embeddings", {"input": [{"content": [IMAGE]}]}),
    "embeddings of what claims to be a tool_use": (
        "/embeddings",
        {"type": "tool_use", "input": [{"type": "tool_use", "content": [IMAGE]}]},
    ),
    "an image that claims to be a result": (
        CHAT,
        user({"type": "image_url", "image_url": {"type": "web_search_result", "url": URL}}),
    ),
    "embeddings of what claims to be a result": (
        "/embeddings",
        {"content": [{"type": "web_search_result", "content": [IMAGE]}]},
    ),
    "a film's embeddings": ("/embeddings", {"input": [{"content": [film("video_url", "url")]}]}),
}
# These look like it. The tiny projector hears nothing, so llama-server refuses its sounds unread.
NOT_FETCHED = {
    "a sound's data": (CHAT, user(film("input_audio", "data"))),
    "a sound's url": (CHAT, user(film("input_audio", "url"))),
    "a file": (RESPONSES, item({"type": "input_file", "file_url": URL})),
    "in capitals": (
        CHAT,
        user({"type": "image_url", "image_url": {"url": URL.replace("http", "HTTP")}}),
    ),
    "after a blank": (CHAT, user({"type": "image_url", "image_url": {"url": f" {URL}"}})),
}
TOOL = {"name": "f", "description": "d", "parameters": {"examples": [{"url": URL}]}}
SCHEMA = {"type": "object", "properties": {}, "examples": [{"url": URL, "image_url": URL}]}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {"url": URL, "image_url": URL}}
FOUND = {
    "type": "web_search_tool_result",
    "tool_use_id": "t",
    "content": [{"type": "web_search_result", "url": URL, "title": "t", "encrypted_content": "e"}],
}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}}
BROUGHT = {
    "type": "web_fetch_tool_result",
    "tool_use_id": "t",
    "content": {"type": "web_fetch_result", "url": URL, "content": DOCUMENT},
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"url": URL}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
CITED = {"type": "url_citation", "url_citation": {"url": URL}, "url": URL}
OUTPUT = {"type": "output_text", "text": "a", "annotations": [CITED]}
# What the front lets pass, because llama-server never fetches it.
EXEMPT = {
    "text": (CHAT, user({"type": "text", "text": URL})),
    "a prompt": ("/v1/completions", {"prompt": URL, "max_tokens": 1}),
    "an input": (RESPONSES, {"input": URL, "max_output_tokens": 1}),
    "tools": (CHAT, after(tools=[{"type": "function", "function": TOOL, "server_url": URL}])),
    "tools of Anthropic": (MESSAGES, after(tools=[{"name": "f", "input_schema": SCHEMA}])),
    "parameters": (CHAT, after(parameters={"url": URL})),
    "input_schema": (MESSAGES, after(input_schema=SCHEMA)),
    "a tool_use's input": (MESSAGES, after({"role": "assistant", "content": [USE]})),
    "a server_tool_use's input": (
        MESSAGES,
        after({"role": "assistant", "content": [TEXT, {**USE, "type": "server_tool_use"}]}),
    ),
    "an mcp_tool_use's input": (
        MESSAGES,
        after({"role": "assistant", "content": [TEXT, {**USE, "type": "mcp_tool_use"}]}),
    ),
    "what a web search found": (
        MESSAGES,
        after({"role": "assistant", "content": [TEXT, FOUND]}),
    ),
    "what a web fetch brought": (
        MESSAGES,
        after({"role": "assistant", "content": [TEXT, BROUGHT]}),
    ),
    "arguments": (CHAT, after({"role": "assistant", "content": "a", "tool_calls": [CALL]})),
    "annotations": (CHAT, after({"role": "assistant", "content": "a", "annotations": [CITED]})),
    "annotations of an item": (
        RESPONSES,
        {
            "input": [{"type": "message", "role": "assistant", "content": [OUTPUT]}],
            "max_output_tokens": 1,
        },
    ),
    "citations": (MESSAGES, user({**TEXT, "citations": [{"url": URL}]})),
    "metadata": (CHAT, after(metadata={"url": URL, "file": URL})),
    "metadata of Anthropic": (MESSAGES, after(metadata={"url": URL, "user_id": URL})),
    "mcp_servers": (MESSAGES, after(mcp_servers=[{"type": "url", "url": URL}])),
    "response_format": (CHAT, after(response_format=FORMAT)),
    "json_schema": (CHAT, after(json_schema=SCHEMA)),
    "schema": (
        RESPONSES,
        {"input": "a", "text": {"format": {"schema": SCHEMA}}, "max_output_tokens": 1},
    ),
    "chat_template_kwargs": (CHAT, after(chat_template_kwargs={"documents": [{"url": URL}]})),
    "action": (
        RESPONSES,
        {"input": [{"type": "web_search_call", "action": {"type": "open_page", "url": URL}}]},
    ),
}

# Bytes that llama-server itself answers with 500, or not as meant.
READ = {
    "half an emoji": (rb'{"prompt":"a\ud83d","n_predict":1}', 200),
    "the other half": (rb'{"prompt":"\ude00a","n_predict":1}', 200),
    "a byte order mark": (b'\xef\xbb\xbf{"prompt":"a","n_predict":1}', 200),
    "an integer of 300 digits": (b'{"prompt":"a","n_predict":1,"seed":%b}' % (b"9" * 300), 200),
    "an integer of 400 digits": (b'{"prompt":"a","n_predict":1,"seed":%b}' % (b"9" * 400), 400),
    "many values, in pieces": (b'{"prompt":"a","n_predict":1,"x":[%b0]}' % (b"1," * 700_000), 200),
    "an emoji in many values": (
        b'{"prompt":"a\\ud83d","n_predict":1,"x":[%b0]}' % (b"1," * 700_000),
        200,
    ),
    "a text that is too long": (b'{"prompt":"%b"}' % (b"word " * 300_000), 400),
    "1e999": (b'{"prompt":"a","n_predict":1,"temperature":1e999}', 400),
    "nested deeply": (b'{"prompt":"a","n_predict":1,"x":%b}' % (b"[" * 255 + b"]" * 255), 200),
    "too deeply": (b'{"prompt":"a","n_predict":1,"x":%b}' % (b"[" * 256 + b"]" * 256), 400),
}


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory):
    """The socket of one that sees and embeds."""
    folder = tmp_path_factory.mktemp("media")
    tiny_writer.write(folder / "tiny.gguf")
    projector.write(folder / "mmproj.gguf")
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as short:
        socket = Path(short) / "x.sock"
        arguments = ["-m", folder / "tiny.gguf", "--mmproj", folder / "mmproj.gguf", "-c", "2048"]
        arguments += ["--embeddings", "--pooling", "mean", "--no-warmup", "--host", socket]
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen([find("", {}), *arguments], stdout=log, stderr=log)
        try:
            asyncio.run(asyncio.wait_for(answers(socket), PATIENCE))
            yield socket
        finally:
            child.kill()
            child.wait()


async def answers(socket):
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(socket)
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            healthy = b" 200 " in await reader.readline()
            writer.close()
            if healthy:
                return
        except OSError:
            pass
        await asyncio.sleep(0.02)


async def ask(front, path, body):
    client = await RawClient.to(front.port)
    await client.send(head(path, length=len(body)) + body)
    status, _, answer = await asyncio.wait_for(client.response(), PATIENCE)
    await client.close()
    return status, answer


@pytest.fixture(scope="module")
def outcomes(llama_server):
    """Status and message of every case, and how many connections the listener got meanwhile, by
    whether remote media are allowed."""

    async def ask_all(*, allowed):
        front = Front(("tiny",), rules=Rules(Keys([]), allow_remote_media=allowed))
        found, hits = {}, []

        async def fetched(reader, writer):
            hits.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 404 None\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            writer.close()

        listener = await asyncio.start_server(fetched, "127.0.0.1", 0)
        address = "{}:{}".format(*listener.sockets[0].getsockname())
        async with listener, front.before(llama_server):
            for name, (path, body) in {**FETCHED, **NOT_FETCHED, **EXEMPT}.items():
                hits.clear()
                text = json.dumps(body).replace("LISTENER", address).encode()
                status, answer = await ask(front, path, text)
                found[name] = status, answer.decode(), len(hits)
        return found

    return {allowed: asyncio.run(ask_all(allowed=allowed)) for allowed in (False, True)}


@pytest.mark.parametrize("name", FETCHED)
def test_llama_server_fetches_it_and_the_front_refuses_it(outcomes, name):
    status, answer, hits = outcomes[False][name]
    assert (status, hits) == (400, 0) and "allow_remote_media" in answer
    assert outcomes[True][name][2] == 1, outcomes[True][name]


@pytest.mark.parametrize("name", NOT_FETCHED)
def test_what_another_llama_server_might_fetch_is_refused_too(outcomes, name):
    status, answer, hits = outcomes[False][name]
    assert (status, hits) == (400, 0) and "allow_remote_media" in answer
    assert outcomes[True][name][2] == 0


@pytest.mark.parametrize("name", EXEMPT)
def test_what_llama_server_never_fetches_reaches_it(outcomes, name):
    assert "allow_remote_media" not in outcomes[False][name][1]
    assert [outcomes[allowed][name][2] for allowed in (False, True)] == [0, 0]
    # llama-server took it all in; an `action` stands in items only that it does not know.
    assert outcomes[True][name][0] == (400 if name == "action" else 200)


def test_json_that_llama_server_reads_otherwise(llama_server):
    async def ask_all():
        front = Front(("tiny",))
        async with front.before(llama_server):
            return {name: await ask(front, "/completion", body) for name, (body, _) in READ.items()}

    found = asyncio.run(ask_all())
    assert {name: found[name][0] for name in READ} == {name: READ[name][1] for name in READ}
