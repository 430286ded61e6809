"""The whole way of a request, with a real front, pool and client, and a scripted child."""

import asyncio
import contextlib
import gc
import json

import pytest

from app.engine import exchange
from app.gateway import admission, guesses, passing
from app.gateway.admission import Keys
from app.gateway.http.request import Request
from app.gateway.rules import Rules
from tests.fakes import Child, RawClient, body_of, reply, serving, until
from tests.gateway.front import EVENTS, Front, Running, echo, head


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


def test_the_child_gets_a_repaired_body(run, socket):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo), front.before(socket):
            sent = b'\xef\xbb\xbf{"prompt":"a\\ud83d"}'
            assert (await front.ask(body=sent))[2] == b'{"prompt":"a\\ufffd"}'

    run(scenario)


@pytest.mark.parametrize("path, work", [("/v1/completions", True), ("/tokenize", False)])
def test_only_answers_by_its_own_work_show_that_a_child_works(run, socket, path, work):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo), front.before(socket):
            client = front.pool._ledger["tiny"].upstream
            assert (await front.ask(f"/tiny{path}", b'{"content":"a"}'))[0] == 200
            assert (client.progress, client.aside) == (work, not work)

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
            b"accept-encoding: gzip\r\nconnection: x-hop\r\nx-hop: 1\r\naccept: */*\r\n"
        )
        async with Child(socket, echo) as child, front.before(socket):
            assert (await front.ask())[0] == 401
            assert (await front.ask("/gpt/v1/completions"))[0] == 401  # and names no model
            assert child.heads == []
            assert (await front.ask(headers=headers))[0] == 200
            head = child.heads[0].lower()
            assert "authorization: bearer child-key" in head and "accept: */*" in head
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


@pytest.mark.parametrize("events", [True, False])
def test_who_does_not_read_takes_nobodys_place_either(run, socket, events):
    """1. A client asks for an answer of 6 MB and reads nothing. 2. Another one asks. Result: it
    gets its answer, for the model is free; the first one finds all of its own."""

    async def scenario():
        texts = [b"data: %06d %b\n\n" % (number, b"x" * 8000) for number in range(750)]
        asked = 0

        async def large(reader, writer, head):
            nonlocal asked
            await body_of(reader, head)
            asked += 1
            if asked > 1:
                writer.write(reply(b"{}"))
            elif events:
                writer.write(EVENTS)
                for text in texts:  # one by one, as tokens come
                    writer.write(b"%x\r\n%b\r\n" % (len(text), text))
                    await asyncio.sleep(0.001)
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(reply(b"".join(texts)))

        front = Front(("tiny",), limit=1)
        async with Child(socket, large), front.before(socket):
            slow = await RawClient.to(front.port, kernel=65536)
            await slow.send(head("/tiny/v1/completions", length=2) + b"{}")
            await until(lambda: front.samples)
            assert front.port.server.backlog.taken > 1 << 20
            assert (await front.ask())[0] == 200
            status, _, body = await slow.response()
            assert (status, body) == (200, b"".join(texts))

    run(scenario)


def test_a_json_body_is_called_json(run, socket):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, echo) as child, front.before(socket):
            await front.ask(headers=b"content-type: application/x-www-form-urlencoded\r\n")
            assert child.heads[0].lower().count("content-type: ") == 1
            assert "content-type: application/json" in child.heads[0].lower()

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


def test_who_waits_for_no_longer_than_a_dying_child_takes_may_come_again(run, socket, monkeypatch):
    async def scenario():
        front, patiences = Front(("tiny",)), []
        gone = front.pool.gone

        async def noted(name, patience):
            patiences.append(patience)
            await gone(name, patience)

        monkeypatch.setattr(front.pool, "gone", noted)
        async with front.before(socket):  # nobody listens there
            status, headers, answer = await front.ask(headers=b"x-wait-timeout: 0.1\r\n")
            assert (status, headers["retry-after"]) == (503, "1")
            assert "takes no connection" in json.loads(answer)["error"]["message"]
            assert patiences and all(0 <= patience <= 0.1 for patience in patiences)

    run(scenario)


