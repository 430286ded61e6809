"""One instance with a key, which all client libraries call."""

import json
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from app.models import tiny_writer
from tests.end_to_end.conftest import PATIENCE, starting
from tests.end_to_end.test_serving import until

HERE = Path(__file__).parent
KEY = "sk-clients-6f1c"
CONTEXT = 32768  # tokens: an agent's instructions and tools are long
LARGE = "word " * (CONTEXT * 16)  # more than a context of this size may be asked
CALL = "<|fim_prefix|>"  # with this token a tool call begins in tools.jinja

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "The weather of a city.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}


def models(folder):
    """`tiny` chats, `caller` calls a tool whenever it has one, `vectors` embeds, and `narrow` takes
    one request at a time."""
    path = folder / "tiny.gguf"
    tiny_writer.write(path, context=CONTEXT)
    tokens, _ = tiny_writer._vocabulary()
    common = {"model": str(path), "threads": 1, "context_size": CONTEXT}
    template = f"--chat-template-file {HERE / 'tools.jinja'}"
    calls = f"{template} --logit-bias {tokens.index(CALL)}+100"
    return [
        {**common, "endpoint_name": "tiny", "extra_args": template},
        {**common, "endpoint_name": "caller", "extra_args": calls},
        {**common, "endpoint_name": "vectors", "embedding": True, "context_size": 512},
        {**common, "endpoint_name": "narrow", "max_concurrent_requests": 1},
    ]


@pytest.fixture(scope="session")
def app(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("clients")
    config = folder / "form.json"
    config.write_text(json.dumps({"General": {"models": models(folder)}}))
    with starting(folder, cache) as start:
        yield start("--config", str(config), LLAMACPP_API_KEY=KEY).ready()


def ask(app, path, **options):
    headers = {"Authorization": f"Bearer {KEY}"}
    return requests.post(app.url + path, headers=headers, timeout=PATIENCE, **options)


def denied(app):
    """How many requests `narrow` has answered with 429."""
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = requests.get(f"{app.url}/api/status", headers=headers, timeout=PATIENCE)
    return {model["name"]: model["denied"] for model in answer.json()["models"]}["narrow"]


@contextmanager
def busy(app):
    """`narrow` is taken, until it has refused one request more."""
    before, over = denied(app), threading.Event()
    body = {"prompt": "Hello", "max_tokens": -1, "stream": True}
    stream = ask(app, "/narrow/v1/completions", json=body, stream=True)
    chunks = stream.iter_content(1)
    assert stream.ok and next(chunks)

    def release():
        until(lambda: over.is_set() or denied(app) > before)
        chunks.close()
        stream.close()

    releaser = threading.Thread(target=release)
    releaser.start()
    try:
        yield
    finally:
        over.set()
        releaser.join()
