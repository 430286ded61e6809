import asyncio
import json

import pytest

from app.telemetry.samples import Tokens
from tests.fakes import Child, body_of, until
from tests.gateway.front import EVENTS, Front

MESSAGE_START = (
    b'event: message_start\ndata: {"message":{"usage":{"input_tokens":2,"output_tokens":0,'
    b'"cache_read_input_tokens":17}}}\n\n'
)


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


def whole_chunk(event):
    return b"%x\r\n%b\r\n" % (len(event), event)


PROGRESS = b'data: {"choices":[],"prompt_progress":{"total":9,"processed":9}}\n\n'


def test_how_far_the_prompt_is_read_is_told_at_once_and_is_no_first_token(run, socket):
    async def scenario():
        go_on = asyncio.Event()

        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + whole_chunk(PROGRESS))
            await go_on.wait()
            writer.write(b"9\r\ndata: a\n\n\r\n0\r\n\r\n")

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin()
            assert b"prompt_progress" in await client.reader.readuntil(b"}}\n\n\r\n")
            await asyncio.sleep(0.2)
            go_on.set()
            await client.reader.readuntil(b"\r\n0\r\n\r\n")
            await until(lambda: front.samples)
            assert front.samples[0].first_token >= 0.2

    run(scenario)


def test_a_token_in_the_read_that_tells_the_end_of_the_prompt_is_the_first(run, socket):
    async def scenario():
        go_on = asyncio.Event()

        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + whole_chunk(PROGRESS) + whole_chunk(b"data: a\n\n"))
            await go_on.wait()
            writer.write(b"0\r\n\r\n")

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin()
            seats = front.pool._ledger["tiny"].line.budget._seats
            await until(lambda: any(seat.begun for seat in seats))
            go_on.set()
            await client.reader.readuntil(b"\r\n0\r\n\r\n")
            await until(lambda: front.samples)
            assert front.samples[0].first_token is not None

    run(scenario)


def test_who_leaves_while_the_prompt_is_read_has_used_no_tokens_of_an_answer(run, socket):
    """llama-server tells how far it is, and so finds out at once that the client has left."""

    async def scenario():
        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + 3 * whole_chunk(PROGRESS))
            await asyncio.Event().wait()

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin()
            budget = front.pool._ledger["tiny"].line.budget
            await until(lambda: any(seat.streams for seat in budget._seats))
            (seat,) = budget._seats
            client.writer.close()
            await until(lambda: front.samples)
            assert not seat.begun and not budget.needs_hush
            assert front.samples[0].tokens.generated == 0 and front.samples[0].tokens.estimated

    run(scenario)


def dechunked(body):
    """The content, and how many chunks it came in."""
    found, count = b"", 0
    while body:
        size, _, body = body.partition(b"\r\n")
        found, body = found + body[: int(size, 16)], body[int(size, 16) + 2 :]
        count += 1
    return found, count


def in_reads(*events, end=b"0\r\n\r\n"):
    """A child that answers with a stream: each event is one chunk and one read."""

    async def answer(reader, writer, head):
        await body_of(reader, head)
        writer.write(EVENTS)
        for event in events:
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0.001)
        writer.write(end)

    return answer


async def told(socket, stream, *asked):
    """What a client of the child's stream is told, without its head, and the sample of it."""
    front = Front(("tiny",))
    async with Child(socket, stream), front.before(socket):
        client = await front.begin(*asked)
        _, _, body = (await client.rest_of_answer()).partition(b"\r\n\r\n")
        await until(lambda: front.samples)
    return body, front.samples[0]


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_stream_of_whole_chunks_is_told_and_counted(run, socket, version):
    """Most of it passes the relay by; with HTTP/1.0 nothing can, for there are no chunks."""
    timings = b'data: {"timings":{"cache_n":1,"prompt_n":2,"predicted_n":50}}\n\n'
    events = [b"data: %d\n\n" % number for number in range(50)] + [b": ping\n\n"]
    events += [timings, b"data: [DONE]\n\n"]

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, in_reads(*events)), front.before(socket):
            client = await front.begin(version=version)
            chunked = version == "1.1"
            told = await (client.rest_of_answer() if chunked else client.reader.read())
            _, _, told = told.partition(b"\r\n\r\n")
            await until(lambda: front.samples)
            if chunked:
                told, chunks = dechunked(told)
                assert chunks == len(events) + 1
            assert told == b"".join(events)
            (sample,) = front.samples
            assert sample.tokens == Tokens(prompt=3, cached=1, generated=50)
            assert sample.size == len(told) and sample.status == 200

    run(scenario)


