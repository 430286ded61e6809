"""The policy beside those of other programs and beside hindsight, on random callers;
`scripts/bench/policy` plays more of them."""

import random

import pytest

from app.memory.turns import assign
from tests.hindsight import MODELS, Ask, compare, first_come, play

TOLERANCE = 1.1  # of few seeds, a decile is that of one or two


def test_no_decile_is_worse_than_a_peers_and_the_median_is_near_the_best():
    totals, waits = compare(range(60))
    for found in (totals, waits):
        ours, *peers = found.values()
        for peer in peers:
            assert all(a <= b * TOLERANCE for a, b in zip(ours, peer, strict=True)), found
    assert totals["ours"][4] <= 1.3


def convoys(seed, costs=(0.5, 2.0), services=(0.1, 0.6)):
    """Four callers who go round three models, each from somewhere, fifteen requests each."""
    dice = random.Random(seed)
    cost, service = dice.uniform(*costs), dice.uniform(*services)
    starts = [dice.randrange(len(MODELS)) for _ in range(4)]

    def caller(start):
        for number in range(15):
            model = MODELS[(start + number) % len(MODELS)]
            yield Ask(model, service * dice.uniform(0.5, 1.5), dice.uniform(0, 0.02))

    return cost, [list(caller(start)) for start in starts]


@pytest.mark.parametrize("seed", range(20))
def test_callers_who_go_round_the_models_catch_up_with_each_other(seed):
    """Result: a switch for all four, not for one or two of them."""
    assert play(assign, *convoys(seed)).switches <= 15 + 4


@pytest.mark.parametrize("seed", range(20))
def test_they_do_so_where_a_switch_costs_next_to_nothing(seed):
    """Requests that are served together are served sooner than one after the other."""
    played = convoys(seed, costs=(0.001, 0.02), services=(1.0, 4.0))
    assert play(assign, *played).switches <= 15 + 4


def test_in_the_order_of_their_age_they_go_round_apart():
    found = [play(first_come(drains=True), *convoys(seed)).switches for seed in range(20)]
    assert max(found) >= 30
