"""Certificates: a server whose own authority the environment names."""

import ssl
import subprocess

import pytest

from app.models.retry import CutError
from app.models.session import BUNDLE, BUNDLES
from app.models.web import Web
from tests.hub.storage import Storage


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server by TLS, and the file with its certificate."""
    for name in (*BUNDLES, BUNDLE):
        monkeypatch.delenv(name, raising=False)
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    line = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 1"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*line.split(), *names], check=True, capture_output=True)
    with Storage({"/m.gguf": b"GGUF"}) as storage:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        listener = storage._server
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
        yield storage.url.replace("http://", "https://") + "/m.gguf", certificate


@pytest.mark.parametrize("name", [*BUNDLES, BUNDLE])
def test_an_authority_of_ones_own_is_believed(secure, monkeypatch, name):
    url, certificate = secure
    with pytest.raises(CutError, match="certificate"):
        Web(url).find()
    monkeypatch.setenv(name, str(certificate))
    assert Web(url).find().size == 4
    assert Web(url, allows=lambda address: True).find().size == 4