def test_a_request_that_a_dying_child_did_not_take_is_served_by_the_next_one(run, socket):
    """1. A connection is kept open after an answer. 2. The child ends: it closes the connection
    with the next request on it, and takes no other. 3. Another child comes. Result: it answers."""

    async def scenario():
        front = Front(("tiny",))
        gone = asyncio.Event()

        async def once(reader, writer, head):
            await echo(reader, writer, head)
            await reader.readexactly(1)  # the next request
            child.server.close()
            socket.unlink()
            writer.close()
            gone.set()

        child = Child(socket, once)
        async with child, front.before(socket):
            assert (await front.ask(body=b'{"a":1}'))[0] == 200
            asks = asyncio.create_task(front.ask(body=b'{"a":2}'))
            await gone.wait()
            await asyncio.sleep(0.1)  # it is tried on a new connection meanwhile
            async with Child(socket, echo) as following:
                status, _, answer = await asks
                assert (status, answer) == (200, b'{"a":2}') and len(following.heads) == 1
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_a_request_that_comes_while_a_child_ends_is_served_by_the_next_one(
    run, socket, monkeypatch
):
    """1. A child that ends breaks an answer off. 2. It takes the next request's connection, and
    closes it without a word. 3. Another child comes. Result: it answers."""
    monkeypatch.setattr(passing, "GONE", 0.2)

    async def scenario():
        front, taken = Front(("tiny",)), []

        async def ends(reader, writer, head):
            await body_of(reader, head)
            if not taken:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")
                await writer.drain()
            taken.append(head)
            if len(taken) == 2:
                child.server.close()
                socket.unlink()
            writer.close()

        child = Child(socket, ends)
        async with child, front.before(socket):
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await front.ask(body=b'{"a":1}')
            asks = asyncio.create_task(front.ask(body=b'{"a":2}'))
            await until(lambda: len(taken) == 2)
            async with Child(socket, echo) as following:
                status, _, answer = await asks
                assert (status, answer) == (200, b'{"a":2}') and len(following.heads) == 1
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_after_it_was_closed_a_refused_connection_is_tried_again(run, socket, monkeypatch):
    """The process still ends, though its listener is closed by now."""
    monkeypatch.setattr(passing, "GONE", 0.1)

    async def scenario():
        front, asked = Front(("tiny",)), asyncio.Event()

        async def ends(reader, writer, head):
            await body_of(reader, head)
            if asked.is_set():
                child.server.close()
                socket.unlink()
                gone.set()
            writer.close()

        child, gone = Child(socket, ends), asyncio.Event()
        async with child, front.before(socket):
            assert (await front.ask(body=b'{"a":1}'))[0] == 502
            asked.set()
            asks = asyncio.create_task(front.ask(body=b'{"a":2}'))
            await gone.wait()
            await asyncio.sleep(0.2)  # it is tried meanwhile, and nobody listens
            async with Child(socket, echo):
                assert (await asks)[0] == 200

    run(scenario)


@pytest.mark.parametrize("after", [0.0, 0.3], ids=["at-once", "after-a-while"])
@pytest.mark.parametrize("others", [True, False])
def test_a_request_that_ends_each_child_ends_two(run, socket, monkeypatch, others, after):
    """1. Connections are kept open after the answers of others. 2. A request comes at which a child
    ends, and so does the next one, which has served `others` by then, or none, and works on it for
    a while. Result: no third one gets it."""
    monkeypatch.setattr(exchange, "ENDING", 0.2)
    monkeypatch.setattr(passing, "GONE", 0.4)

    async def scenario():
        front, ended = Front(("tiny",)), []

        async def answer(reader, writer, head):
            if b"poison" not in await body_of(reader, head):
                writer.write(reply(b"{}"))
                return
            ended.append(head)
            await asyncio.sleep(after if len(ended) > 1 else 0)
            children[-1].server.close()
            socket.unlink()
            writer.close()

        children, asks = [], []
        async with front.before(socket), contextlib.AsyncExitStack() as stack:
            while len(children) < 3:
                children.append(await stack.enter_async_context(Child(socket, answer)))
                if others or not asks:
                    assert (await front.ask(body=b'{"a":1}'))[0] == 200
                if not asks:
                    asks.append(asyncio.create_task(front.ask(body=b'{"a":"poison"}')))
                await until(lambda: asks[0].done() or len(ended) == len(children))
                await asyncio.sleep(0.05)  # no process comes before its predecessor's end is seen
            assert (await asks[0])[0] == 502 and len(ended) == 2

    run(scenario)


