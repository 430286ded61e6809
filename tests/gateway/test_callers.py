import pytest

from app.gateway.callers import unnamed
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
def test_who_names_no_key_is_known_by_its_session_or_else_its_address(headers, address, expected):
    assert unnamed(headers, address) == expected


def test_a_session_is_no_address():
    assert unnamed([(b"session", b"10.0.0.1")], "") != unnamed([], "10.0.0.1")
