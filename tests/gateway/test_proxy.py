"""The whole way of a request, with a real front, pool and client, and a scripted child."""

import asyncio
import contextlib
import json
import time

import pytest

from app.engine.http import Address, Client
from app.errors import RequestError
from app.gateway import waiting
from app.gateway.admission import Keys
from app.gateway.pages import admin
from app.gateway.pages.status import pages
from app.gateway.proxy import Proxy, Rules
from app.gateway.relay import request_headers, response_headers
from app.memory.ledger import Model, ModelState, Tier
from app.memory.pool import Pool
from app.telemetry.overview import Details, Overview, Phase
from app.telemetry.samples import Tokens
from tests.fakes import Child, RawClient, body_of, reply, serving, until

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
EVENTS = CHUNKED + b"content-type: text/event-stream\r\n\r\n"


class Running:
    """A server that is always up."""

    progress = None

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.may_start = asyncio.Event()
        self.may_start.set()

    async def start(self):
        await self.may_start.wait()

    def measured(self):
        return {}

    def parks(self):
        return 0

    async def leave(self):
        return Tier.DISK

    async def stop(self):
        if not self.ended.done():
            self.ended.set_result(0)

    async def exited(self):
        return await asyncio.shield(self.ended)

    def explain(self, code):
        return f"ended with {code}"


class Front:
    """A front before one child for every named model."""

    def __init__(self, names, limit=None, rules=None):
        self.names, self.samples, self.servers = names, [], {}
        self.pool = Pool([Model(n, limit=limit) for n in names], {"d": 1}, time.monotonic)
        details = {name: Details() for name in names}
        seen = (lambda: [], self.pool.view, lambda: (1, 2))
        overview = Overview("0", details, None, 60, *seen, Phase.SERVING)
        rules = rules or Rules(Keys([]))
        ours = pages(overview) | admin.pages(self.pool, rules.keys)
        self.proxy = Proxy(self.pool, names, rules, ours, self.samples.append)

    @contextlib.asynccontextmanager
    async def before(self, socket):
        client = Client(Address(str(socket)), "child-key")
        for name in self.names:
            self.servers[name] = Running()
            self.pool.provide(name, self.servers[name], client, {})
        async with serving(self.proxy) as self.port:
            yield
        await self.pool.close()
        client.close()

    async def ask(self, path="/tiny/v1/completions", body=b"{}", **options):
        client = await self.begin(path, body, **options)
        return await client.response()

    async def begin(self, path="/tiny/v1/completions", body=b"{}", headers=b"", host="127.0.0.1"):
        client = await RawClient.to(self.port)
        await client.send(head(path, headers, host, len(body)) + body)
        return client

    async def look(self, path, headers=b"", host="127.0.0.1", method="GET"):
        client = await RawClient.to(self.port)
        await client.send(head(path, headers, host, method=method))
        return await client.response()


def head(path, headers=b"", host="localhost", length=0, method="POST"):
    line = f"{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n"
    return line.encode() + headers + b"\r\n"


async def echo(reader, writer, head):
    writer.write(reply(await body_of(reader, head)))


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "x.sock"


def test_by_path_and_by_the_bodys_model(run, socket):
    async def scenario():
        front = Front(("tiny", "other"))
        async with Child(socket, echo) as child, front.before(socket):
            assert (await front.ask(body=b'{"a":1}'))[2] == b'{"a":1}'
            named = b'{"model":"other"}'
            assert (await front.ask("/service/x/v1/chat/completions?q=1", named))[2] == named
            assert child.heads[0].startswith("POST /v1/completions HTTP/1.1")
            assert child.heads[1].startswith("POST /v1/chat/completions?q=1 HTTP/1.1")
            assert [sample.model for sample in front.samples] == ["tiny", "other"]

    run(scenario)


@pytest.mark.parametrize(
    "path, body, status",
    [
        ("/tiny/v1/completions", b"{nope", 400),
        ("/v1/completions", b"{nope", 400),
        ("/v1/completions", b'{"model":"gpt"}', 404),
        ("/gpt/v1/completions", b"{}", 404),
        ("/v1/completions", b"{}", 400),
        ("/tiny/v1/completions", b"[]", 400),
        ("/tiny/nothing", b"{}", 404),
    ],
)
def test_what_is_refused_never_reaches_the_child(run, socket, path, body, status):
    async def scenario():
        front = Front(("tiny", "other"))
        async with Child(socket, echo) as child, front.before(socket):
            found, headers, answer = await front.ask(path, body)
            assert found == status and json.loads(answer)["error"]["message"]
            assert "connection" not in headers  # the connection can be used again
            assert child.heads == [] and front.pool.view()[0].admitted == 0

    run(scenario)


