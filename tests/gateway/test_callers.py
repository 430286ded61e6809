import pytest

from app.gateway.callers import caller_of, own
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.labels import LONGEST
from app.memory.caller import Caller


@pytest.mark.parametrize(
    "headers, address, expected",
    [
        ([], "10.0.0.1", Caller("address", "10.0.0.1")),
        ([], "2001:db8::1:2:3:4", Caller("address", "2001:db8::/64")),
        ([], "", Caller("address", "")),
        ([(b"session", b" s1 ")], "10.0.0.1", Caller("session", "s1")),
        ([(b"session", b"x" * 1000)], "10.0.0.1", Caller("session", "x" * LONGEST)),
        ([(b"session", b"")], "10.0.0.1", Caller("address", "10.0.0.1")),
        ([(b"session", b"a"), (b"session", b"b")], "10.0.0.1", Caller("address", "10.0.0.1")),
    ],
)
def test_who_has_no_named_key_is_known_by_its_session_or_else_its_address(
    headers, address, expected
):
    assert caller_of(UNNAMED, headers, address, routed=True) == expected
    holder = Holder("alice", batch=True, weight=2.0)
    alice = Caller("key", "alice", batch=True, weight=2.0)
    assert caller_of(holder, headers, address, routed=True) == alice


def test_a_session_is_no_address():
    session = caller_of(UNNAMED, [(b"session", b"10.0.0.1")], "", routed=True)
    assert session != caller_of(UNNAMED, [], "10.0.0.1", routed=True)


def test_a_session_that_no_gateway_has_set_makes_no_caller():
    by_address = Caller("address", "10.0.0.1")
    assert caller_of(UNNAMED, [(b"session", b"s1")], "10.0.0.1", routed=False) == by_address


NAMES = {"chat": "chat", "gpt-4o": "chat", "vectors": "vectors"}


@pytest.mark.parametrize(
    "models, expected",
    [
        (None, ["chat", "gpt-4o", "vectors"]),
        ({"chat"}, ["chat", "gpt-4o"]),
        ({"gpt-4o", "elsewhere"}, ["chat", "gpt-4o"]),
        ({"chat", "vectors"}, ["chat", "gpt-4o", "vectors"]),
        ({"elsewhere"}, []),
    ],
)
def test_a_model_of_ones_own_is_its_own_by_all_its_names(models, expected):
    holder = Holder("alice", models=None if models is None else frozenset(models))
    assert list(own(holder, NAMES)) == expected
