import asyncio

import psutil

from app.machine import network


def test_own_address_is_one_of_this_machines():
    ours = {a.address for addresses in psutil.net_if_addrs().values() for a in addresses}
    assert network.own_address() in ours


def test_a_port_answers_while_somebody_listens(run):
    async def scenario():
        server = await network.listen(asyncio.Protocol, network.LOOPBACK, 0)
        port = server.sockets[0].getsockname()[1]
        there = network.answers(network.LOOPBACK, port, 5)
        server.close()
        await server.wait_closed()
        return there, network.answers(network.LOOPBACK, port, 5)

    assert run(scenario) == (True, False)


def test_a_free_port_can_be_listened_on(run):
    async def scenario():
        port = network.free_port()
        server = await network.listen(asyncio.Protocol, network.LOOPBACK, port)
        server.close()
        return port

    assert run(scenario) > 0
