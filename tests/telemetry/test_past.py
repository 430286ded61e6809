"""What is kept of finished requests, and how it is told."""

import json

import pytest

from app.memory.ledger import ModelState, Tier
from app.memory.moves import Departure, Moves
from app.telemetry import past
from app.telemetry.past import KEPT, Past, move_row, request_row
from app.telemetry.samples import Tokens, read_tokens
from tests.telemetry.examples import sample, view


@pytest.fixture(autouse=True)
def clocks(monkeypatch):
    """The app has run for 50 s; it is 1000 s after the epoch."""
    monkeypatch.setattr(past.clock, "now", lambda: 50.0)
    monkeypatch.setattr(past.clock, "wall", lambda: 1000.0)


def test_the_last_requests_are_kept_and_no_more():
    kept = Past(list)
    for status in range(2 * KEPT):
        kept.add(sample(status=status))
    found = kept.requests()
    assert [ended.sample.status for ended in found] == list(range(KEPT, 2 * KEPT))
    assert [ended.number for ended in kept.requests(2 * KEPT - 2)] == [2 * KEPT - 1, 2 * KEPT]
    assert kept.requests(2 * KEPT) == []


def test_a_request_as_it_is_told():
    kept = Past(list)
    tokens = Tokens(prompt=10, cached=4, generated=6)
    parts = {"wait": 2.5, "woke": 2.25, "first_token": 2.75, "operation": "chat"}
    kept.add(sample("a", latency=3.123456, tokens=tokens, caller="alice", **parts))
    kept.add(sample("a", status=503, tokens=Tokens()))
    first, second = json.loads(json.dumps([request_row(ended) for ended in kept.requests()]))
    assert first == {
        "time": 1000.0,
        "model": "a",
        "caller": "alice",
        "operation": "chat",
        "status": 200,
        "latency": 3.1235,
        "wait": 2.5,
        "woke": 2.25,
        "prefill": 0.25,
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "generated_tokens": 6,
    }
    assert (second["wait"], second["prefill"]) == (None, None)  # it never got its model


def test_what_was_asked_is_told_where_it_is_kept():
    kept = Past(list)
    kept.add(sample("a", prompt="hello"))
    kept.add(sample("a"))
    rows = [request_row(ended) for ended in kept.requests()]
    assert rows[0]["prompt"] == "hello" and "prompt" not in rows[1]


def test_the_prefill_of_an_answer_that_came_whole_is_what_llama_server_tells():
    told = b'{"timings":{"cache_n":18,"prompt_n":1,"prompt_ms":400.0,"predicted_n":3}}'
    kept = Past(list)
    kept.add(sample(wait=0.5, tokens=read_tokens(b"", told)))
    kept.add(sample(wait=0.5, tokens=Tokens()))
    assert [request_row(ended)["prefill"] for ended in kept.requests()] == [0.4, None]


def test_the_moves_of_each_model_after_those_that_are_known():
    moves = Moves()
    moves.note(10.0, ModelState.READY, Tier.GPU)
    moves.left(Departure.ROOM)
    moves.note(40.0, ModelState.PARKING, Tier.GPU)
    kept = Past(lambda: [view("a", moves=moves), view("b", moves=Moves())])
    assert [(model, move.number) for model, move in kept.moves({})] == [("a", 1), ("a", 2)]
    ((model, move),) = kept.moves({"a": 1})
    row = {"time": 990.0, "model": "a", "state": "parking", "tier": "gpu", "reason": "room"}
    assert move_row(model, move) == row
    assert kept.moves({"a": 2}) == []
