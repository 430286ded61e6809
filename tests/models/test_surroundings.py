import logging

import pytest
from huggingface_hub import close_session, constants

from app.errors import ConfigError, FormError
from app.models import hub_client, remote
from app.models.reference import HubFile, WebFile
from app.models.surroundings import check
from tests.hub import Hub
from tests.hub.socks import Socks

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "name, value",
    [
        ("HTTPS_PROXY", f"http://user:{SECRET}/x@proxy:3128"),
        ("https_proxy", f"http://user:{SECRET}#x@proxy:3128"),
        ("HTTP_PROXY", "http://user:99/s3cr3t@proxy:3128"),
        ("ALL_PROXY", f"user:{SECRET}@proxy:x"),
        ("all_proxy", f"ftp://user:{SECRET}@proxy"),
        ("http_proxy", f"http://{SECRET}@[::1"),
        ("HTTPS_PROXY", f"http://{SECRET}@proxy:3128\n"),
        ("HTTPS_PROXY", " "),
        ("HTTPS_PROXY", "http://proxy:0"),
        *(("HF_ENDPOINT", f"http://user:{c}{SECRET}@hub") for c in "\"'<>\\^\xa0é"),
        ("HTTPS_PROXY", f"http://us:{SECRET}\\cr3t@host:1"),
        ("HF_ENDPOINT", f"http://user:{SECRET}?@hub"),
        ("HF_ENDPOINT", "ftp://hub"),
        ("HF_ENDPOINT", "https://"),
        ("HF_ENDPOINT", "hub.example"),
    ],
)
def test_what_is_no_address_is_told_by_its_name_alone(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: is no address of a ") as raised:
        check({"PATH": "/", name: value})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "name, value",
    [
        ("HTTPS_PROXY", ""),
        ("HTTPS_PROXY", "proxy:3128"),
        ("https_proxy", "http://us%40er:p%2Fss@proxy.example:3128/"),
        ("ALL_PROXY", "socks5h://[::1]:1080"),
        ("HTTP_PROXY", "https://proxy"),
        ("NO_PROXY", "a, b"),
        ("HF_ENDPOINT", "http://user:word@mirror.example/api/hub"),
    ],
)
def test_what_is_one_is_taken(name, value):
    check({name: value})


def test_nothing_is_asked_by_way_of_a_proxy_that_cannot_be_read(monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:{SECRET}/x@proxy:3128")
    caches = remote.Caches(tmp_path, tmp_path, private=True)
    for reference in (HubFile("org/repo", "m.gguf"), WebFile("https://w.example/m.gguf")):
        with pytest.raises(ConfigError, match="HTTPS_PROXY"):
            remote.locate(reference, caches)


def test_what_the_library_cannot_use_is_not_shown(monkeypatch, tmp_path, session):
    """Whatever else it may not like."""

    def fails():
        raise ImportError(f"for http://user:{SECRET}@proxy")

    monkeypatch.setattr(hub_client, "default_client_factory", fails)
    with pytest.raises(ConfigError, match=r"^the environment's proxies .* \(ImportError\)$"):
        remote.locate(HubFile("org/repo", "m.gguf"), remote.Caches(tmp_path, tmp_path, True))


@pytest.fixture
def session():
    """The hub's library reads the environment once."""
    close_session()
    yield
    close_session()


def test_a_socks_proxy_is_gone_through(monkeypatch, tmp_path, session):
    with Hub({"org/repo": {"m.gguf": b"w" * 100}}) as hub, Socks() as socks:
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setenv("ALL_PROXY", socks.url)
        caches = remote.Caches(tmp_path, tmp_path, private=True)
        found = remote.locate(HubFile("org/repo", "m.gguf"), caches)
        asked = len(socks.asked)
        paths = remote.fetch(found, caches, lambda came: None, lambda path, source: None)
        assert paths[0].read_bytes() == b"w" * 100
        assert 0 < asked < len(socks.asked)  # by the hub's library, and by requests


def test_a_user_in_the_hubs_address_is_not_shown(monkeypatch, tmp_path, session):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://user:{SECRET}@hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FormError, match="at http://hub.example: not in") as raised:
        remote.locate(HubFile("org/repo", "m.gguf"), remote.Caches(tmp_path, tmp_path, True))
    assert SECRET not in str(raised.value) and hub_client.endpoint() == "http://hub.example"
    said = logging.LogRecord("x", 30, "", 0, "HEAD %s", (f"http://u:{SECRET}@h/p?q=1",), None)
    for handler in logging.getLogger("huggingface_hub").handlers:
        assert handler.filter(said)
    assert said.getMessage() == "HEAD http://h/p"
