import asyncio
from collections import Counter

import pytest

from app.errors import ConfigError, RequestError
from app.gateway import admission
from app.gateway.admission import Keys, keys_sent, listening_host
from app.gateway.guesses import ALLOWED
from app.machine import clock, network


def listened(given, **more):
    return asyncio.run(listening_host(given, **more))


class Sent:
    """A request as far as its sender's key is looked for."""

    def __init__(self, *headers, address="10.0.0.1"):
        self.headers, self.address = list(headers), address
        self.keep_alive, self.gives_way = True, False


def bearer(key, **more):
    return Sent((b"authorization", b"Bearer " + key), **more)


RIGHT, WRONG = bearer(b"one"), bearer(b"three")


@pytest.mark.parametrize(
    "sent, status",
    [
        (bearer(b"one"), None),
        (Sent((b"authorization", b"bearer two")), None),
        (Sent((b"authorization", b"Bearer\tone")), None),
        (Sent((b"authorization", b"\tBearer \t  one ")), None),
        (Sent((b"x-api-key", b"two")), None),
        (Sent((b"x-api-key", b"three"), (b"authorization", b"Bearer one")), None),
        (Sent((b"authorization", b"Bearer three"), (b"x-api-key", b"two")), None),
        (Sent((b"authorization", b"Basic b25l"), (b"x-api-key", b"two")), None),
        (Sent((b"authorization", b"Basic b25l"), (b"authorization", b"Bearer one")), None),
        (bearer(b"three"), 401),
        (bearer(b"One"), 401),
        (Sent((b"authorization", b"Basic one")), 401),
        (Sent((b"authorization", b"Bearer ")), 401),
        (Sent((b"authorization", b"Bearerone")), 401),
        (Sent((b"authorization", b"one")), 401),
        (Sent((b"x-api-key", b"")), 401),
        (Sent(), 401),
    ],
)
def test_any_of_the_keys_in_either_header_lets_a_caller_in(sent, status):
    assert asyncio.run(answer(Keys(["one", "two"]), sent)) == status


async def answer(keys, sent):
    """The status of the refusal; None where there is none."""
    sent.keep_alive = True
    try:
        await keys.check(sent)
    except RequestError as error:
        assert (error.headers != ()) == (error.status == 401)
        assert (error.retry_after is not None) == (error.status == 429)
        assert sent.keep_alive != (error.status == 429)
        return error.status
    return None


def test_without_keys_everybody_may_ask():
    assert asyncio.run(answer(Keys([""]), Sent())) is None
    assert not Keys([""])


def test_one_request_tries_no_more_than_two_keys():
    tried = [(name, b"%d" % n) for n in range(100) for name in (b"x-api-key", b"authorization")]
    assert len(keys_sent(tried)) == 1
    tried += [(b"authorization", b"bearer %d" % n) for n in range(100)]
    assert keys_sent(tried) == [b"0", b"0"]


@pytest.fixture
def at_once(monkeypatch):
    """No pause, and no time passes."""
    monkeypatch.setattr(admission, "PAUSE", 0.0)
    monkeypatch.setattr(clock, "now", lambda: 0.0)


def test_guesses_are_refused_and_a_right_key_from_the_same_address_never(at_once):
    async def scenario():
        keys, answers = Keys(["one", "two"]), Counter()
        for _ in range(3 * ALLOWED):
            answers[await answer(keys, WRONG)] += 1
            answers[await answer(keys, RIGHT)] += 1
        assert answers == {401: ALLOWED, 429: 2 * ALLOWED, None: 3 * ALLOWED}
        assert await answer(keys, bearer(b"three", address="10.0.0.2")) == 401

    asyncio.run(scenario())


def test_no_key_is_no_guess(at_once):
    async def scenario():
        keys = Keys(["one"])
        assert {await answer(keys, Sent()) for _ in range(3 * ALLOWED)} == {401}

    asyncio.run(scenario())


def test_who_guesses_learns_nothing_at_once_until_a_right_key_came_from_there(monkeypatch):
    """So it costs time to find out that a guess is right, and callers beside it wait only once."""

    async def scenario():
        paused, begun, on = [], asyncio.Event(), asyncio.Event()

        async def pause(seconds):
            paused.append(seconds)
            begun.set()
            await on.wait()

        monkeypatch.setattr(admission.asyncio, "sleep", pause)
        keys = Keys(["one"])
        for _ in range(ALLOWED):
            assert await answer(keys, WRONG) == 401
        assert paused == []
        waits = bearer(b"one")
        first = asyncio.ensure_future(answer(keys, waits))
        await asyncio.wait_for(begun.wait(), 10)
        assert await answer(keys, bearer(b"one", address="10.0.0.2")) is None
        assert paused == [admission.PAUSE] and not first.done() and waits.gives_way
        on.set()
        assert await first is None and not waits.gives_way
        assert await answer(keys, RIGHT) is None
        assert paused == [admission.PAUSE]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "given, agent, key, expected",
    [
        ("", False, False, "127.0.0.1"),
        ("", True, True, "0.0.0.0"),
        ("", False, True, "0.0.0.0"),
        ("10.0.0.1", False, True, "10.0.0.1"),
        ("127.0.0.2", False, False, "127.0.0.2"),
        ("localhost", False, False, "localhost"),
        ("::1", False, False, "::1"),
        ("[::1]", False, False, "::1"),
        ("[::]", False, True, "::"),
        ("127.1", False, False, "127.0.0.1"),  # as the system's own functions read it
        ("LOCALHOST", False, False, "LOCALHOST"),
        ("[]", False, True, "[]"),  # no host: "" would be all of them
        ("127.0.0.1", True, True, "127.0.0.1"),
    ],
)
def test_where_to_listen(given, agent, key, expected):
    assert listened(given, under_agent=agent, has_key=key) == expected


def test_a_name_of_this_machine_alone_is_its_address(monkeypatch, caplog):
    found = ["::1", "127.0.1.1"]
    monkeypatch.setattr(network, "addresses", lambda host, port: found)
    with caplog.at_level("INFO"):
        assert listened("mine", under_agent=False, has_key=False) == "127.0.1.1"
    assert "mine is 127.0.1.1: only this machine reaches it" in caplog.text
    found.append("10.0.0.1")
    with pytest.raises(ConfigError, match="mine is open to the network"):
        listened("mine", under_agent=False, has_key=False)


@pytest.mark.parametrize("given", ["a b", "127.0.0.1:80", "http://127.0.0.1", "a..b", "[]"])
def test_what_is_no_host_wants_no_key(given):
    with pytest.raises(ConfigError, match="is no address of this machine") as raised:
        listened(given, under_agent=False, has_key=False)
    assert str(raised.value).startswith(f"General/host: {given} ")


@pytest.mark.parametrize("given", ["0.0.0.0", "10.0.0.1", "::"])
def test_on_a_persons_machine_the_network_needs_a_key(given):
    with pytest.raises(ConfigError, match="LLAMACPP_API_KEY"):
        listened(given, under_agent=False, has_key=False)