def test_a_child_that_answers_nobody_is_asked_twice_at_most(run, socket, monkeypatch):
    """It may be that it was about to end as the first request came; not for ever."""
    monkeypatch.setattr(passing, "GONE", 0.1)

    async def scenario():
        front, taken = Front(("tiny",)), []

        async def ends(reader, writer, head):
            await body_of(reader, head)
            taken.append(head)
            writer.close()

        async with Child(socket, ends), front.before(socket):
            for sent in (2, 4):
                assert (await front.ask(body=b'{"a":1}'))[0] == 502
                assert len(taken) == sent

    run(scenario)


def test_after_its_last_try_for_a_dying_child_an_overflow_is_repeated(run, socket, monkeypatch):
    monkeypatch.setattr(passing, "TRIES", 2)
    full = b'{"error":{"code":500,"message":"Context size has been exceeded"}}'
    answers = iter((reply(full, 500),))

    async def overflows_once(reader, writer, head):
        answer = next(answers, None)
        if answer is None:
            await echo(reader, writer, head)
            return
        await body_of(reader, head)
        writer.write(answer)

    async def scenario():
        front, refused = Front(("tiny",)), asyncio.Event()
        gone = front.pool.gone

        async def noted(name, patience):
            refused.set()
            await gone(name, 0.01)

        monkeypatch.setattr(front.pool, "gone", noted)
        async with front.before(socket):
            asks = asyncio.create_task(front.ask(body=b'{"a":2}'))
            await refused.wait()
            async with Child(socket, overflows_once):
                status, _, answer = await asks
            assert (status, answer) == (200, b'{"a":2}')

    run(scenario)


@pytest.mark.parametrize(
    "path, event, status",
    [
        ("/v1/chat/completions", b"data: [DONE]", 200),
        ("/v1/messages", b'data: {"type":"message_stop"}', 200),
        ("/v1/chat/completions", b'data: {"a":1}', 499),
        ("/v1/chat/completions", b'data: {"stop":true}', 499),
        ("/completion", b'data: {"content":"","stop":true,"timings":{}}', 200),
        ("/infill", b'data: {"content":"","stop":true,"prompt":"%b"}' % (b"a" * (20 << 10)), 200),
        ("/completion", rb'data: {"content":"\"stop\":true","stop":false}', 499),
        (
            "/v1/responses",
            b'event: response.completed\ndata: {"type":"response.completed","a":1}',
            200,
        ),
        ("/v1/responses", b'event: response.failed\ndata: {"type":"response.failed","a":1}', 200),
        ("/v1/responses", b'event: response.created\ndata: {"type":"response.created","a":1}', 499),
    ],
)
def test_a_client_that_leaves_behind_the_last_event_has_its_answer(
    run, socket, path, event, status
):
    async def scenario():
        async def endless(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + b"%x\r\n%b\n\n\r\n" % (len(event) + 2, event))
            await reader.readexactly(1)

        front = Front(("tiny",))
        async with Child(socket, endless), front.before(socket):
            client = await front.begin(path, body=b'{"stream":true,"prompt":"a"}')
            await client.reader.readuntil(event[-40:])
            await client.close()
            await until(lambda: front.samples)
            assert front.samples[0].status == status

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
            assert front.samples[0].tokens.generated == 0
            assert front.pool.view()[0].leased == 0

    run(scenario)


def test_a_fault_of_ours_is_recorded_as_500(run, caplog):
    class Faulty:
        async def exchange(self, *_, **more):
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


def test_a_refusal_says_what_would_not_be_refused(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, echo), front.before(socket):
            key = b"x-api-key: k\r\n"
            status, told, _ = await front.look("/v1/models")
            assert (status, told["www-authenticate"]) == (401, "bearer")
            status, told, _ = await front.look("/v1/models", key, method="PUT")
            assert (status, told["allow"]) == (405, "get, head, options")
            status, told, _ = await front.look("/v1/completions", key, method="PROPFIND")
            assert (status, told["allow"]) == (405, "post, options")

    run(scenario)


