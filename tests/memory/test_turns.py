import random
import statistics
import time
from dataclasses import replace

import pytest

from app.memory.turns import LONGEST_LINGER, Stage, Standing, Turns, assign, order
from app.planning.amounts import HOST
from tests.simulator import Sim, callers

BUDGET = {"d": 10}


def standing(name, stage=Stage.AWAY, **more):
    return Standing(name, {"d": 10}, stage, **more)


def test_many_go_before_few_until_these_are_late():
    one = standing("a", waiting_since=0.0, waiting=1, switch_cost=1.0)
    three = standing("b", waiting_since=3.0, waiting=3, switch_cost=1.0)
    assert [r.name for r in order([one, three], 3.9, 60.0)] == ["b", "a"]
    assert [r.name for r in order([one, three], 4.0, 60.0)] == ["a", "b"]


def test_of_equals_the_younger_goes_first_of_those_that_are_late_the_older():
    waiting = [standing("a", waiting_since=1.0), standing("b", waiting_since=2.0)]
    assert [r.name for r in order(waiting, 3.0, 60.0)] == ["b", "a"]
    assert [r.name for r in order(waiting, 5.5, 60.0)] == ["a", "b"]
    assert [r.name for r in order(waiting, 9.0, 60.0)] == ["a", "b"]


def test_who_waits_is_late_only_after_a_turn_and_a_half_of_his():
    one = standing("a", waiting_since=0.0, waiting=1, switch_cost=0.1, turn=2.0)
    three = standing("b", waiting_since=1.0, waiting=3, switch_cost=0.1)
    assert [r.name for r in order([one, three], 3.3, 60.0)] == ["b", "a"]
    assert [r.name for r in order([one, three], 3.5, 60.0)] == ["a", "b"]


def test_requests_are_gathered_for_a_moment_of_what_the_turn_before_took():
    """Where a switch costs nothing, callers who go round together still do so more cheaply."""
    leaves = standing("a", Stage.HERE, last_used=10.0, turn=1.0)
    comes = standing("b", waiting_since=9.0)
    found = assign([leaves, comes], BUDGET, 10.0, 60)
    assert not found.begin and found.again_at == pytest.approx(10.02)
    assert assign([leaves, comes], BUDGET, 10.021, 60).begin
    long = replace(leaves, turn=100.0)
    assert assign([long, comes], BUDGET, 10.0, 60).again_at == pytest.approx(10.05)


def test_who_asks_just_after_another_model_was_asked_for_is_served_with_the_others():
    """The quantum of the model that is here has long been over."""
    here = standing("a", Stage.HERE, leased=1, last_used=99.0, here_since=10.0, turn=89.0)
    waits = standing("b", waiting_since=100.0)
    found = assign([here, waits], BUDGET, 100.01, 60)
    assert not found.draining and found.again_at == pytest.approx(100.05)
    assert assign([here, waits], BUDGET, 100.06, 60).draining == {"a"}


def test_who_asks_with_others_after_an_idle_moment_is_served_with_them():
    """A program starts its callers, a few ms one after the other: two for a, which has been idle,
    and one for b between them. Result: both of a are served in one turn."""
    sim = Sim({"a": 10, "b": 10}, 10, cost=0.001)
    for when, name in ((0.0, "a"), (10.0, "a"), (10.002, "b"), (10.005, "a")):
        sim.at(when, lambda name=name: sim.request(name, 1.0))
    sim.run()
    assert [name for name, _ in sim.done] == ["a", "a", "a", "b"] and sim.switches == 2


def test_one_that_leaves_keeps_nobody_from_its_place_though_it_is_pinned_meanwhile():
    leaves, waits = standing("a", Stage.LEAVING, pinned=True), standing("b", waiting_since=1.0)
    assert not assign([leaves, waits], BUDGET, 2.0, 60).refused
    assert assign([replace(leaves, stage=Stage.HERE), waits], BUDGET, 2.0, 60).refused


def test_a_turn_that_lasted_long_counts_for_five_seconds():
    waits = [
        standing("a", waiting_since=0.0, waiting=1, switch_cost=0.1, turn=600.0),
        standing("b", waiting_since=7.0, waiting=3, switch_cost=0.1),
    ]
    assert [r.name for r in order(waits, 7.8, 60.0)] == ["b", "a"]
    assert [r.name for r in order(waits, 8.0, 60.0)] == ["a", "b"]


def test_a_parked_one_leaves_the_memory_of_the_others_when_its_time_is_over():
    parked = timed(Stage.AWAY, parked=True)
    assert assign([parked], BUDGET, 1900.0, 60).unused == UNUSED
    assert assign([timed(Stage.AWAY)], BUDGET, 1900.0, 60) == Turns()
    asked = replace(parked, waiting=1, waiting_since=1900.0)
    assert not assign([asked], BUDGET, 1900.0, 60).unused


def test_priority_goes_first_until_others_are_overdue():
    standings = [
        standing("a", waiting_since=3.0),
        standing("b", waiting_since=1.0),
        standing("c", waiting_since=5.0, priority=1),
        standing("d"),
    ]
    assert [r.name for r in order(standings, 6.0, 60.0)] == ["c", "b", "a"]
    assert [r.name for r in order(standings, 32.0, 60.0)] == ["b", "c", "a"]  # b is overdue


