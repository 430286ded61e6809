import pytest

from app.errors import ConfigError, RequestError
from app.gateway.admission import Keys, listening_host


@pytest.mark.parametrize(
    "headers, allowed",
    [
        ([(b"authorization", b"Bearer one")], True),
        ([(b"authorization", b"bearer two")], True),
        ([(b"x-api-key", b"two")], True),
        ([(b"authorization", b"Bearer three")], False),
        ([(b"authorization", b"Basic one")], False),
        ([(b"authorization", b"Bearer ")], False),
        ([], False),
    ],
)
def test_keys(headers, allowed):
    try:
        Keys(["one", "two"]).check(headers)
    except RequestError as error:
        assert error.status == 401 and not allowed
    else:
        assert allowed


def test_without_keys_everybody_may_ask():
    Keys([""]).check([])
    assert not Keys([""])


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
        ("127.0.0.1", True, True, "127.0.0.1"),
    ],
)
def test_where_to_listen(given, agent, key, expected):
    assert listening_host(given, under_agent=agent, has_key=key) == expected


@pytest.mark.parametrize("given", ["0.0.0.0", "10.0.0.1", "::", "host.example"])
def test_on_a_persons_machine_the_network_needs_a_key(given):
    with pytest.raises(ConfigError, match="LLAMACPP_API_KEY"):
        listening_host(given, under_agent=False, has_key=False)