@pytest.mark.parametrize("path", ["/v1/models", "/tiny/v1/completions", "*"])
def test_options_are_answered_with_a_key_and_without_cors(run, socket, path):
    asks = b"origin: http://localhost\r\naccess-control-request-method: POST\r\n"

    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, echo) as child, front.before(socket):
            assert (await front.look(path, asks, method="OPTIONS"))[0] == 401
            key = asks + b"x-api-key: k\r\n"
            status, told, body = await front.look(path, key, method="OPTIONS")
            assert (status, body) == (204, b"") and told["allow"].endswith("options")
            assert not any(name.startswith("access-control") for name in told)
            assert child.heads == []

    run(scenario)


def test_who_guesses_keys_is_told_when_the_next_may_come(run, socket, monkeypatch):
    """Both come through the same proxy. Result: 429 for one, an answer for the other."""
    monkeypatch.setattr(admission, "PAUSE", 0.0)
    monkeypatch.setattr(guesses, "EVERY", 3600.0)

    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, echo), front.before(socket):
            for _ in range(guesses.ALLOWED):
                assert (await front.look("/v1/models", b"x-api-key: g\r\n"))[0] == 401
            status, told, body = await front.look("/v1/models", b"x-api-key: g\r\n")
            assert status == 429 and 3500 <= int(told["retry-after"]) <= 3600
            assert b"rate_limit_error" in body
            assert (await front.ask(headers=b"x-api-key: k\r\n"))[0] == 200
            assert (await front.look("/v1/models"))[0] == 401  # without any key

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


@pytest.mark.parametrize("begins, ends", [(b"[", b""), (b'{"model":"none","a":"', b'"}')])
def test_what_was_refused_is_not_kept_until_the_collector_comes(run, socket, begins, ends):
    def requests():
        # No isinstance: it asks an object, and the SDK's lazy ones read their configuration then.
        return [each for each in gc.get_objects() if type(each) is Request]

    async def scenario():
        front, asked = Front(("tiny",), rules=Rules(Keys([]))), begins + b"[" * 300_000 + ends
        async with Child(socket, echo), front.before(socket):
            gc.collect()
            gc.disable()
            try:
                before = len(requests())
                for _ in range(3):
                    assert (await front.ask("/v1/chat/completions", body=asked))[0] in (400, 404)
                await asyncio.sleep(0.1)
                kept = len(requests()) - before
                assert kept <= 0
            finally:
                gc.enable()

    run(scenario)


@pytest.mark.parametrize("keeps", [True, False])
def test_the_beginning_of_what_was_asked_is_kept_where_that_is_wanted(run, socket, keeps):
    asked = b'{"messages":[{"role":"user","content":"' + b"a" * (9 << 10) + b'"}]}'

    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys([]), keep_prompts=keeps))
        async with Child(socket, echo), front.before(socket):
            assert (await front.ask(body=asked))[0] == 200
            await until(lambda: front.samples)
            assert front.samples[0].prompt == (asked[: 1 << 10].decode() if keeps else "")

    run(scenario)


def test_a_requests_name_is_told_to_client_log_and_sample(run, socket, caplog):
    caplog.set_level("INFO")

    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys([]), debug=True))
        async with Child(socket, echo) as child, front.before(socket):
            told = (await front.ask(headers=b"x-request-id: mine-1\r\n"))[1]
            assert told["x-request-id"] == "mine-1" and "mine-1" not in child.heads[0]
            refused = await front.ask("/none", headers=b"x-request-id: mine-2\r\n")
            assert (refused[0], refused[1]["x-request-id"]) == (404, "mine-2")
            made = (await front.ask(headers=b"x-request-id: <b>\r\n"))[1]["x-request-id"]
            assert made.startswith("req-")
            await until(lambda: len(front.samples) == 2)
            assert [sample.request for sample in front.samples] == ["mine-1", made]
            for name in ("mine-1", made):
                assert f", request {name}" in caplog.text

    run(scenario)
