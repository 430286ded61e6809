import asyncio
import json

import pytest

from app.gateway.relay import request_headers, response_headers
from app.telemetry.samples import Tokens
from tests.fakes import Child, body_of, until
from tests.gateway.front import EVENTS, Front


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


def test_headers_that_end_here():
    headers = [(b"connection", b"x-a, X-B"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]
    assert request_headers(headers) == [(b"x-c", b"3")]
    assert response_headers(
        [*headers, (b"access-control-allow-origin", b"*"), (b"server", b"s"), (b"date", b"d")]
    ) == [(b"x-c", b"3")]