def test_an_error_within_messages_is_told_in_both_shapes(run, socket):
    """Although what comes before it passes the relay by."""
    deltas = [b'event: content_block_delta\ndata: {"i":%d}\n\n' % number for number in range(30)]
    usage = b'event: message_delta\ndata: {"usage":{"output_tokens":30}}\n\n'
    error = b'event: error\ndata: {"code":500,"message":"broken","type":"server_error"}\n\n'

    async def scenario():
        stream = in_reads(MESSAGE_START, *deltas, usage, error)
        body, sample = await told(socket, stream, "/tiny/v1/messages")
        before, name, data = dechunked(body)[0].partition(b"event: error\ndata: ")
        assert before == b"".join([MESSAGE_START, *deltas, usage]) and name
        assert json.loads(data)["type"] == "error"
        assert json.loads(data)["error"]["message"] == "broken"
        assert sample.tokens == Tokens(prompt=19, cached=17, generated=30)

    run(scenario)


@pytest.mark.parametrize("count", [3, 60])
def test_the_prompt_of_messages_is_counted_however_they_end(run, socket, count):
    """Mostly llama-server's last event and the end of its answer come in one read."""
    delta = b'event: content_block_delta\ndata: {"i":"%b"}\n\n' % (b"x" * 300)
    last = b'event: message_delta\ndata: {"usage":{"output_tokens":30}}\n\n'
    end = b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last)

    async def scenario():
        stream = in_reads(MESSAGE_START, *[delta] * count, end=end)
        _, sample = await told(socket, stream, "/tiny/v1/messages")
        assert sample.tokens == Tokens(prompt=19, cached=17, generated=30)

    run(scenario)


def test_of_several_answers_each_is_counted(run, socket):
    """So they do not pass the relay by: the first one's count need not be among the last events."""
    timings = b'data: {"timings":{"cache_n":1,"prompt_n":2,"predicted_n":%d}}\n\n'
    delta = b'data: {"choices":[{"index":1}]}\n\n'

    async def scenario():
        stream = in_reads(delta, delta, timings % 50, *[delta] * 9, timings % 30)
        asked = "/tiny/v1/chat/completions", b'{"n":2,"stream":true}'
        _, sample = await told(socket, stream, *asked)
        assert sample.tokens.generated == 80

    run(scenario)


def test_every_event_of_a_response_gets_what_it_lacks(run, socket):
    kind = "response.output_text.delta"
    delta = b'event: %b\ndata: {"type":"%b","item_id":"m","delta":"a"}\n\n' % ((kind.encode(),) * 2)

    async def scenario():
        stream = in_reads(*[delta] * 9)
        body, _ = await told(socket, stream, "/tiny/v1/responses", b'{"stream":true}')
        assert body.count(b'"output_index":0') == body.count(b'"content_index":0') == 9

    run(scenario)


def test_who_leaves_after_the_last_event_of_the_native_format_has_had_all(run, socket):
    delta, last = b'data: {"content":"a","stop":false}\n\n', b'data: {"stop":true}\n\n'

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, in_reads(delta, delta, last, end=b"")), front.before(socket):
            client = await front.begin("/tiny/completion", b'{"stream":true}')
            await client.reader.readuntil(b'"stop":true')
            await client.close()
            await until(lambda: front.samples)
            assert front.samples[0].status == 200

    run(scenario)


def test_nothing_of_a_stream_for_a_list_of_prompts_passes_that_is_no_event(run, socket):
    delta, null = b'data: {"choices":[]}\n\n', b"data: null\n\n"

    async def scenario():
        stream = in_reads(delta, delta + null, delta, delta + null, delta)
        asked = "/tiny/v1/completions", b'{"prompt":["a","b"],"stream":true}'
        body, _ = await told(socket, stream, *asked)
        assert body.count(b"choices") == 5 and b"null" not in body

    run(scenario)


