"""What answers at the hub's address, and how it is told."""

import json
from http.server import BaseHTTPRequestHandler

import pytest
from huggingface_hub import constants

from app.errors import TransferError
from app.models import greeting
from tests.threaded import ThreadedServer


class Answering(ThreadedServer):
    """Answers every request with this status and body."""

    def __init__(self, status, body):
        self.status, self.body = status, body

    def handler(self):
        return type("Bound", (Handler,), {"server_of": self})


class Handler(BaseHTTPRequestHandler):
    server_of = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.server_of.body
        self.send_response(self.server_of.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def greeted(monkeypatch, status, body, token):
    with Answering(status, body) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(greeting, "get_token", lambda: token)
        monkeypatch.setattr(greeting, "HfApi", lambda: greeting_api(server.url))
        return greeting.greet()


def greeting_api(url):
    from huggingface_hub import HfApi

    return HfApi(endpoint=url)


@pytest.mark.parametrize("token", [None, "hf_secret"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"{}"),
        (404, b"{}"),
        (407, b"a proxy wants a password"),
        (200, b"<html>Sign in to the network</html>"),
    ],
)
def test_what_is_no_hub_is_not_taken_for_one(monkeypatch, status, body, token):
    with pytest.raises(TransferError) as raised:
        greeted(monkeypatch, status, body, token)
    assert "hf_secret" not in str(raised.value)


def test_a_hub_that_names_nobody(monkeypatch):
    with pytest.raises(TransferError, match="does not answer as a hub"):
        greeted(monkeypatch, 200, b"{}", "hf_secret")


def test_a_hub(monkeypatch):
    assert greeted(monkeypatch, 200, json.dumps({"name": "me"}).encode(), "hf_secret").user == "me"
    assert greeted(monkeypatch, 200, b"[]", None).user == ""
