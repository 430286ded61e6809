import pytest

from app.errors import RequestError
from app.gateway.origins import check_local, stranger

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    "host, others",
    [
        ("localhost", {}),
        ("LocalHost:8080", {}),
        ("localhost.:8080", {}),
        ("127.0.0.1:8080", {}),
        ("127.255.0.3", {}),
        ("127.0.0.1.", {}),
        ("[::1]:8080", {}),
        ("[0:0:0:0:0:0:0:1]", {}),
        ("[::ffff:127.0.0.1]:8080", {}),
        ("localhost:8080", {"origin": "http://localhost:8080"}),
        ("localhost:9999", {"origin": "http://localhost:9999"}),  # through an SSH tunnel
        ("LOCALHOST:8080", {"origin": "http://localhost:8080"}),
        ("[::1]:8080", {"origin": "http://[::1]:8080"}),
        ("localhost:80", {"origin": "http://localhost"}),
        ("localhost", {"origin": "https://localhost:443"}),  # a proxy here ends TLS
        ("localhost:8080", {"sec-fetch-site": "same-origin"}),
        ("localhost:8080", {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}),
        ("localhost:8080", LINK),
    ],
)
def test_who_calls_this_machine_by_a_name_of_its_own_is_no_stranger(host, others):
    assert stranger("GET", heads({"host": host, **others})) is None


@pytest.mark.parametrize(
    "host, others, reason",
    [
        ("evil.example:8080", {}, "Host is 'evil.example:8080'"),
        ("evil.example", {"origin": "http://evil.example"}, "Host is 'evil.example'"),
        ("localhost.evil.example", {}, "Host"),
        ("127.0.0.1.evil.example", {}, "Host"),
        ("evil.example:80@localhost", {}, "Host"),
        ("localhost:80:80", {}, "Host"),
        ("localhost..", {}, "Host"),
        ("127.1", {}, "Host"),
        ("128.0.0.1", {}, "Host"),
        ("10.0.0.1:8080", {}, "Host"),
        ("[::2]", {}, "Host"),
        ("[::ffff:10.0.0.1]", {}, "Host"),
        ("::1", {}, "Host"),
        ("", {}, "Host is ''"),
        ("x" * 1000, {}, "x…'"),
        ("localhost:8080", {"origin": "null"}, "Origin is 'null'"),
        ("localhost:8080", {"origin": ""}, "Origin"),
        ("localhost:8080", {"origin": "http://evil.example"}, "Origin is 'http://evil.example'"),
        ("localhost:8080", {"origin": "http://localhost:3000"}, "Origin"),
        ("localhost:8080", {"origin": "http://localhost"}, "Origin"),
        ("localhost:8080", {"origin": "http://127.0.0.1:8080"}, "Origin"),
        ("localhost:8080", {"origin": "ftp://localhost:8080"}, "Origin"),
        ("localhost:8080", {"origin": "http://localhost:8080/"}, "Origin"),
        ("localhost:80", {"origin": "https://localhost"}, "Origin"),
        ("localhost:8080", {"origin": "http://user@localhost:8080"}, "Origin"),
        ("localhost:8080", {"sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
        ("localhost:8080", {**LINK, "sec-fetch-dest": "iframe"}, "Sec-Fetch-Site"),
        ("localhost:8080", {**LINK, "sec-fetch-mode": "no-cors"}, "Sec-Fetch-Site"),
        ("localhost:8080", {**LINK, "origin": "null"}, "Origin"),
    ],
)
def test_a_page_of_another_site_is_a_stranger(host, others, reason):
    assert reason in (stranger("GET", heads({"host": host, **others})) or "")


def test_a_link_only_opens_a_page():
    sent = heads({"host": "localhost:8080", **LINK})
    assert "Sec-Fetch-Site" in (stranger("POST", sent) or "")


def test_one_wrong_origin_of_several_is_enough():
    sent = heads({"host": "localhost", "origin": "http://localhost"})
    assert stranger("POST", [*sent, (b"origin", b"http://evil.example")])


def test_without_a_host_it_cannot_be_told_who_calls():
    assert stranger("GET", [])


def test_a_stranger_is_told_what_to_do():
    check_local("GET", heads({"host": "localhost"}))
    with pytest.raises(RequestError, match="http://localhost.*LLAMACPP_API_KEY") as raised:
        check_local("GET", heads({"host": "evil.example"}))
    assert (raised.value.status, raised.value.type) == (403, "permission_error")


def heads(named):
    return [(name.encode(), value.encode()) for name, value in named.items()]
