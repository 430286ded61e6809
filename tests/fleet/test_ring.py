import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fleet.ring import SPREAD, Choice, choose

FOUR = [Choice(name, slots=8, load=0) for name in "abcd"]


def loads(choices):
    return {each.task: each.load for each in choices}


def spread(keys, members):
    """Each key is one more request, which stays."""
    held = {each.task: each for each in members}
    for key in keys:
        task = choose(key, list(held.values()))
        held[task] = replace(held[task], load=held[task].load + 1)
    return held


def test_nobody_is_chosen_where_nobody_is():
    assert choose(1, []) is None


def test_a_conversation_stays_where_it_is():
    assert len({choose(7, FOUR) for _ in range(10)}) == 1
    assert len({choose(key, FOUR) for key in range(200)}) == 4


def test_who_comes_and_goes_moves_only_its_own_share():
    keys = range(2000)
    before = {key: choose(key, FOUR) for key in keys}
    without = {key: choose(key, FOUR[:3]) for key in keys}
    moved = [key for key in keys if before[key] != without[key]]
    assert all(before[key] == "d" for key in moved)
    assert 300 < len(moved) < 700


def test_slots_are_the_weight():
    members = [Choice("small", slots=2, load=0), Choice("large", slots=8, load=0)]
    found = [choose(key, members) for key in range(2000)]
    assert 0.7 < found.count("large") / 2000 < 0.9


@pytest.mark.parametrize(
    ("choices", "chosen"),
    [
        ([Choice("full", 2, 2), Choice("free", 2, 1)], "free"),
        ([Choice("full", 2, 2, True), Choice("parked", 2, 0, False)], "parked"),
        ([Choice("there", 2, 1, True), Choice("parked", 2, 0, False)], "there"),
        ([Choice("full", 2, 9), Choice("fuller", 2, 90)], "full"),
    ],
)
def test_a_free_slot_goes_before_all_and_a_model_in_memory_before_one_that_is_not(choices, chosen):
    assert {choose(key, choices) for key in range(50)} == {chosen}


@given(st.lists(st.integers(1, 16), min_size=1, max_size=8), st.integers(1, 300), st.integers())
def test_no_load_exceeds_its_bound(slots, requests, seed):
    members = [Choice(f"m{n}", count, 0) for n, count in enumerate(slots)]
    keys = [random.Random(f"{seed} {n}").getrandbits(32) for n in range(requests)]
    held = spread(keys, members)
    for each in held.values():
        fair = SPREAD * requests * each.slots / sum(slots)
        assert each.load <= max(fair + 1, each.slots), loads(held.values())


def test_one_conversation_that_all_ask_for_is_spread():
    held = spread([5] * 32, FOUR)
    assert sorted(each.load for each in held.values()) == [8, 8, 8, 8]
