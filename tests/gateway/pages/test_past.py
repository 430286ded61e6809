"""Whom /api/history tells what."""

from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.pages.past import history
from app.memory.ledger import ModelState, Tier
from app.memory.moves import Moves
from app.telemetry.past import Past
from tests.telemetry.examples import overview, sample, view


def told(holder):
    moves = Moves()
    moves.note(0.0, ModelState.COLD, Tier.DISK)
    seen = overview(view("a", moves=moves), view("b", moves=moves))
    past = Past(seen.view)
    for model in "ab":
        for caller in ("alice", "bob", ""):
            past.add(sample(model, caller=caller))
    found = history(past, seen, holder)
    requests = [(row["model"], row["caller"]) for row in found["requests"]]
    return requests, [row["model"] for row in found["moves"]]


def test_who_has_the_instances_key_sees_all():
    requests, moves = told(UNNAMED)
    assert len(requests) == 6 and moves == ["a", "b"]


def test_a_caller_of_the_keys_file_sees_its_own_requests_and_models():
    everything = Holder("alice")
    assert told(everything) == ([("a", "alice"), ("b", "alice")], ["a", "b"])
    some = Holder("alice", models=frozenset({"a"}))
    assert told(some) == ([("a", "alice")], ["a"])