def test_an_idle_model_leaves_at_once():
    found = assign([standing("a", Stage.HERE), standing("b", waiting_since=1.0)], BUDGET, 1.0, 60)
    assert [(turn.name, turn.evict) for turn in found.begin] == [("b", ("a",))]


def test_who_leaves_for_another_is_waited_for_too():
    """x (6) leaves, slowly, for t (2); u (6) lets b (4) go. Result: u begins after both."""
    standings = [
        Standing("x", {"d": 6}, Stage.LEAVING),
        Standing("t", {"d": 2}, Stage.COMING),
        Standing("b", {"d": 4}, Stage.HERE),
        Standing("u", {"d": 6}, Stage.AWAY, waiting_since=0.0),
    ]
    (turn,) = assign(standings, BUDGET, 1.0, 60).begin
    assert turn.evict == ("b",) and {*turn.after} == {"b", "x"}


def test_who_leaves_another_gpu_is_not_waited_for():
    both = {"d": 10, "x": 10, HOST: 9}
    standings = [
        Standing("x", {"d": 6, HOST: 1}, Stage.LEAVING),
        Standing("t", {"d": 9, HOST: 1}, Stage.COMING),
        Standing("b", {"x": 9, HOST: 1}, Stage.HERE),
        Standing("u", {"x": 6, HOST: 1}, Stage.AWAY, waiting_since=0.0),
    ]
    (turn,) = assign(standings, both, 1.0, 60).begin
    assert turn.evict == turn.after == ("b",)
    (turn,) = assign(standings, {**both, HOST: 2}, 1.0, 60).begin  # host memory is short, too
    assert {*turn.after} == {"b", "x"}


UNUSED = (("a", "unused for 30 minutes"),)


def timed(stage=Stage.HERE, **more):
    return standing("a", stage, ttl=1800.0, last_used=100.0, **more)


@pytest.mark.parametrize(
    "model, now, expected",
    [
        pytest.param(timed(), 1899.0, Turns(again_at=1900.0), id="not-yet"),
        pytest.param(timed(), 1900.0, Turns(unused=UNUSED), id="due"),
        pytest.param(timed(leased=1), 1900.0, Turns(again_at=3700.0), id="serves"),
        pytest.param(
            timed(waiting=1, waiting_since=0.0), 1900.0, Turns(again_at=3700.0), id="is-waited-for"
        ),
        pytest.param(timed(pinned=True), 1900.0, Turns(), id="pinned"),
        pytest.param(timed(Stage.COMING), 1900.0, Turns(), id="loads"),
        pytest.param(timed(Stage.LEAVING), 1900.0, Turns(), id="leaves-already"),
        pytest.param(timed(Stage.AWAY), 1900.0, Turns(), id="away"),
        pytest.param(standing("a", Stage.HERE), 1e9, Turns(), id="no-time-is-set"),
    ],
)
def test_when_a_model_leaves_unused(model, now, expected):
    assert assign([model], BUDGET, now, 60) == expected


def test_the_next_that_is_due_is_looked_at_next():
    soon = Standing("b", {}, Stage.HERE, ttl=60.0, last_used=1880.0)
    assert assign([timed(), soon], BUDGET, 1890.0, 60) == Turns(again_at=1900.0)
    assert assign([timed(), soon], BUDGET, 1900.0, 60) == Turns(unused=UNUSED, again_at=1940.0)


def test_a_model_that_makes_room_does_not_leave_twice():
    waits = standing("b", waiting_since=1900.0)
    found = assign([timed(), waits], BUDGET, 1900.0, 60)
    assert [turn.evict for turn in found.begin] == [("a",)] and not found.unused


def test_in_the_simulator_models_leave_unused_and_come_back():
    """a and b fit beside each other, and are used for 100 s. Result: each leaves its time after its
    last request, and serves the next."""
    sim = callers(Sim({"a": 5, "b": 5}, 10, ttl={"a": 60.0, "b": 10.0}), ["ab" * 50], 1.0)
    sim.at(500.0, lambda: sim.request("a", 1.0))
    sim.run()
    last = sim.last_used["b"]
    assert sim.left == [("b", last + 10), ("a", last - 1 + 60), ("a", 500 + 1 + 1 + 60)]
    assert len(sim.done) == 101


def test_requests_are_collected_for_a_moment_before_a_switch():
    idle = standing("a", Stage.HERE, last_used=1.0, switch_cost=1.0)
    waits = standing("b", waiting_since=1.02, switch_cost=1.0)
    assert assign([idle, waits], BUDGET, 1.02, 60) == Turns(again_at=1.07)
    assert assign([idle, waits], BUDGET, 1.07, 60).begin
    cold = standing("b", waiting_since=1.02, switch_cost=1.0)
    assert assign([cold], BUDGET, 1.02, 60).begin  # nobody leaves for it


def test_nobody_behind_takes_the_place_for_which_requests_are_gathered():
    idle = standing("a", Stage.HERE, last_used=1.0, switch_cost=1.0)
    two = standing("b", waiting_since=2.0, waiting=2, switch_cost=1.0)
    one = standing("c", waiting_since=1.5, waiting=1, switch_cost=1.0)
    assert assign([idle, two, one], BUDGET, 2.01, 60) == Turns(again_at=2.05)
    assert [turn.name for turn in assign([idle, two, one], BUDGET, 2.05, 60).begin] == ["b"]