def test_the_callers_keys_stay_here_and_the_childs_is_put_in(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["mine"])))
        headers = (
            b"authorization: Bearer mine\r\nx-conversation-id: 1\r\ncookie: c\r\norigin: o\r\n"
            b"accept-encoding: gzip\r\nconnection: x-hop\r\nx-hop: 1\r\nx-kept: 1\r\n"
        )
        async with Child(socket, echo) as child, front.before(socket):
            assert (await front.ask())[0] == 401
            assert (await front.ask("/gpt/v1/completions"))[0] == 401  # and names no model
            assert child.heads == []
            assert (await front.ask(headers=headers))[0] == 200
            head = child.heads[0].lower()
            assert "authorization: bearer child-key" in head and "x-kept: 1" in head
            for gone in ("mine", "conversation", "cookie", "origin", "encoding", "x-hop"):
                assert gone not in head

    run(scenario)


def test_what_exceeds_the_limit_is_429_with_retry_after(run, socket):
    async def scenario():
        go_on = asyncio.Event()

        async def slow(reader, writer, head):
            await body_of(reader, head)
            await go_on.wait()
            writer.write(reply(b"{}"))

        front = Front(("tiny",), limit=2)
        async with Child(socket, slow), front.before(socket):
            running = [await front.begin() for _ in range(2)]
            await until(lambda: front.pool.view()[0].admitted == 2)
            for path in ("/tiny/v1/completions", "/v1/completions"):
                status, headers, _ = await front.ask(path)
                assert (status, headers["retry-after"]) == (429, "1")
            go_on.set()
            assert [(await client.response())[0] for client in running] == [200, 200]
            assert (await front.ask())[0] == 200
            view = front.pool.view()[0]
            assert (view.requests, view.denied, view.admitted) == (3, 2, 0)

    run(scenario)


def test_who_sends_slowly_takes_nobodys_place(run, socket):
    async def scenario():
        front = Front(("tiny",), limit=1)
        async with Child(socket, echo), front.before(socket):
            slow = await RawClient.to(front.port)
            await slow.send(head("/tiny/v1/completions", length=2) + b"{")
            await asyncio.sleep(0.05)
            assert (await front.ask())[0] == 200
            await slow.send(b"}")
            assert (await slow.response())[0] == 200

    run(scenario)


def test_a_json_body_is_called_json(run, socket):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            await front.ask(headers=b"content-type: application/x-www-form-urlencoded\r\n")
            assert child.heads[0].lower().count("content-type: ") == 1
            assert "content-type: application/json" in child.heads[0].lower()

    run(scenario)


def test_a_stream_passes_through_as_it_comes(run, socket):
    async def scenario():
        go_on = asyncio.Event()

        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n")
            await writer.drain()
            await go_on.wait()
            timings = b'data: {"timings":{"cache_n":1,"prompt_n":2,"predicted_n":3}}\n\n'
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(timings), timings))

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin()
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"x-accel-buffering: no" in head and b"transfer-encoding: chunked" in head
            assert await client.reader.readline() == b"9\r\n"
            assert front.pool.view()[0].leased == 1  # to the last byte
            go_on.set()
            rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert b"timings" in rest
            await until(lambda: front.samples)
            (sample,) = front.samples
            assert sample.tokens == Tokens(prompt=3, cached=1, generated=3)
            assert 0 < sample.first_token <= sample.latency
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_a_stream_that_breaks_off_ends_with_an_error_event(run, socket):
    async def breaking(reader, writer, head):
        await body_of(reader, head)
        writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n")
        await writer.drain()
        writer.close()

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, breaking), front.before(socket):
            client = await front.begin()
            status, _, body = await client.response()
            *_, last = [line for line in body.decode().split("\n") if line]
            assert status == 200 and last.startswith("data: ")
            assert json.loads(last[6:])["error"]["type"] == "server_error"
            assert await client.rest() == b""  # and closed
            assert front.samples[0].status == 502

    run(scenario)


