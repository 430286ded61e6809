import json

import pytest

from app.gateway.admission import Keys
from app.gateway.proxy import Rules
from app.memory.ledger import ModelState
from tests.fakes import Child, until
from tests.gateway.front import Front, answering


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