def test_one_in_demand_keeps_its_place_for_a_quantum_then_is_held_back():
    busy = standing("a", Stage.HERE, leased=1, here_since=10.0, switch_cost=2.0)
    waits = standing("b", waiting_since=11.0)
    assert assign([busy, waits], BUDGET, 12.0, 60) == Turns(again_at=18.0)
    assert assign([busy, waits], BUDGET, 18.0, 60) == Turns(draining=frozenset("a"))


@pytest.mark.parametrize("waiting, first", [(3, "a"), (5, "hog")])
def test_four_requests_for_a_hog_count_as_one(waiting, first):
    hog = standing("hog", waiting_since=1.0, waiting=waiting, switch_cost=1.0, hog=True)
    one = standing("a", waiting_since=1.0, waiting=1, switch_cost=1.0)
    assert [r.name for r in order([hog, one], 1.5, 60.0)][0] == first


def test_a_hog_is_late_after_twice_the_time_and_nobody_is_overdue_later():
    hog = standing("hog", waiting_since=0.0, waiting=1, switch_cost=1.0, hog=True)
    young = standing("a", waiting_since=7.0, waiting=1, switch_cost=1.0)
    assert [r.name for r in order([hog, young], 7.9, 60.0)] == ["a", "hog"]
    assert [r.name for r in order([hog, young], 8.0, 60.0)] == ["hog", "a"]
    assert [r.name for r in order([hog, young], 7.5, 15.0)] == ["hog", "a"]  # half of the bound


@pytest.mark.parametrize(
    "other, until",
    [
        pytest.param(standing("b", waiting_since=11.0, waiting=1), 14.0, id="none"),
        pytest.param(standing("b", waiting_since=11.0, waiting=9, hog=True), 18.0, id="a-hog"),
    ],
)
def test_a_hog_keeps_its_place_for_half_a_quantum_while_one_waits_that_is_none(other, until):
    hog = standing(
        "hog", Stage.HERE, leased=4, waiting=9, here_since=10.0, switch_cost=2.0, hog=True
    )
    assert assign([hog, other], BUDGET, 12.0, 60) == Turns(again_at=until)
    assert assign([hog, other], BUDGET, until, 60).draining == {"hog"}
    meek = replace(hog, hog=False)
    assert assign([meek, other], BUDGET, 12.0, 60) == Turns(again_at=18.0)


def test_without_a_gpu_models_take_turns_on_host_memory():
    hog = Standing("hog", {HOST: 10}, Stage.HERE, leased=1, hog=True, here_since=10.0)
    hog, waits = replace(hog, switch_cost=2.0), Standing("b", {HOST: 10}, Stage.AWAY)
    waits = replace(waits, waiting_since=11.0)
    assert assign([hog, waits], {HOST: 10}, 12.0, 60) == Turns(again_at=14.0)


def test_a_hog_keeps_its_place_beside_one_that_waits_for_another_gpu_or_that_comes():
    hog, away = Standing("hog", {"d": 10, HOST: 1}, Stage.HERE, leased=1, hog=True), Stage.AWAY
    hog = replace(hog, here_since=10.0, switch_cost=2.0)
    waits = Standing("b", {"d": 9, HOST: 1}, away, waiting_since=11.0, hog=True)
    busy = Standing("y", {"x": 9}, Stage.HERE, leased=1, here_since=14.0, switch_cost=9.0)
    other = Standing("c", {"x": 8, HOST: 1}, away, waiting_since=11.0)
    comes = Standing("e", {"d": 2, HOST: 1}, away, waiting_since=11.0, waiting=5)
    both = {"d": 12, "x": 9, HOST: 9}
    for standings in ([hog, waits, busy, other], [hog, waits, comes]):
        assert not assign(standings, both, 15.0, 60).draining
        assert "hog" in assign(standings, both, 18.0, 60).draining
    assert assign([hog, replace(waits, hog=False)], both, 15.0, 60).draining == {"hog"}


def test_many_who_wait_shorten_the_quantum():
    busy = standing("a", Stage.HERE, leased=1, here_since=10.0, switch_cost=2.0)
    waits = [standing(str(n), waiting_since=11.0) for n in range(10)]
    assert assign([busy, *waits], BUDGET, 12.0, 60).again_at == 13.0


def test_one_whose_next_request_comes_soon_may_linger_a_little():
    standings = [
        standing("a", Stage.HERE, last_used=20.0, here_since=19.0, switch_cost=2.0, gap=0.01),
        standing("b", waiting_since=11.0),
    ]
    assert assign(standings, BUDGET, 20.1, 60) == Turns(again_at=20.2)
    assert assign(standings, BUDGET, 20.2, 60).begin