def test_another_body_that_breaks_off_breaks_off_at_the_client_too(run, socket):
    async def breaking(reader, writer, head):
        await body_of(reader, head)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        writer.close()

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, breaking), front.before(socket):
            client = await front.begin()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await client.response()

    run(scenario)


def test_a_child_that_ends_before_it_answers_is_502(run, socket):
    async def dying(reader, writer, head):
        writer.close()

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, dying), front.before(socket):
            status, _, body = await front.ask()
            assert status == 502 and b"tiny" in body

    run(scenario)


def test_a_client_that_leaves_is_seen_by_the_child_at_once(run, socket):
    async def scenario():
        begun = asyncio.Event()

        async def silent(reader, writer, head):
            await body_of(reader, head)
            begun.set()
            await reader.readexactly(1)

        front = Front(("tiny",))
        async with Child(socket, silent) as child, front.before(socket):
            client = await front.begin()
            await begun.wait()
            await client.close()
            await asyncio.wait_for(child.left.wait(), 5)
            await until(lambda: front.samples)
            assert front.samples[0].status == 499
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_a_fault_of_ours_is_recorded_as_500(run, caplog):
    class Faulty:
        async def exchange(self, *_):
            raise ZeroDivisionError

    async def scenario():
        front = Front(("tiny",))
        front.pool.provide("tiny", Running(), Faulty(), {})
        async with serving(front.proxy) as front.port:
            assert (await front.ask())[0] == 500
            assert [sample.status for sample in front.samples] == [500]
            assert front.pool.view()[0].leased == 0
        await front.pool.close()

    run(scenario)
    assert "ZeroDivisionError" in caplog.text


def test_a_slow_client_holds_the_child_back(run, socket):
    async def scenario():
        sent = 0

        async def much(reader, writer, head):
            nonlocal sent
            await body_of(reader, head)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (32 << 20))
            for _ in range(512):
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536

        front = Front(("tiny",))
        async with Child(socket, much), front.before(socket):
            client = await front.begin()
            await asyncio.sleep(0.3)
            assert sent < 16 << 20
            assert len((await client.response())[2]) == 32 << 20

    run(scenario)


def test_a_multipart_body_is_passed_on_as_it_comes(run, socket):
    async def scenario():
        first = asyncio.Event()

        async def listening(reader, writer, head):
            size = int(await reader.readline(), 16)
            first.set()
            await reader.readexactly(size + 2)
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readline()
            writer.write(reply(b"text"))

        front = Front(("tiny",))
        async with Child(socket, listening), front.before(socket):
            client = await RawClient.to(front.port)
            await client.send(head("/v1/audio/transcriptions", length=6) + b"one")
            await asyncio.wait_for(first.wait(), 5)
            await client.send(b"two")
            assert (await client.response())[2] == b"text"

    run(scenario)


def form(*parts):
    """Content type and body of a form with these (name, value) parts, as browsers send it."""
    named = (
        f'----x.(+y\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts
    )
    return "multipart/form-data; boundary=--x.(+y", ("".join(named) + "----x.(+y--\r\n").encode()


@pytest.mark.parametrize(
    "parts, status",
    [
        ([("model", "two"), ("file", "RIFF")], 200),
        ([("file", "RIFF" * 50_000), ("model", "two")], 200),
        ([("model", "none"), ("file", "RIFF")], 404),
        ([("file", "RIFF")], 400),
        ([("file", 'name="model"\r\n\r\ntwo\r\n'), ("note", "model")], 400),
    ],
)
def test_a_form_names_its_model_in_a_part(run, socket, parts, status):
    """Of several models, as OpenAI's clients send audio: `model` is a field of the form."""

    async def scenario():
        bodies = []

        async def listening(reader, writer, head):
            bodies.append((head.decode().lower(), await body_of(reader, head)))
            writer.write(reply(b"text"))

        front = Front(("one", "two"))
        kind, body = form(*parts)
        async with Child(socket, listening), front.before(socket):
            client = await RawClient.to(front.port)
            typed = f"content-type: {kind}\r\n".encode()
            await client.send(head("/v1/audio/transcriptions", typed, length=len(body)) + body)
            told = await client.response()
            assert told[0] == status
            if status == 200:
                ((sent, whole),) = bodies
                assert told[2] == b"text" and whole == body and f"content-type: {kind}" in sent
            else:
                assert not bodies and b"one, two" in told[2]

    run(scenario)


