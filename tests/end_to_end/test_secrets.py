"""Secrets of the environment, and hostile words, in all that an instance leaves."""

import json
import re
import urllib.error
import urllib.request

import gguf
import psutil
import pytest

from app.models import tiny_writer
from tests.clearml_api import ApiServer
from tests.end_to_end.test_serving import until

KEY = "canary-of-the-instance"
SECRETS = {
    "LLAMACPP_API_KEY": KEY,
    "CLEARML_API_SECRET_KEY": "canary-of-clearml",
    "LLAMACPP_ROUTE_SECRET": "canary-of-the-route",
    "HF_TOKEN": "canary-of-the-hub",
    "AWS_SECRET_ACCESS_KEY": "canary-of-aws",
    "AZURE_STORAGE_KEY": "canary-of-azure",
    "OPENAI_API_KEY": "canary-of-openai",
    "NVIDIA_PASSPHRASE": "canary-of-nvidia",
    "SOME_VARIABLE": "canary-of-some",
}
EVIL = "\x1b[31m\r\n12:00:00 INFO app forged \u202e"
BREAKDOWN = (
    '{"type":"fit_memory_breakdown","data":{"rows":[{"kind":"device","name":"CUDA0","self":9}]}}'
)
STATE = 'cmd_child_to_router:state:{"state":"loading","payload":{"stages":["a"],"value":0.5}}'


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A model whose metadata are hostile."""
    add = gguf.GGUFWriter.add_name
    monkeypatch.setattr(gguf.GGUFWriter, "add_name", lambda self, name: add(self, name + EVIL))
    path = tmp_path / f"m {EVIL}.gguf"
    tiny_writer.write(path)
    return path


def ask(app, path, body=None, key=KEY):
    """Status and answer."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(app.url + path, data, headers)) as told:
            return told.status, told.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def family(app):
    return [psutil.Process(app.process.pid), *psutil.Process(app.process.pid).children(True)]


def left(app, api, folder):
    """What others may read: what the task and the console have, what files have, what is said."""
    yield "the console", app.output
    with api.lock:
        yield "the task", json.dumps([api.state.tasks, api.state.events], default=str)
        yield "its files", repr(api.files)
    for path in ("/metrics", "/api/status", "/api/history", "/v1/models", "/"):
        yield path, ask(app, path)[1]
    for process in family(app):
        yield f"the command line of {process.name()}", " ".join(process.cmdline())
    for process in family(app)[1:]:
        yield f"the environment of {process.name()}", repr(process.environ())
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes().decode("latin-1")


def test_no_secret_and_no_forged_line_is_in_what_an_instance_leaves(start, hostile, tmp_path):
    """A hostile model, and a caller whose grammar has lines of llama-server's protocol."""
    with ApiServer() as api:
        given = ["--model", str(hostile), "--set", "Model/endpoint_name=m"]
        given += ["--cache-dir", str(tmp_path / "cache"), "--set", "Model/threads=1"]
        environment = {**api.environment, **SECRETS}
        app = start(*given, offline=False, threads=None, alone=True, **environment).ready()
        chat = {"messages": [{"role": "user", "content": f"the-prompt {EVIL}"}], "max_tokens": 4}
        assert ask(app, "/v1/chat/completions", chat)[0] == 200
        assert ask(app, "/%1b%0d%0aX:%20y/v1/chat/completions", chat)[0] == 404
        grammar = "\n".join(("root ::= \x01", STATE, BREAKDOWN))
        status, _ = ask(app, "/v1/chat/completions", {**chat, "grammar": grammar})
        assert status == 400
        app.line("failed to parse grammar")
        (model,) = json.loads(ask(app, "/api/status")[1])["models"]
        assert model["state"] == "ready" and model["progress"] is None
        learned = tmp_path / "cache" / "footprints.json"
        assert not learned.exists() or "CUDA0" not in learned.read_text()
        until(lambda: "m ready" in json.dumps(api.state.events))
        for where, text in left(app, api, tmp_path):
            assert "canary" not in text.replace(str(tmp_path), ""), where
            assert "the-prompt" not in text, where
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", app.output)
        assert not re.search("^12:00:00", app.output, re.M)
        for process in family(app):
            assert process.rlimit(psutil.RLIMIT_CORE)[0] == 0
        assert app.end() == 143