def test_behind_who_must_wait_only_what_takes_nothing_from_it():
    standings = [
        Standing("a", {"d": 4}, Stage.HERE, leased=1, here_since=0.0, switch_cost=9.0),
        Standing("big", {"d": 8}, Stage.AWAY, waiting_since=1.0, waiting=2),
        Standing("small", {"d": 2}, Stage.AWAY, waiting_since=2.0),
        Standing("elsewhere", {"x": 2}, Stage.AWAY, waiting_since=3.0),
    ]
    found = assign(standings, {"d": 10, "x": 2}, 4.0, 60)
    assert [turn.name for turn in found.begin] == ["elsewhere"]


def test_nobody_takes_from_any_of_several_who_must_wait():
    """b waits for d, and c for x, whose models serve; e wants x, and there is room for it."""
    both, away = {"d": 10, "x": 10}, Stage.AWAY
    a = Standing("a", {"d": 10}, Stage.HERE, leased=1, here_since=10.0, switch_cost=5.0)
    y = Standing("y", {"x": 5}, Stage.HERE, leased=1, here_since=10.0, switch_cost=5.0)
    b = Standing("b", {"d": 10}, away, waiting_since=11.0, waiting=3)
    c = Standing("c", {"x": 8}, away, waiting_since=11.0, waiting=2)
    e = Standing("e", {"x": 4}, away, waiting_since=11.0, waiting=1)
    assert not assign([a, y, b, c, e], both, 12.0, 60).begin
    assert [turn.name for turn in assign([a, y, b, e], both, 12.0, 60).begin] == ["e"]


def test_who_is_passed_over_is_decided_anew_when_half_of_the_bound_is_over():
    a = Standing("a", {"d": 10}, Stage.HERE, leased=1, here_since=10.0, switch_cost=20.0)
    b = Standing("b", {"d": 10}, Stage.AWAY, waiting_since=11.0, waiting=3, switch_cost=20.0)
    c = Standing("c", {"d": 5}, Stage.AWAY, waiting_since=10.0, waiting=1, switch_cost=20.0)
    assert assign([a, b, c], BUDGET, 12.0, 40).again_at == 20.0  # a's place: half of 40, of two
    assert assign([a, b, c], BUDGET, 21.0, 40).again_at == 30.0  # c's


def test_who_waits_for_one_gpu_holds_nobody_up_on_another():
    """a serves on d, and y rests on x; c waits for d, b (later) for x. Result: b goes at once, or
    y is asked to drain for it; a third one, for x, does not get in its way."""
    both, away = {"d": 10, "x": 10, HOST: 9}, Stage.AWAY
    a = Standing("a", {"d": 10, HOST: 1}, Stage.HERE, leased=1, here_since=10.0, switch_cost=5.0)
    y = Standing("y", {"x": 10, HOST: 1}, Stage.HERE, last_used=5.0)
    c = Standing("c", {"d": 10, HOST: 1}, away, waiting_since=11.0, waiting=3)
    b = Standing("b", {"x": 10, HOST: 1}, away, waiting_since=11.0, waiting=2)
    last = Standing("e", {"x": 1, HOST: 1}, away, waiting_since=11.0, waiting=1)
    found = assign([a, y, c, b], both, 12.0, 60)
    assert [(turn.name, turn.evict) for turn in found.begin] == [("b", ("y",))]
    assert found.again_at == 30.0 and not found.draining
    found = assign([a, replace(y, leased=1), c, b, last], both, 12.0, 60)
    assert not found.begin and found.draining == {"y"}
    tight = {**both, HOST: 3}  # and host memory is what c waits for, too
    assert not assign([a, y, c, b], tight, 12.0, 60).begin


def test_what_cannot_fit_is_refused_and_holds_nobody_up():
    standings = [
        Standing("x", {"d": 11}, Stage.AWAY, waiting_since=1.0),
        standing("b", waiting_since=2.0),
    ]
    found = assign(standings, BUDGET, 3.0, 60)
    assert [name for name, _ in found.refused] == ["x"]
    assert [turn.name for turn in found.begin] == ["b"]


def test_fifty_models_are_decided_in_a_moment():
    """A ratio to the clock's own noise is of no use here: a second for a hundred is plenty."""
    standings = [standing(str(n), waiting_since=float(n)) for n in range(45)]
    standings += [Standing(f"h{n}", {"d": 2}, Stage.HERE, last_used=n) for n in range(5)]
    begun = time.process_time()
    for _ in range(100):
        assign(standings, BUDGET, 50.0, 60)
    assert time.process_time() - begun < 1.0


# Traces in virtual time.


def swap_per_request(trace):
    """What FIFO would do: a switch whenever the model changes."""
    return sum(a != b for a, b in zip([None, *trace], trace, strict=False))


def test_agents_that_alternate_over_three_models_are_coalesced():
    """4 callers, 60 requests, room for one model. Result: at most half of FIFO's switches."""
    traces = [["abc"[(n + k) % 3] for n in range(15)] for k in range(4)]
    sim = callers(Sim(dict.fromkeys("abc", 10), 10), traces, service=0.5).run()
    assert len(sim.done) == 60 and not sim.denied
    fifo = swap_per_request([t[n] for n in range(15) for t in traces])
    assert sim.switches <= fifo / 2