def test_a_form_without_a_boundary_is_refused(run, socket):
    async def scenario():
        front = Front(("one", "two"))
        async with front.before(socket):
            client = await RawClient.to(front.port)
            await client.send(head("/v1/audio/transcriptions", length=2) + b"{}")
            status, _, body = await client.response()
            assert status == 400 and b"boundary" in body

    run(scenario)


def test_a_wait_that_is_too_long_is_503(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys([]), wait_timeout=0.05))
        async with serving(front.proxy) as front.port:
            status, headers, body = await front.ask()
            assert status == 503 and headers["retry-after"] == "10" and b"pending" in body

    run(scenario)


def test_our_own_pages_need_the_key_but_for_health_and_ready(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, echo), front.before(socket):
            for path, status in (
                ("/health", 200),
                ("/ready", 200),
                ("/v1/models", 401),
                ("/api/status", 401),
            ):
                assert (await front.look(path))[0] == status, path

    run(scenario)


PATHS = ("/", "/health", "/ready", "/metrics", "/api/status", "/api/events", "/v1/models", "/none")
FOREIGN = (
    ("evil.example", b""),
    ("localhost", b"origin: http://evil.example\r\n"),
    ("localhost", b"sec-fetch-site: cross-site\r\n"),
)


@pytest.mark.parametrize("host, headers", FOREIGN)
def test_without_keys_no_path_answers_a_page_of_another_site(run, socket, host, headers):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            answers = [await front.look(path, headers, host) for path in PATHS]
            answers.append(await front.look("/v1/models", headers, host, method="OPTIONS"))
            typed = b"content-type: text/plain\r\n"
            answers.append(await front.ask(headers=headers + typed, host=host))
            for status, told, body in answers:
                assert status == 403 and json.loads(body)["error"]["type"] == "permission_error"
                assert not any(name.startswith("access-control") for name in told)
            assert child.heads == [] and front.samples == []

    run(scenario)


@pytest.mark.parametrize("rules", [Rules(Keys(["k"])), Rules(Keys([]), routed=True)])
@pytest.mark.parametrize("host, headers", FOREIGN)
def test_with_a_key_or_a_route_others_may_call(run, socket, rules, host, headers):
    async def scenario():
        front = Front(("tiny",), rules=rules)
        async with Child(socket, echo), front.before(socket):
            assert (await front.ask(headers=headers + b"x-api-key: k\r\n", host=host))[0] == 200
            assert (await front.look("/health", headers, host))[0] == 200

    run(scenario)


