import json
from functools import partial

import pytest

from app.gateway.admission import Admins, Keys
from app.gateway.rules import Rules
from app.memory.ledger import ModelState
from tests.fakes import Child, until
from tests.gateway.front import Front, answering

KEY = b"x-api-key: the-token\r\n"


def test_models_are_loaded_pinned_and_unloaded_by_hand(run, socket):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering), front.before(socket):
            ask = partial(front.ask, headers=KEY)
            status, _, body = await ask("/api/models/tiny/load")
            assert status == 202 and json.loads(body)["name"] == "tiny"
            await until(lambda: front.pool.view()[0].state is ModelState.READY)
            assert json.loads((await ask("/api/models/tiny/pin"))[2])["pinned"]
            assert not json.loads((await ask("/api/models/tiny/unpin"))[2])["pinned"]
            assert (await ask("/api/models/tiny/unload"))[0] == 202
            await until(lambda: front.pool.view()[0].state is ModelState.COLD)
            assert (await ask("/api/models/none/load"))[0] == 404

    run(scenario)


@pytest.mark.parametrize(
    "headers, expected",
    [
        (KEY, 202),
        (b"authorization: Bearer the-token\r\n", 202),
        (b"authorization: Bearer none\r\n" + KEY, 202),  # clients send a key whether or no
        pytest.param(KEY + b"x-forwarded-for: 10.0.0.9\r\n", 202, id="through a proxy"),
        pytest.param(b"", 403, id="a program here, or a proxy that adds no header"),
        pytest.param(b"x-api-key: the-tokem\r\n", 403, id="a guess"),
        pytest.param(KEY + b"origin: https://evil.example\r\n", 403, id="another site's page"),
    ],
)
def test_without_keys_only_who_has_the_token_changes_models(run, socket, headers, expected):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering), front.before(socket):
            status, _, body = await front.ask("/api/models/tiny/pin", headers=headers)
            assert status == expected, body
            assert front.pool.view()[0].pinned == (expected == 202)

    run(scenario)


def test_a_load_that_is_refused_says_why_and_so_does_the_console_once(run, socket, caplog):
    async def scenario():
        front = Front(("tiny",))
        async with Child(socket, answering), front.before(socket):
            front.pool._ledger["tiny"].need = {"d": 5}
            status, _, body = await front.ask("/api/models/tiny/load", headers=KEY)
            assert status == 503 and "tiny needs " in json.loads(body)["error"]["message"]
        (record,) = caplog.records
        assert record.subject == "tiny" and record.message.startswith("needs ")

    run(scenario)


@pytest.mark.parametrize("keys", [[], ["k"]])
def test_without_a_token_only_keys_change_models(keys):
    admins = Admins(Keys(keys))
    for sent in ([], [(b"x-api-key", b"")], [(b"authorization", b"Bearer ")]):
        assert admins.may_change_models(sent) == bool(keys)


def test_with_keys_only_a_key_changes_models(run, socket):
    async def scenario():
        front = Front(("tiny",), rules=Rules(Keys(["k"])))
        async with Child(socket, answering), front.before(socket):
            assert (await front.ask("/api/models/tiny/load"))[0] == 401
            assert (await front.ask("/api/models/tiny/load", headers=b"x-api-key: k\r\n"))[0] == 202

    run(scenario)
