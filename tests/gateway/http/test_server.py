import asyncio

import pytest

from app.errors import ConfigError
from app.gateway.http.server import HttpServer
from tests.fakes import RawClient, serving
from tests.gateway.http.asking import GET, ask, echo


def test_connections_are_bounded(run):
    async def scenario():
        async with serving(echo, connections=2) as port:
            first, second = await RawClient.to(port), await RawClient.to(port)
            third = await RawClient.to(port)
            assert (await third.rest()).startswith(b"HTTP/1.1 503 ")
            await first.send(GET % b"/")
            assert (await first.response())[0] == 200
            await first.close()
            # Its place is free as soon as the front has seen it leave.
            while (await ask(port, GET % b"/"))[0] != 200:
                await asyncio.sleep(0.01)
            await second.close()

    run(scenario)


def test_a_given_port_that_is_taken_is_an_error_and_none_given_finds_a_free_one(run):
    async def scenario():
        async with serving(echo) as port:
            with pytest.raises(ConfigError, match=f"General/port: 127.0.0.1:{port}"):
                await HttpServer(echo).start("127.0.0.1", port)
            other = HttpServer(echo)
            _, found = await other.start("127.0.0.1", None, fallback=port)
            assert found != port
            await other.close()

    run(scenario)


def test_port_0_is_any_free_port(run):
    async def scenario():
        async with serving(echo) as taken:
            other = HttpServer(echo)
            _, found = await other.start("127.0.0.1", 0, fallback=taken)
            assert found not in (0, taken)
            await other.close()

    run(scenario)


def test_a_host_that_is_not_ours_is_an_error(run):
    async def scenario():
        with pytest.raises(ConfigError, match="General/"):
            await HttpServer(echo).start("192.0.2.1", None)

    run(scenario)
