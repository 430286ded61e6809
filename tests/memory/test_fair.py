import itertools
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from app.memory.caller import Caller
from app.memory.fair import REMEMBERED, Fair


@dataclass(eq=False)
class Request:
    caller: Caller
    since: float = 0.0

    def __repr__(self):
        return f"{self.caller.name}{self.since:g}"


TURN = itertools.count(100)  # the time of each turn


def order(fair, aged=-1.0):
    served = []
    while (request := fair.first(aged)) is not None:
        fair.serve(request, next(TURN))
        served.append(repr(request))
    return served


def waiting(*callers, each=3):
    fair = Fair()
    for caller in callers:
        for number in range(each):
            fair.join(Request(caller, number))
    return fair


A, B = Caller("key", "a"), Caller("key", "b")


def test_turns_go_round_the_callers_and_each_ones_requests_stay_in_order():
    assert order(waiting(A, B)) == ["a0", "b0", "a1", "b1", "a2", "b2"]


def test_who_was_served_least_recently_is_first():
    fair = waiting(A, B, each=1)
    fair.count(A, 0.0)
    assert order(fair) == ["b0", "a0"]


def test_who_comes_late_has_no_turns_to_catch_up():
    fair = waiting(A, each=6)
    for _ in range(3):
        fair.serve(fair.first(-1.0), next(TURN))
    for number in range(3):
        fair.join(Request(B, number))
    assert order(fair) == ["b0", "a3", "b1", "a4", "b2", "a5"]


def test_what_is_cheap_goes_a_turn_before_its_time_and_no_more():
    fair = waiting(A, B)
    served = []
    while (request := fair.first(-1.0, cheap=lambda each: each.caller is B)) is not None:
        fair.serve(request, next(TURN))
        served.append(repr(request))
    assert served == ["b0", "b1", "a0", "b2", "a1", "a2"]


def test_who_is_not_ready_is_passed_over_with_all_that_the_caller_has():
    fair = waiting(A, B)
    assert repr(fair.first(-1.0, lambda each: each.caller is B)) == "b0"
    assert fair.first(-1.0, lambda each: False) is None


def test_a_weight_gives_more_turns():
    served = order(waiting(Caller("key", "a", weight=2.0), B, each=4))[:6]
    assert sum(name.startswith("a") for name in served) == 4


def test_a_batch_waits_while_others_do_and_no_longer_than_the_bound():
    batch = Caller("key", "batch", batch=True)
    assert order(waiting(batch, A)) == ["a0", "a1", "a2", "batch0", "batch1", "batch2"]
    assert order(waiting(batch, A), aged=0.5)[:2] == ["batch0", "a0"]


def test_who_was_kept_waiting_by_own_requests_goes_before_nobody():
    """A crowd of one caller has waited for long, and has had its turns: who comes now does not wait
    for all of it."""
    fair = waiting(A, each=9)
    fair.serve(fair.first(-1.0), now=50.0)
    fair.join(Request(B, 60.0))
    assert repr(fair.first(aged=30.0)) == "b60"
    assert repr(fair.first(aged=55.0)) == "a1"  # it had no turn since


def test_the_last_of_who_has_most_makes_room():
    fair = waiting(A, each=3)
    assert repr(fair.last_of_most(B)) == "a2" and fair.last_of_most(A) is None
    assert waiting(A, each=1).last_of_most(B) is None


def test_who_waits_no_longer_is_forgotten():
    fair, left = waiting(A, each=1), Request(B)
    fair.join(left)
    fair.remove(left)
    fair.remove(left)
    assert fair.size == 1 and fair.oldest == 0.0 and order(fair) == ["a0"]
    assert fair.oldest is None and fair.size == 0


def test_callers_do_not_fill_the_memory():
    fair = Fair()
    for number in range(3 * REMEMBERED):
        fair.count(Caller("key", str(number)), 0.0)
    assert len(fair._clocks) == REMEMBERED


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_nobody_waits_for_more_than_a_turn_of_each_other_caller(steps):
    """While a request is first of its caller, every other caller is served at most twice."""
    fair, passed = Fair(), {}
    for number, (name, comes) in enumerate(steps):
        if comes or not fair.size:
            fair.join(Request(Caller("key", name), number))
            continue
        heads = {line[0].caller.name: line[0] for line in fair._lines.values()}
        request = fair.first(-1.0)
        fair.serve(request, next(TURN))
        for head in heads.values():
            if head is not request:
                counts = passed.setdefault(id(head), (head, {}))[1]
                counts[request.caller.name] = counts.get(request.caller.name, 0) + 1
                assert counts[request.caller.name] <= 2
