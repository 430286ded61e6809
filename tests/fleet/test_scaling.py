from dataclasses import replace

import pytest

from app.fleet.config import Route
from app.fleet.scaling import NOTHING, Decision, Demand, Instance, Standing, decide

ROUTE = Route("chat", template="t", min=0, max=3, quiet=60, queue_wait=5)
ONE = Instance("a", slots=4, used=0)
TWO = Instance("b", slots=4, used=50)


def demand(*seen, slots=4, served=0):
    """`seen`: how many requests there were, at each second of the last ones."""
    found = Demand(0.0)
    for second, requests in enumerate(seen):
        found.see(float(second), requests, slots)
    for _ in range(served):
        found.served(float(len(seen)))
    return found


@pytest.mark.parametrize(
    ("route", "standing", "asked", "decision"),
    [
        pytest.param(ROUTE, Standing([], 0, 0, 0), demand(), NOTHING, id="nobody asks"),
        pytest.param(ROUTE, Standing([], 0, 9, 0), demand(), Decision(start=True), id="from zero"),
        pytest.param(ROUTE, Standing([], 1, 9, 0), demand(), NOTHING, id="one is to come"),
        pytest.param(
            Route("r", template="t", min=2, max=3),
            Standing([ONE], 0, 0, 0),
            demand(),
            Decision(start=True),
            id="there are always two",
        ),
        pytest.param(
            Route("r", template="t", max=0), Standing([], 0, 1, 0), demand(), NOTHING, id="never"
        ),
        pytest.param(
            ROUTE, Standing([], 0, 9, 0, stuck=3), demand(), NOTHING, id="three never served"
        ),
        pytest.param(
            ROUTE,
            Standing([ONE], 0, 0, 0),
            demand(*[14] * 60, served=60),
            Decision(start=True),
            id="ten wait, one a second is served",
        ),
        pytest.param(
            ROUTE,
            Standing([ONE], 0, 0, 0),
            demand(*[8] * 60, served=60),
            NOTHING,
            id="four wait four seconds",
        ),
        pytest.param(
            ROUTE, Standing([ONE], 1, 0, 0), demand(*[14] * 60), NOTHING, id="help is coming"
        ),
        pytest.param(
            ROUTE,
            Standing([ONE, TWO], 0, 0, -10),
            demand(*[4] * 60),
            Decision(let_go="a"),
            id="one is enough, and a was used before b",
        ),
        pytest.param(
            ROUTE,
            Standing([ONE, TWO], 0, 0, -10),
            demand(*[5] * 60, slots=8),
            NOTHING,
            id="two are needed",
        ),
        pytest.param(
            ROUTE,
            Standing([ONE], 0, 0, -10),
            demand(*[0] * 60),
            Decision(let_go="a"),
            id="nobody has asked",
        ),
        pytest.param(
            ROUTE, Standing([ONE], 0, 0, 30), demand(*[0] * 60), NOTHING, id="it has just come"
        ),
        pytest.param(
            Route("r", template="t", min=1, max=1, quiet=10),
            Standing([ONE], 0, 0, -10),
            demand(*[0] * 60),
            NOTHING,
            id="one is always there",
        ),
    ],
)
def test_decisions(route, standing, asked, decision):
    assert decide(route, standing, asked, 60.0) == decision


def test_waiting_for_the_first_instance_does_not_ask_for_a_second():
    assert demand(*[16] * 60, slots=0).queue_wait(60.0) == 0


def test_a_crowd_that_comes_at_once_does_not_ask_for_a_second_at_once():
    crowd = demand(16, 16, 16, served=1)
    assert crowd.queue_wait(3.0) > 5
    assert decide(ROUTE, Standing([ONE], 0, 0, 0), crowd, 3.0) == NOTHING


def test_what_was_waited_for_fewer_instances_does_not_ask_for_more():
    found = demand(*[14] * 60, served=60)
    found.see(60.0, 14, 8)
    assert decide(ROUTE, Standing([ONE, TWO], 0, 0, 0), found, 61.0) == NOTHING


def test_the_peak_is_that_of_the_window():
    found = demand(9, 3, 5, 2, 1)
    assert found.peak(4.0, 10) == 9
    assert found.peak(4.0, 2.5) == 5
    assert found.peak(4.0, 0.5) == 1


def test_what_comes_and_goes_between_two_looks_is_needed():
    """One short request a minute: an instance that is asked is not let go of for want of it."""
    found, standing = Demand(0.0), Standing([ONE], 0, 0, -1e9)
    for now in range(1, 3600):
        found.see(float(now), 0, 4)
        if now % 60 == 1 and now <= 1801:
            found.arrived(now + 0.5, 1)
        decided = decide(replace(ROUTE, quiet=900.0), standing, found, now + 0.9)
        assert decided == (NOTHING if now < 1801 + 900 else Decision(let_go="a")), now
    assert sum(working for working, _ in found.history()) == 31


def test_a_moments_crowd_keeps_no_second_instance():
    found = Demand(0.0)
    for now in range(1, 100):
        found.see(float(now), 0, 8)
        found.arrived(now + 0.5, 6)
    decided = decide(ROUTE, Standing([ONE, TWO], 0, 0, -1e9), found, 100.0)
    assert decided == Decision(let_go="a") and found.history()[-1] == (6, 0)


def test_the_history_has_the_peaks_of_each_part_of_an_hour():
    found = Demand(0.0)
    for second in range(4000):
        found.see(float(second), second % 7, 4)
    points = found.history()
    assert len(points) == 180 and set(points) == {(4, 2)}