def test_a_recorded_trace():
    trace = "ABAACABC" * 10
    sim = Sim(dict.fromkeys("ABC", 10), 10)
    for number, model in enumerate(trace):
        sim.at(number * 0.3, lambda model=model: sim.request(model, 0.2))
    sim.run()
    assert len(sim.done) == len(trace) and sim.switches <= swap_per_request(trace) / 2
    assert max(waited for _, waited in sim.done) < sim.bound


def test_two_in_closed_loops_do_not_swap_at_every_request():
    """Each asks again at once, so both are hogs. Result: turns of a quantum, which is four times
    the 2 s that a switch costs, not of a request, and not of the half."""
    sim = callers(Sim({"a": 10, "b": 10}, 10), ["a" * 200, "b" * 200], service=0.1).run()
    assert len(sim.done) == 400 and sim.switches <= 2 + 40 / 8


def agents_and_a_batch(policy, seed, workers):
    """Two agents, whose turn is 1.1 s of work every 0.5 to 1.5 s, each with a model of its own, and
    a batch for a third one, 20 requests of each worker. Seconds until an agent's turn begins, of
    each, and until all are done."""
    sim, waits = Sim(dict.fromkeys("abc", 10), 10, cost=0.4, policy=policy), []
    dice = random.Random(seed)

    def agent(name, turns):
        if turns:
            asked = sim.now
            sim.request(name, 1.1, lambda: served(name, turns, asked))

    def served(name, turns, asked):
        waits.append(sim.now - asked - 1.1)
        sim.at(sim.now + dice.uniform(0.5, 1.5), lambda: agent(name, turns - 1))

    for name in "ab":
        sim.at(0.0, lambda name=name: agent(name, 10))
    callers(sim, ["c" * 20] * workers, service=1.0).run()
    assert len(sim.done) == 20 + 20 * workers
    return statistics.median(waits), sim.now


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_agents_do_not_wait_for_the_quantum_of_a_batch(seed, workers):
    """Beside the same policy where nobody is a hog. Result: in half of the turns at most two thirds
    of the wait, and all are done as soon."""

    def without(standings, *more):
        return assign([replace(each, hog=False) for each in standings], *more)

    (wait, total), (other, others) = (
        agents_and_a_batch(p, seed, workers) for p in (assign, without)
    )
    assert wait < other * 2 / 3 and total < others * 1.05


def test_one_hog_starves_nobody():
    sim = Sim({"hog": 10, "b": 10, "c": 10}, 10, bound=30.0)
    callers(sim, [["hog"] * 4000] * 8, service=0.5)
    for name in "bc":
        for second in range(5, 200, 20):
            sim.at(float(second), lambda name=name: sim.request(name, 0.5))
    sim.run(400)
    waits = [waited for name, waited in sim.done if name != "hog"]
    assert len(waits) == 20 and max(waits) < 30
    hogs = [waited for name, waited in sim.done if name == "hog"]
    assert max(hogs) < 30


def test_two_devices_are_as_fast_as_two_machines():
    """Two models on each of two devices, each with a caller who never pauses. Result: as many
    requests are served on each as where the other one is not there."""

    def served(**device):
        names = "abcdefgh" if device else "abcd"
        sim = Sim(dict.fromkeys(names, 10), 10, cost=0.5, device=device)
        return len(callers(sim, [name * 500 for name in names], 0.5).run(400).done)

    assert served(e="x", f="x", g="x", h="x") > 1.95 * served()


def test_one_that_comes_is_the_last_to_be_asked_to_leave():
    """a serves, and its time is up; z comes. Result: a is held back for who needs the place of one;
    nobody for who needs both, until the time of z is up as well."""
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=5.0, switch_cost=1.0)
    z = Standing("z", {"d": 5}, Stage.COMING, waiting_since=1.0, here_since=0.0, switch_cost=1.0)
    one = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=11.0)
    assert assign([a, z, one], BUDGET, 20.0, 60).draining == {"a"}
    both = replace(one, need={"d": 10})
    assert not assign([a, z, both], BUDGET, 20.0, 60).draining
    here = replace(z, stage=Stage.HERE, here_since=21.0, leased=1, waiting_since=None)
    assert assign([a, here, both], BUDGET, 24.0, 60) == Turns(again_at=25.0)
    assert assign([a, here, both], BUDGET, 25.0, 60).draining == {"a", "z"}


@pytest.mark.parametrize("each", [1, 2, 4])
@pytest.mark.parametrize(
    "sizes, device",
    [
        pytest.param((5, 5, 5), {}, id="one-place"),
        pytest.param((5, 5, 10), {}, id="both-places"),
        pytest.param((10, 10, 10), {"b": "x", "c": "dx"}, id="two-gpus"),
        pytest.param((3, 3, 9), {}, id="both-places-of-three"),
    ],
)
def test_who_waits_for_models_that_never_rest_gets_their_place(sizes, device, each):
    """Callers of a and b ask again at once, and none of them ends as the others do. Then c is asked
    for. Result: it waits for no longer than what a place is kept for, and a few requests."""
    sim = Sim(dict(zip("abc", sizes, strict=True)), 10, cost=0.5, device=device)
    dice = random.Random(1)

    def ask(name):
        sim.request(name, dice.uniform(0.5, 1.5), lambda: sim.at(sim.now + 0.05, lambda: ask(name)))

    for name in "ab" * each:
        sim.at(dice.random(), lambda name=name: ask(name))
    sim.at(20.0, lambda: sim.request("c", 1.0))
    sim.run(60.0)
    ((_, waited),) = [each for each in sim.done if each[0] == "c"]
    assert waited < 4 + 2 * 1.5 + 2