def test_headers_that_end_here():
    headers = [(b"connection", b"x-a, X-B"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]
    assert request_headers(headers) == [(b"x-c", b"3")]
    assert response_headers(
        [*headers, (b"access-control-allow-origin", b"*"), (b"server", b"s"), (b"date", b"d")]
    ) == [(b"x-c", b"3")]


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


STREAM = json.dumps({"stream": True}).encode()


@contextlib.asynccontextmanager
async def waking(socket, answer, monkeypatch):
    """A front whose only model does not come before `servers["tiny"].may_start` is set."""
    monkeypatch.setattr(waiting, "FIRST_PING", 0.01)
    monkeypatch.setattr(waiting, "PING_INTERVAL", 0.01)
    front = Front(("tiny",))
    async with Child(socket, answer), front.before(socket):
        front.servers["tiny"].may_start.clear()
        yield front


async def answering(reader, writer, head):
    await body_of(reader, head)
    writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n0\r\n\r\n")


def test_the_caller_of_a_stream_is_kept_alive_while_its_model_comes(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            client = await front.begin(body=STREAM)
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head and b"text/event-stream" in head
            assert b": ping" in await client.reader.readuntil(b": ping")
            front.servers["tiny"].may_start.set()
            rest = await client.reader.readuntil(b"\r\n0\r\n\r\n")
            assert rest.count(b"data: a") == 1 and b"HTTP/" not in rest
            await until(lambda: front.samples)
            assert front.samples[0].status == 200 and front.samples[0].wait > 0.01

    run(scenario)


def test_an_error_after_a_ping_is_an_event(run, socket, monkeypatch):
    """Its wait ends before the model comes; and a child that refuses. Result: an event each."""

    async def refusing(reader, writer, head):
        await body_of(reader, head)
        writer.write(reply(b'{"error":{"message":"no"}}', status=400))

    async def scenario():
        async with waking(socket, refusing, monkeypatch) as front:
            client = await front.begin(body=STREAM, headers=b"x-wait-timeout: 0.1\r\n")
            told = await client.rest()
            assert b'data: {"error": {"message": "tiny is still loading' in told
            assert told.endswith(b"0\r\n\r\n")
            client = await front.begin(body=STREAM)
            await client.reader.readuntil(b": ping")
            front.servers["tiny"].may_start.set()
            assert b'data: {"error":{"message":"no"}}\n\n' in await client.rest()
            await until(lambda: len(front.samples) == 2)
            assert [sample.status for sample in front.samples] == [503, 400]

    run(scenario)


def test_who_wants_no_stream_gets_a_bounded_wait(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            status, headers, body = await front.ask(headers=b"x-wait-timeout: 0.05\r\n")
            assert status == 503 and headers["retry-after"] == "10" and b"loading" in body
            for wrong in (b"x", b"-1", b"nan", b"99999"):
                status, _, body = await front.ask(headers=b"x-wait-timeout: %b\r\n" % wrong)
                assert status == 400 and b"X-Wait-Timeout" in body

    run(scenario)


def test_who_leaves_while_waiting_is_dropped_and_the_load_goes_on(run, socket, monkeypatch):
    async def scenario():
        async with waking(socket, answering, monkeypatch) as front:
            client = await front.begin(body=STREAM)
            await client.reader.readuntil(b": ping")
            await client.close()
            await until(lambda: not front.pool.view()[0].admitted)
            view = front.pool.view()[0]
            assert view.waiting == 0 and view.state is ModelState.LOADING
            front.servers["tiny"].may_start.set()
            await until(lambda: front.pool.view()[0].state is ModelState.READY)

    run(scenario)


def test_models_are_loaded_pinned_and_unloaded_by_hand(run, socket):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering), front.before(socket):
            status, _, body = await front.ask("/api/models/tiny/load")
            assert status == 202 and json.loads(body)["name"] == "tiny"
            await until(lambda: front.pool.view()[0].state is ModelState.READY)
            assert json.loads((await front.ask("/api/models/tiny/pin"))[2])["pinned"]
            assert not json.loads((await front.ask("/api/models/tiny/unpin"))[2])["pinned"]
            assert (await front.ask("/api/models/tiny/unload"))[0] == 202
            await until(lambda: front.pool.view()[0].state is ModelState.COLD)
            assert (await front.ask("/api/models/none/load"))[0] == 404

    run(scenario)


@pytest.mark.parametrize(
    "headers, host, expected",
    [
        (b"", "127.0.0.1:8080", 202),
        (b"origin: http://localhost:8080\r\n", "localhost:8080", 202),
        (b"", "[::1]:8080", 202),
        pytest.param(
            b"origin: https://evil.example\r\n", "localhost", 403, id="another site's page"
        ),
        pytest.param(b"", "evil.example:8080", 403, id="a name that was made to mean us"),
        pytest.param(
            b"origin: http://evil.example:8080\r\n", "evil.example:8080", 403, id="its page"
        ),
        pytest.param(b"x-forwarded-for: 10.0.0.9\r\n", "localhost", 403, id="through a proxy"),
        pytest.param(b"via: 1.1 p\r\n", "127.0.0.1", 403, id="through another"),
    ],
)
def test_without_keys_only_a_person_on_this_machine_changes_models(
    run, socket, headers, host, expected
):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering), front.before(socket):
            asked = front.ask("/api/models/tiny/pin", headers=headers, host=host)
            assert (await asked)[0] == expected
            assert front.pool.view()[0].pinned == (expected == 202)

    run(scenario)


def test_with_keys_only_a_key_changes_models(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, answering), front.before(socket):
            assert (await front.ask("/api/models/tiny/load"))[0] == 401
            assert (await front.ask("/api/models/tiny/load", headers=b"x-api-key: k\r\n"))[0] == 202

    run(scenario)