def test_a_head_that_comes_alone_is_not_held_back(run, socket):
    """A client that sees the head knows that its request is being answered."""

    async def scenario():
        go_on = asyncio.Event()

        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS)
            await writer.drain()
            await go_on.wait()
            writer.write(b"9\r\ndata: a\n\n\r\n0\r\n\r\n")

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin()
            await client.reader.readuntil(b"\r\n\r\n")
            go_on.set()
            assert await client.reader.readuntil(b"\r\n0\r\n\r\n") == (
                b"9\r\ndata: a\n\n\r\n0\r\n\r\n"
            )

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
            told = (await client.rest_of_answer()).decode()
            last = [line for line in told.split("\n") if line.startswith("data: ")][-1]
            assert told.startswith("HTTP/1.1 200 ")
            assert json.loads(last[6:])["error"]["type"] == "server_error"
            assert front.samples[0].status == 502

    run(scenario)


@pytest.mark.parametrize("begun", [True, False])
def test_an_answer_that_the_end_breaks_off_says_that_we_stop(run, socket, begun):
    async def scenario():
        front = Front(("tiny",))

        async def breaking(reader, writer, head):
            await body_of(reader, head)
            if begun:
                writer.write(EVENTS + b"9\r\ndata: a\n\n\r\n")
                await writer.drain()
            front.pool.refuse_new()
            writer.close()

        async with Child(socket, breaking), front.before(socket):
            client = await front.begin()
            status, _, body = await client.response()
            assert status == (200 if begun else 503)
            *_, last = [line for line in body.decode().split("\n") if line]
            error = json.loads(last.removeprefix("data: "))["error"]
            assert (error["type"], error["message"]) == (
                "unavailable_error",
                "the instance is stopping",
            )
            assert front.samples[0].status == 503

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


def answering_with(head, body):
    async def answer(reader, writer, request):
        await body_of(reader, request)
        writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body))

    return answer


@pytest.mark.parametrize(
    "head, body",
    [
        (b"400 Bad Request\r\nconnection: close", b""),
        (b"500 Internal Server Error\r\ncontent-type: text/plain", b"std::bad_alloc"),
        (b"500 Internal Server Error\r\ncontent-type: text/event-stream", b"x" * 999999),
        (b"415 Unsupported Media Type\r\ncontent-type: application/json", b"{}"),
    ],
)
def test_an_error_without_a_shape_is_given_openais(run, socket, head, body):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering_with(head, body)), front.before(socket):
            for wish in (b"{}", b'{"stream":true}'):
                status, headers, answer = await front.ask(body=wish)
                assert status == int(head[:3])
                assert headers["content-type"].startswith("application/json")
                assert int(headers["content-length"]) == len(answer) < 3000
                error = json.loads(answer)["error"]
                assert error["code"] == status and "llama-server" in error["message"]
            assert [sample.status for sample in front.samples] == [status, status]

    run(scenario)


def test_an_error_with_the_shape_and_its_headers_are_passed_on(run, socket):
    theirs = b'{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}'
    head = b"503 Service Unavailable\r\nretry-after: 3"

    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering_with(head, theirs)), front.before(socket):
            status, headers, answer = await front.ask()
            assert (status, headers["retry-after"], answer) == (503, "3", theirs)

    run(scenario)


def test_a_response_stream_is_filled_in_as_its_events_come(run, socket):
    created = (
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n'
    )
    rest = b"event: response.output_text.delta\ndata: {}\n\n"

    async def scenario():
        go_on = asyncio.Event()

        async def stream(reader, writer, head):
            await body_of(reader, head)
            writer.write(EVENTS + b"9\r\n%b\r\n" % created[:9])
            await writer.drain()
            writer.write(b"%x\r\n%b\r\n" % (len(created) - 9, created[9:]))
            await go_on.wait()
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))

        front = Front(("tiny",))
        async with Child(socket, stream), front.before(socket):
            client = await front.begin("/tiny/v1/responses", b'{"stream":true}')
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"transfer-encoding: chunked" in head
            told = await client.reader.readuntil(b"}}\n\n\r\n")
            response = json.loads(told.split(b"data: ")[1].rstrip())["response"]
            assert response.pop("created_at") > 0
            assert response == {"id": "r", "model": "tiny", "output": []}
            go_on.set()
            assert rest in await client.reader.readuntil(b"\r\n0\r\n\r\n")

    run(scenario)