def test_who_waits_for_two_gpus_is_passed_over_until_it_is_late():
    """a serves on d, and never rests; y rests on x. both (later than nobody) wants d and x; m wants
    x. Result: m goes first, unless both is late."""
    both, away = {"d": 10, "x": 10}, Stage.AWAY
    a = Standing("a", {"d": 10}, Stage.HERE, leased=1, here_since=10.0, switch_cost=5.0)
    h = Standing("h", {"d": 10}, away, waiting_since=11.0, waiting=3, switch_cost=1.0)
    spans = Standing("s", {"d": 5, "x": 10}, away, waiting_since=11.0, waiting=2, switch_cost=1.0)
    y = Standing("y", {"x": 10}, Stage.HERE, last_used=5.0)
    m = Standing("m", {"x": 10}, away, waiting_since=11.0, waiting=1, switch_cost=1.0)
    found = assign([a, h, spans, y, m], both, 12.0, 60)
    assert [turn.name for turn in found.begin] == ["m"] and found.again_at == 15.0
    late = replace(spans, waiting_since=7.8), replace(h, waiting_since=7.9)
    found = assign([a, *late, y, m], both, 12.0, 60)
    assert not found.begin


def ask_without_end(sim, name, service, gap):
    """A caller who asks again `gap` seconds after each answer."""
    sim.request(
        name,
        service,
        lambda: sim.at(sim.now + gap, lambda: ask_without_end(sim, name, service, gap)),
    )


@pytest.mark.parametrize("asked", [20.0, 21.5, 22.3, 24.0])
@pytest.mark.parametrize("device", [{}, {"y": "x", "s": "dx"}], ids=["one-gpu", "two-gpus"])
def test_one_that_rests_serves_while_another_one_streams(device, asked):
    """s needs the places of both a and y. a streams for 300 s; y is asked now and then, and may be
    at work as s is asked for. Result: y answers at once until a has ended, and s comes then."""
    size = {"a": 5, "y": 5, "s": 10} if not device else dict.fromkeys("ays", 10)
    sim = Sim(size, 10, cost=0.5, device=device)
    sim.at(0.0, lambda: sim.request("a", 300.0))
    sim.at(1.0, lambda: ask_without_end(sim, "y", 1.0, 9.0))
    sim.at(asked, lambda: sim.request("s", 1.0))
    sim.run(320.0)
    waits = [waited for name, waited in sim.done if name == "y"]
    assert len(waits) > 25 and max(waits[:-2]) < 2.5
    ((_, waited),) = [each for each in sim.done if each[0] == "s"]
    assert waited < 300 - asked + 4


@pytest.mark.parametrize("asked", [60.0, 61.0, 62.0])
@pytest.mark.parametrize("cost, service, gap", [(2.5, 0.5, 0.3), (5.0, 0.5, 0.3), (5.0, 0.3, 0.6)])
def test_who_drains_is_not_let_go_because_another_one_lingers(cost, service, gap, asked):
    """h needs the place of one. a's callers never pause, and its time is up; l is in its time, and
    lingers between its requests. Result: h waits for a's requests, and for a switch."""
    sim = Sim(dict.fromkeys("alh", 5), 10, cost=cost)
    for takes in (2.0, 2.3, 1.7):
        sim.at(0.0, lambda takes=takes: ask_without_end(sim, "a", takes, 0.0))
    sim.at(asked - 8.0 - cost, lambda: ask_without_end(sim, "l", service, gap))
    sim.at(asked, lambda: sim.request("h", 1.0))
    sim.run(asked + 60)
    ((_, waited),) = [each for each in sim.done if each[0] == "h"]
    assert waited < 2 * cost + 2.3 + 0.5


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.3, 0.6])
@pytest.mark.parametrize(
    "sizes, device",
    [
        pytest.param((5, 5, 5, 10), {}, id="one-gpu"),
        pytest.param((10, 5, 5, 10), {"b": "x", "l": "x", "h": "dx"}, id="two-gpus"),
    ],
)
def test_two_that_drain_are_not_let_go_because_a_third_lingers(sizes, device, gap):
    """h needs the places of two of three, or both of a's and of b's or l's. a and b never pause; l
    is in its time, and may linger. Result: h waits for a few requests, and for a switch."""
    sim = Sim(dict(zip("ablh", sizes, strict=True)), 15, cost=5.0, device=device)
    sim.at(0.0, lambda: ask_without_end(sim, "a", 2.0, 0.0))
    sim.at(0.7, lambda: ask_without_end(sim, "b", 2.0, 0.0))
    sim.at(47.0, lambda: ask_without_end(sim, "l", 0.5, gap))
    sim.at(60.0, lambda: sim.request("h", 1.0))
    sim.run(120.0)
    ((_, waited),) = [each for each in sim.done if each[0] == "h"]
    assert waited < 2 * 5.0 + 3 * 2.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_who_waits_for_all_of_many_places_waits_for_two_requests(count, seed):
    """h needs the places of all, whose callers never pause; requests take 10 to 30 s. Result: it
    waits for two of them, and no longer the more models there are."""
    names, dice = "abcdef"[:count], random.Random(seed)
    sim = Sim({**dict.fromkeys(names, 1), "h": count}, count, cost=0.5)

    def ask(name):
        takes = dice.uniform(10, 30)
        sim.request(name, takes, lambda: sim.at(sim.now + 0.05, lambda: ask(name)))

    for name in names * 2:
        sim.at(dice.uniform(0, 20), lambda name=name: ask(name))
    sim.at(100.0, lambda: sim.request("h", 1.0))
    sim.run(250.0)
    ((_, waited),) = [each for each in sim.done if each[0] == "h"]
    assert waited < 2 * 30 + 4


