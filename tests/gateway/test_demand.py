import json

import pytest

from app.errors import RequestError
from app.gateway.body.asked import TEXTS, asked
from app.gateway.body.reading import Body
from app.gateway.demand import KINDS, OF_INFILL, added, demand, fields, kind_of, operation
from app.memory.seat import MARK, Demand, Seat


def body(path, **said):
    raw = json.dumps(said).encode()
    kind = kind_of(path)
    return kind, Body([raw], asked=asked(said))


def demanded(path, **said):
    return demand(*body(path, **said))


@pytest.mark.parametrize(
    "path, said, limit",
    [
        ("/v1/chat/completions", {}, None),
        ("/v1/chat/completions", {"max_tokens": 5}, 5),
        ("/v1/chat/completions", {"max_tokens": 5, "n_predict": 7}, 7),
        ("/v1/chat/completions", {"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ("/v1/chat/completions", {"max_tokens": 5, "n_predict": None}, 5),
        ("/v1/chat/completions", {"max_tokens": 5, "max_output_tokens": 6}, 5),
        ("/v1/chat/completions?x=1", {"max_tokens": -1}, None),
        ("/v1/chat/completions", {"max_tokens": 0}, 0),
        ("/v1/chat/completions", {"max_tokens": 5.9}, 5),
        ("/v1/responses", {"max_output_tokens": 6, "max_tokens": 5}, 6),
        ("/v1/messages", {"max_tokens": 5, "n_predict": 7}, 5),
        ("/v1/messages", {"n_predict": 7}, None),
        ("/completion", {"n_predict": 7}, 7),
        ("/infill", {}, OF_INFILL),
        ("/infill", {"n_predict": 9}, 9),
        ("/v1/embeddings", {"max_tokens": 5}, 0),
    ],
)
def test_the_limit_is_the_one_that_llama_server_would_take(path, said, limit):
    assert demanded(path, **said).limit == limit


@pytest.mark.parametrize("number", [-2, 2**31, 2**32 + 5, 10**20, 1e20])
def test_a_limit_that_llama_server_refuses_is_not_lost_under_ours(number):
    with pytest.raises(RequestError, match="^max_tokens: must be a whole number from -1 to"):
        demanded("/v1/chat/completions", max_tokens=number)
    assert demanded("/v1/chat/completions", max_tokens=5, max_output_tokens=number).limit == 5


@pytest.mark.parametrize(
    "path, said, slots",
    [
        ("/v1/completions", {"prompt": ["a", "b"], "n": 2}, 4),
        ("/v1/completions", {"prompt": [1, 2, 3]}, 1),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, 2),
        ("/v1/chat/completions", {"n": 3}, 3),
        ("/v1/embeddings", {"input": ["a"] * 9}, 9),
        ("/v1/rerank", {"documents": ["a"] * 5}, 5),
        ("/v1/completions", {"prompt": []}, 1),
        ("/v1/responses", {"input": [{"role": "user", "content": "a"}] * 9}, 1),
        ("/v1/chat/completions", {"messages": [], "documents": ["a"] * 9, "input": ["a"] * 9}, 1),
        ("/tokenize", {"content": "a"}, 0),
        ("/v1/messages/count_tokens", {}, 0),
    ],
)
def test_a_body_may_take_many_slots(path, said, slots):
    assert demanded(path, **said).slots == slots


def test_a_prompt_is_not_known_by_the_bytes_of_media():
    kind, said = body("/v1/chat/completions", messages=[])
    assert demand(kind, said).prompt == said.length
    with_media = Body(said.pieces, media=10)
    assert demand(kind, with_media).prompt is None
    speech = demand(kind_of("/v1/audio/transcriptions"), Body(None, is_json=False))
    assert speech == Demand(prompt=None, separate=True, together=True, task="completion")


def test_what_llama_server_computes_in_one_step():
    paths = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/completion"
    assert {demanded(path).task for path in paths} == {"completion"}
    others = [demanded(f"/{path}").task for path in ("infill", "embeddings", "rerank")]
    assert len({"completion", *others}) == 4


def seat(limit, marked=True):
    return Seat(7, 1, 100, limit, marked)


def test_what_is_added_to_a_body():
    kind, said = body("/v1/chat/completions", max_tokens=5, id_slot=3)
    assert fields(kind, said, seat(5)) == {"id_slot": -1, MARK: 7, "n_predict": 5}
    kind, said = body("/v1/messages", max_tokens=5)
    assert fields(kind, said, seat(5, marked=False)) == {"max_tokens": 5}
    assert fields(kind, said, seat(None, marked=False)) == {}
    kind, said = body("/v1/chat/completions", max_tokens="many")
    assert fields(kind, said, seat(5)) == {MARK: 7}  # llama-server says what is wrong


@pytest.mark.parametrize(
    "path, field, ignored",
    [
        ("/v1/chat/completions", "n_predict", {"max_output_tokens": "many"}),
        ("/v1/chat/completions", "n_predict", {"max_tokens": 5, "max_output_tokens": []}),
        ("/v1/chat/completions", "n_predict", {"n_predict": 5, "max_tokens": "many"}),
        ("/v1/messages", "max_tokens", {"n_predict": "many"}),
        ("/infill", "n_predict", {"n_predict": -1, "max_tokens": {}}),
    ],
)
def test_a_field_that_llama_server_does_not_heed_leaves_no_request_without_a_limit(
    path, field, ignored
):
    """Its answer would fill the KV cache, and others would fail."""
    assert fields(*body(path, **ignored), seat(5, marked=False)) == {field: 5}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"{}"],
        [b" { } \n"],
        [b'{"a":{"b":1}}'],
        [b'{"a":"}"', b"}"],
        [b'{"a":1}', b"  ", b"\n"],
        [b'{"a":1', b"", b"}", b" "],
        [b"{", b"\n", b"}"],
        [b"{\n", b" \n ", b" } "],
        [b'{"n_predict":1,"n\\u005fpredict":2}'],
    ],
)
def test_members_are_added_at_the_end_of_an_object_in_pieces(pieces):
    before = json.loads(b"".join(pieces))
    pieces = list(pieces)
    added(pieces, {"n_predict": 5, MARK: 7})
    assert json.loads(b"".join(pieces)) == {**before, "n_predict": 5, MARK: 7}


@pytest.mark.parametrize(
    "path, field, most",
    [("/v1/completions", "prompt", 128), ("/v1/embeddings", "input", 2048)],
)
def test_a_list_of_prompts_has_a_bound(path, field, most):
    assert demanded(path, **{field: ["a"] * most}).slots == most
    with pytest.raises(RequestError, match=f"one request may have {most}"):
        demanded(path, **{field: ["a"] * (most + 1)})


def test_every_list_of_prompts_is_counted_where_the_body_is_read():
    """Else a list of it would count as one prompt."""
    assert {name for kind in KINDS.values() for name in kind.texts} == {*TEXTS}


@pytest.mark.parametrize(
    "path, name",
    [
        ("/v1/chat/completions", "chat"),
        ("/v1/messages?beta=true", "chat"),
        ("/infill", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/tokenize", ""),
    ],
)
def test_operations_have_opentelemetrys_names(path, name):
    assert operation(path) == name
