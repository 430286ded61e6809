import pytest

from app.errors import RequestError
from app.gateway.origins import check_local, named, stranger

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


ALLOWED = named("Models.example, proxy.example:8080,[fd00::1], app://obsidian.md,,null")


@pytest.mark.parametrize(
    "host, others",
    [
        ("models.example", {}),
        ("MODELS.example:81", {}),
        ("models.example.", {}),
        ("proxy.example:8080", {"origin": "http://proxy.example:8080"}),
        ("[fd00::1]:8080", {}),
        ("127.0.0.1:8080", {"origin": "https://models.example"}),  # a proxy that sends its own Host
        ("127.0.0.1:8080", {"origin": "https://models.example:444"}),
        ("127.0.0.1:8080", {"origin": "http://proxy.example:8080"}),
        ("localhost", {"origin": "null", "sec-fetch-site": "cross-site"}),
        ("localhost", {"origin": "app://obsidian.md", "sec-fetch-site": "cross-site"}),
        ("models.example", {"origin": "https://models.example", "sec-fetch-site": "same-origin"}),
    ],
)
def test_who_calls_by_an_allowed_name_is_no_stranger(host, others):
    sent = heads({"host": host, **others})
    assert stranger("POST", sent, ALLOWED) is None
    assert stranger("POST", sent)


@pytest.mark.parametrize(
    "host, others, reason",
    [
        ("proxy.example", {}, "Host"),
        ("proxy.example:8081", {}, "Host"),
        ("a.models.example", {}, "Host"),
        ("null", {}, "Host"),
        ("obsidian.md", {}, "Host"),
        ("localhost", {"origin": "https://proxy.example"}, "Origin"),
        ("localhost", {"origin": "app://obsidian.md.evil"}, "Origin"),
        ("localhost", {"origin": "ftp://models.example"}, "Origin"),
        ("localhost", {"sec-fetch-site": "cross-site"}, "Sec-Fetch-Site"),
        (
            "localhost",
            {"origin": "http://localhost", "sec-fetch-site": "cross-site"},
            "Sec-Fetch-Site",
        ),
    ],
)
def test_an_allowed_name_lets_no_other_in(host, others, reason):
    assert reason in (stranger("POST", heads({"host": host, **others}), ALLOWED) or "")


def test_of_two_origins_both_must_be_allowed():
    sent = [(b"host", b"localhost"), (b"origin", b"null"), (b"origin", b"http://evil.example")]
    assert stranger("POST", sent, ALLOWED)


def test_a_stranger_is_told_what_to_do():
    check_local("GET", heads({"host": "localhost"}))
    told = "http://localhost.*General/allowed_hosts.*LLAMACPP_API_KEY"
    with pytest.raises(RequestError, match=told) as raised:
        check_local("GET", heads({"host": "evil.example"}))
    assert (raised.value.status, raised.value.type) == (403, "permission_error")


def heads(named):
    return [(name.encode(), value.encode()) for name, value in named.items()]