@pytest.mark.parametrize(
    "first, priority",
    [("c", {}), ("a", {}), ("a", {"a": 1, "h": 5})],
)
def test_who_streams_for_minutes_is_not_the_only_one_that_is_waited_for(first, priority):
    """c streams for 300 s; a never pauses, and its time is up. h needs the place of one. Result: it
    is a's, a quarter of the bound after c has been asked to leave."""
    sim = Sim(dict.fromkeys("ach", 5), 10, cost=1.0, priority=priority)
    sim.at(0.0 if first == "c" else 20.0, lambda: sim.request("c", 300.0))
    for takes in (2.0, 2.3, 1.7):
        begins = 0.0 if first == "a" else 20.0
        sim.at(begins, lambda takes=takes: ask_without_end(sim, "a", takes, 0.0))
    sim.at(60.0, lambda: sim.request("h", 1.0))
    sim.run(120.0)
    ((_, waited),) = [each for each in sim.done if each[0] == "h"]
    assert waited < 60 / 4 + 2.3 + 2 + 0.5


def test_nobody_is_held_back_for_the_time_of_one_that_works():
    """a was held back; now x, of lower priority, has to go with it, and its time is not up."""
    a = Standing("a", {"d": 5}, Stage.HERE, here_since=1.0, held_since=19.0, priority=1)
    a = replace(a, last_used=20.0, waiting=1, waiting_since=19.5)
    x = Standing("x", {"d": 5}, Stage.HERE, leased=1, here_since=18.0, switch_cost=2.0)
    h = Standing("h", {"d": 10}, Stage.AWAY, waiting_since=18.5, priority=1)
    assert assign([a, x, h], BUDGET, 20.0, 60) == Turns(again_at=26.0)
    assert assign([a, replace(x, leased=0, last_used=19.9, gap=0.01), h], BUDGET, 20.0, 60) == (
        Turns(draining=frozenset("a"), again_at=pytest.approx(20.1))
    )


def test_others_are_asked_when_one_that_was_asked_does_not_rest():
    busy = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=1.0)
    slow = Standing("c", {"d": 5}, Stage.HERE, leased=1, here_since=0.5, held_since=20.0)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=19.0)
    assert assign([busy, slow, h], BUDGET, 30.0, 60) == Turns(
        draining=frozenset("c"), again_at=35.0
    )
    assert assign([busy, slow, h], BUDGET, 35.0, 60).draining == {"a", "c"}
    both = replace(h, need={"d": 10})
    assert assign([busy, slow, both], BUDGET, 35.0, 60).draining == {"c"}  # there is no other


def test_who_is_held_back_stays_so_until_the_others_rest_as_well():
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=5.0)
    y = Standing("y", {"d": 5}, Stage.HERE, here_since=5.0, last_used=18.0)
    s = Standing("s", {"d": 10}, Stage.AWAY, waiting_since=11.0)
    assert assign([a, y, s], BUDGET, 20.0, 60).draining == {"a"}
    a = replace(a, held_since=20.0)
    assert assign([a, replace(y, leased=1), s], BUDGET, 21.0, 60).draining == {"a"}
    rests = replace(a, leased=0, waiting=1, waiting_since=20.5, last_used=22.0)
    late = replace(y, leased=1, held_since=22.1)
    assert assign([rests, late, s], BUDGET, 22.2, 60).draining == {"a", "y"}
    together = replace(late, held_since=20.0)  # it may serve until the other one rests
    assert assign([rests, together, s], BUDGET, 22.2, 60).draining == {"y"}
    assert assign([rests, replace(y, leased=1), s], BUDGET, 22.1, 60).draining == {"a", "y"}
    both = [rests, replace(y, last_used=22.5)]
    assert {*assign([*both, s], BUDGET, 22.6, 60).begin[0].evict} == {"a", "y"}


def test_one_that_lingers_leaves_before_one_that_streams():
    """a streams for 200 s, and its time is up; l, whose requests follow each other at once, has
    just rested. Result: h has its place as soon as nobody asks for l."""
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=5.0, switch_cost=1.0)
    z = Standing("l", {"d": 5}, Stage.HERE, last_used=102.9, here_since=90.0, switch_cost=10.0)
    z = replace(z, gap=0.01)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=101.0)
    found = assign([a, z, h], BUDGET, 103.0, 600)
    assert not found.draining and found.again_at == pytest.approx(103.9)
    assert [turn.evict for turn in assign([a, z, h], BUDGET, 103.91, 600).begin] == [("l",)]


