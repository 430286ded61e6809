"""What clients get of the real llama-server through the front: errors, streams, paths, bodies."""

import gzip
import json
import urllib.error
import urllib.request

import openai
import pytest
from backports import zstd

from app.models import tiny
from tests.end_to_end.conftest import PATIENCE, starting

PICTURE = {
    "role": "user",
    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def url(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("shapes")
    with starting(folder, cache) as start:
        app = start("--model", str(tiny.ensure(folder)), "--set", "Model/endpoint_name=mine")
        yield app.ready().url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/mine/v1", api_key="k", max_retries=0) as client:
        yield client


def ask(url, body, **headers):
    """Status, headers and JSON of the answer to a POST."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, {"content-type": "application/json", **named})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


FORM = {"content_type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    "path, body, headers, status",
    [
        ("tokenize", {"content": "a"}, {"accept": "a/b;q=9"}, 400),  # an empty one of llama-server
        ("v1/audio/transcriptions", b"x", FORM, 400),  # another
        ("v1/audio/transcriptions", b"x", {"content_type": "multipart/form-data"}, 400),
        ("v1/audio/transcriptions", b"--b--\r\n", FORM, 400),
        ("v1/chat/completions", {"messages": 3}, {}, 400),
        ("v1/rerank", {"query": "a", "documents": ["b"]}, {}, 501),
        ("v1/nothing", {}, {}, 404),
        # What llama-server itself answers with 500:
        ("v1/chat/completions", {"messages": [{"content": "hi"}]}, {}, 400),
        ("v1/chat/completions", {**CHAT, "tools": "x"}, {}, 400),
        ("v1/chat/completions", {**CHAT, "reasoning_format": "x"}, {}, 400),
        ("v1/completions", {"prompt": None}, {}, 400),
        ("infill", {"input_prefix": "a"}, {}, 400),
        ("tokenize", {"content": 5}, {}, 400),
        ("v1/chat/completions", {"messages": [PICTURE]}, {}, 501),
    ],
)
def test_every_error_has_openais_shape(url, path, body, headers, status):
    found, told, answer = ask(f"{url}/mine/{path}", body, **headers)
    assert found == status and told["content-type"].startswith("application/json")
    assert set(answer) == {"error"} and {"message", "type", "code"} <= set(answer["error"])
    assert len(answer["error"]["message"]) > 5 and told["x-request-id"]


def test_texts_that_are_too_long_to_embed_or_to_rank(start, tmp_path):
    """llama-server answers 500 to the first, which clients send again."""
    of = {"model": str(tiny.ensure(tmp_path)), "context_size": 512}
    models = [{**of, "embedding": True}, {**of, "extra_args": "--reranking"}]
    named = [{**m, "endpoint_name": n} for m, n in zip(models, "er", strict=True)]
    url = start("--set", f"General/models={json.dumps(named)}").ready().url
    long = "word " * 600
    for path, body in (
        ("e/v1/embeddings", {"input": ["short", long]}),
        ("r/v1/rerank", {"query": "q", "documents": ["short", long]}),
    ):
        status, _, answer = ask(f"{url}/{path}", body)
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded"), path
    assert ask(f"{url}/r/v1/rerank", {"query": "q", "documents": ["a"], "top_n": -1})[0] == 400
    assert ask(f"{url}/e/v1/embeddings", {"input": "short"})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=0-3"},
        {"if_none_match": "*", "if_range": "x"},
        {f"x-{number}": "1" * 400 for number in range(90)},
        {"x_long": "1" * 20000},
        {"accept": "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"},  # as Java sends it
    ],
)
def test_no_header_of_a_client_spoils_its_answer(url, headers):
    assert ask(f"{url}/mine/tokenize", {"content": "a"}, **headers)[::2] == (200, {"tokens": [97]})


@pytest.mark.parametrize("coding, pack", [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_compressed_bodies_are_answered(url, coding, pack):
    packed = pack(json.dumps(CHAT).encode())
    status, _, answer = ask(f"{url}/mine/v1/chat/completions", packed, content_encoding=coding)
    assert status == 200 and answer["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize("effort", [{}, {"extra_body": {"return_progress": True}}])
def test_openais_response_stream_works(client, effort):
    with client.responses.stream(model="mine", input="hi", max_output_tokens=5, **effort) as stream:
        events = list(stream)
    done = events[-1].response
    assert events[-1].type == "response.incomplete" and done.status == "incomplete"  # by its limit
    first = events[0].response
    assert events[0].type == "response.created" and first.created_at > 0
    assert (first.model, first.output) == ("mine", [])
    texts = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert done.id == first.id and done.model == "mine" and done.output_text == texts[-1]


@pytest.mark.parametrize("prompts", [["Hello"], ["Hello", "abc"], ["a", "b", "c", "d", "e", "f"]])
def test_openais_stream_of_a_list_of_prompts_works(client, prompts):
    """llama-server sends an event that has nothing where it begins with another prompt."""
    stream = client.completions.create(model="mine", prompt=prompts, max_tokens=4, stream=True)
    came = [choice for event in stream for choice in event.choices]
    assert {choice.index for choice in came} == set(range(len(prompts)))


def test_the_model_is_found_below_its_path(client):
    (listed,) = client.models.list().data
    found = client.models.retrieve("mine")
    assert found == listed and found.id == "mine"
    meta = found.meta
    assert found.context >= found.meta["n_ctx"] > 0 and found.slots > 0
    assert found.capabilities == ["completion"]
    assert (meta["n_vocab"], meta["n_ctx_train"], meta["ftype"]) == (352, 4096, "F16")
    assert (meta["n_params"], meta["size"]) == (483968, 969216)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


@pytest.mark.parametrize("path", ["chat/completions", "responses", "v1/responses"])
def test_tokens_of_a_request_are_counted(url, path):
    body = CHAT | {"input": "hi"}
    status, _, answer = ask(f"{url}/mine/{path}/input_tokens", body)
    assert status == 200 and answer["input_tokens"] > 0
