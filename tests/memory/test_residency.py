import random

import pytest

from app.memory.residency import Doing, Refuse, Resident, Serve, Swap, Wait, decide, park

BUDGET = {"g": 24}


def on(name, size, **more):
    return Resident(name, {"g": size}, **more)


@pytest.mark.parametrize(
    "size, residents, expected",
    [
        pytest.param(10, [], (), id="room"),
        pytest.param(10, [on("a", 10), on("b", 4)], (), id="room-beside-others"),
        pytest.param(10, [on("a", 10, last_used=2), on("b", 10, last_used=1)], ("b",), id="oldest"),
        pytest.param(20, [on("a", 10, last_used=1), on("b", 10)], ("b", "a"), id="all-it-takes"),
        pytest.param(
            10, [on("a", 10, doing=Doing.WORKS), on("b", 10, last_used=9)], ("b",), id="in-use"
        ),
        pytest.param(10, [on("a", 10, pinned=True), on("b", 10)], ("b",), id="pinned-stays"),
        pytest.param(
            10, [on("a", 10, priority=1), on("b", 10, last_used=9)], ("b",), id="priority"
        ),
        pytest.param(14, [on("a", 4), on("b", 20, last_used=1)], ("b",), id="no-more-than-needed"),
        pytest.param(24, [on("a", 1)], ("a",), id="exactly-all"),
    ],
)
def test_who_leaves(size, residents, expected):
    decision = decide("t", {"g": size}, residents, BUDGET)
    assert isinstance(decision, Swap) and decision.evict == expected and decision.reason


def test_resident_already():
    assert decide("a", {"g": 1}, [on("a", 1)], BUDGET) == Serve()


def test_who_stands_in_the_way():
    residents = [
        on("a", 10, doing=Doing.WORKS, last_used=1),
        on("b", 10, doing=Doing.WORKS),
        on("c", 4),
    ]
    decision = decide("t", {"g": 10}, residents, BUDGET)
    assert isinstance(decision, Wait) and decision.blockers == ("b",)


def test_who_leaves_already_is_waited_for_without_evicting_more():
    residents = [on("a", 12, leaving=True), on("b", 12)]
    assert decide("t", {"g": 12}, residents, BUDGET) == Wait()


@pytest.mark.parametrize("residents", [[], [on("p", 10, pinned=True)]])
def test_what_will_never_fit_is_refused_with_the_numbers(residents):
    gib = 1 << 30
    sized = [Resident(r.name, {"g": 10 * gib}, pinned=True) for r in residents]
    decision = decide("t", {"g": 25 * gib}, sized, {"g": 24 * gib})
    assert isinstance(decision, Refuse)
    assert "needs 25.00 GiB on g, which has 24.00" in decision.reason
    assert ("pinned models take 10.00" in decision.reason) == bool(residents)


def test_several_devices_each_have_their_own():
    budget = {"0": 10, "1": 10}
    a, b = Resident("a", {"0": 8}), Resident("b", {"1": 8}, last_used=-1)
    assert decide("t", {"0": 8}, [a, b], budget).evict == ("a",)
    assert {*decide("t", {"0": 8, "1": 8}, [a, b], budget).evict} == {"a", "b"}
    assert isinstance(decide("t", {"2": 1}, [a, b], budget), Refuse)


@pytest.mark.parametrize(
    "size, parked, expected",
    [
        pytest.param(10, [], (), id="room"),
        pytest.param(30, [on("a", 9, last_used=1), on("b", 9)], ("b",), id="longest-ago"),
        pytest.param(40, [on("a", 9, last_used=1), on("b", 9)], ("b", "a"), id="all-it-takes"),
        pytest.param(
            30, [on("a", 9, doing=Doing.WORKS), on("b", 9, last_used=1)], ("b",), id="asked-for"
        ),
        pytest.param(30, [on("a", 9, priority=1), on("b", 9)], ("b",), id="priority"),
        pytest.param(30, [on("a", 9, last_used=7)], None, id="used-later"),
        pytest.param(40, [on("a", 9, last_used=1), on("b", 9, priority=2)], None, id="not-enough"),
    ],
)
def test_who_goes_on_to_disk_for_one_that_is_parked(size, parked, expected):
    decision = park(on("t", size, last_used=5), parked, {"g": 22})
    if expected is None:
        assert isinstance(decision, Refuse) and decision.reason
    else:
        assert isinstance(decision, Swap) and decision.evict == expected and decision.reason


def test_no_memory_is_told_as_negative():
    """More may be promised than there is."""
    decision = park(on("t", 1 << 30, last_used=5), [], {"g": -(1 << 30)})
    assert decision == Refuse("g: 1.00 GiB are needed, of 0.00 GiB")


def crowd(dice, budget):
    """Residents that fit the budget together."""
    residents, used = [], dict.fromkeys(budget, 0)
    for number in range(dice.randint(0, 8)):
        need = {d: dice.randint(0, 9) for d in dice.sample([*budget], dice.randint(1, 3))}
        if any(used[d] + n > budget[d] for d, n in need.items()):
            continue
        used = {d: used[d] + need.get(d, 0) for d in budget}
        busy, leaving, pinned = (dice.random() < chance for chance in (0.3, 0.2, 0.2))
        residents.append(
            Resident(
                str(number),
                need,
                doing=Doing.WORKS if busy else Doing.RESTS,
                leaving=leaving,
                pinned=pinned,
                last_used=dice.random(),
                priority=dice.randint(0, 2),
            )
        )
    return residents


def test_a_swap_always_makes_room_and_never_takes_who_is_in_use():
    """Random residents on three devices. Result: what a decision says holds."""
    for seed in range(200):
        check_a_decision(random.Random(seed), f"seed {seed}")


def check_a_decision(dice, case):
    budget = {d: dice.randint(5, 40) for d in "012"}
    residents = crowd(dice, budget)
    need = {d: dice.randint(0, 20) for d in dice.sample("012", dice.randint(1, 3))}
    decision = decide("t", need, residents, budget)
    leaving = {r.name for r in residents if r.leaving}
    pinned = {r.name for r in residents if r.pinned}
    free = {r.name for r in residents if not r.busy} - pinned | leaving

    def fits(without):
        kept = [r for r in residents if r.name not in without]
        return all(s + sum(r.need.get(d, 0) for r in kept) <= budget[d] for d, s in need.items())

    if isinstance(decision, Swap):
        evicted = {*decision.evict}
        assert evicted <= free and fits(evicted | leaving), case
        assert not any(fits((evicted | leaving) - {name}) for name in evicted), f"{case}: too many"
        assert evicted or fits(()), case
    elif isinstance(decision, Wait):
        blockers = {*decision.blockers}
        assert not blockers & pinned and fits(free | blockers), case
        assert not blockers or not fits(free), case
    else:
        assert isinstance(decision, Refuse), case
        assert not fits({r.name for r in residents} - pinned), case