def test_of_two_at_work_the_one_whose_time_is_up_first_is_asked_to_leave():
    dear = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=100.0, switch_cost=20.0)
    hog = Standing("b", {"d": 5}, Stage.HERE, leased=1, here_since=101.0, switch_cost=1.0, hog=True)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=102.0)
    assert assign([dear, hog, h], BUDGET, 102.5, 600) == Turns(again_at=103.0)
    assert assign([dear, hog, h], BUDGET, 103.0, 600).draining == {"b"}


def test_of_two_that_linger_the_one_leaves_whose_time_is_up_first():
    """a was used later than b, but its next request is not waited for as long."""
    a = Standing("a", {"d": 5}, Stage.HERE, last_used=100.5, here_since=99.0, switch_cost=5.0)
    b = Standing("b", {"d": 5}, Stage.HERE, last_used=100.0, here_since=99.0, switch_cost=20.0)
    lingering = replace(a, gap=0.01), replace(b, gap=0.01)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=99.5)
    assert assign([*lingering, h], BUDGET, 100.6, 600).again_at == pytest.approx(101.0)
    assert [t.evict for t in assign([*lingering, h], BUDGET, 101.01, 600).begin] == [("a",)]


def test_one_whose_new_requests_cannot_begin_yet_is_at_work():
    """Its requests wait for slots, of which other requests hold none of this model's."""
    a = Standing("a", {"d": 5}, Stage.HERE, waiting_since=100.0, waiting=1, last_used=100.0)
    a = replace(a, here_since=99.0, switch_cost=1.0)
    b = Standing("b", {"d": 5}, Stage.HERE, last_used=101.0, here_since=90.0, switch_cost=1.0)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=100.5)
    assert [t.evict for t in assign([a, b, h], BUDGET, 101.06, 600).begin] == [("b",)]


def test_of_two_at_work_the_one_of_lower_priority_is_asked_though_its_time_is_up_later():
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=100.0, switch_cost=1.0, priority=1)
    b = Standing("b", {"d": 5}, Stage.HERE, leased=1, here_since=101.0, switch_cost=1.0)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=102.0, priority=1)
    assert assign([a, b, h], BUDGET, 106.0, 600).draining == {"b"}


def test_one_that_is_held_back_in_its_time_is_at_work_like_others():
    """A model's time may grow, as when those that waited with the head have gone: then it no longer
    drains, and the one leaves first whose time is up first."""
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=100.0, switch_cost=20.0)
    b = Standing("b", {"d": 5}, Stage.HERE, leased=1, here_since=100.0, switch_cost=1.0)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=102.0)
    assert assign([replace(a, held_since=103.0), b, h], BUDGET, 106.0, 600).draining == {"b"}


def test_one_that_comes_is_asked_last_whatever_its_priority():
    a = Standing("a", {"d": 5}, Stage.HERE, leased=1, here_since=5.0, switch_cost=1.0, priority=1)
    z = Standing("z", {"d": 5}, Stage.COMING, waiting_since=1.0, switch_cost=1.0)
    h = Standing("h", {"d": 5}, Stage.AWAY, waiting_since=11.0, priority=1)
    assert assign([a, z, h], BUDGET, 20.0, 60).draining == {"a"}


def test_priority_goes_first_but_not_for_ever():
    sim = Sim({"vip": 10, "b": 10}, 10, bound=20.0, priority={"vip": 5})
    callers(sim, [["vip"] * 2000] * 4, service=0.3)
    sim.at(1.0, lambda: sim.request("b", 0.3))
    sim.run(100)
    assert max(waited for name, waited in sim.done if name == "b") < 20


@pytest.mark.parametrize("seed", range(20))
def test_invariants_on_random_traces(seed):
    """Random sizes, costs, arrivals, pins and priorities. Checked at every instant: never over
    the budget, nobody in use or pinned leaves (by the simulator), nobody waits past the bound and
    its own model's service, no time is idled away with work there but for the linger."""
    dice = random.Random(seed)
    names = [f"m{n}" for n in range(dice.randint(2, 6))]
    need = {name: dice.randint(1, 10) for name in names}
    budget = dice.randint(max(need.values()), 20)
    pinned = frozenset(n for n in names[:1] if dice.random() < 0.2)
    device = {name: dice.choice(["d", "x", "dx"]) for name in names if seed % 2}
    sim = Sim(need, budget, dice.uniform(0.05, 2), pinned=pinned, device=device)
    sim.leaves_in = {name: dice.uniform(0.01, 5) for name in names}  # some stop slowly
    sim.priority = {name: dice.randint(0, 2) for name in names}
    service = dice.uniform(0.05, 1.0)
    arrived, when = 0, 0.0
    for _ in range(300):
        when += dice.expovariate(dice.choice([0.5, 5, 50]))
        arrived += 1
        model = dice.choice(names[: dice.randint(1, len(names))])
        sim.at(when, lambda model=model: sim.request(model, service))
    sim.run()
    assert len(sim.done) + len(sim.denied) == arrived
    assert max((waited for _, waited in sim.done), default=0) < sim.bound
    assert sim.longest_idle <= LONGEST_LINGER + 1e-6
