import pytest

from app.engine.resolved import Resolved
from app.instance.seats import MOST_DRAFTED, seats
from app.memory.kv_budget import MARGIN
from app.memory.seat import Demand

RESOLVED = Resolved(4096, None, 4, 2, 2, 0)


def seat(*argv, resolved=RESOLVED, **asked):
    budget = seats(["llama-server", *argv], resolved)
    return budget, budget.seat(Demand(1, 0, exact=True, marked=True, **asked), 0.0)


def test_slots_share_the_context_with_a_unified_cache():
    budget, given = seat("--kv-unified", limit=10)
    assert (budget.slots, budget.context, budget.each) == (4, 4096, 4096)
    assert given.tokens == MARGIN + 10 and given.marked


def test_slots_have_their_own_context_without_it():
    budget, given = seat(limit=10)
    assert (budget.slots, budget.context, budget.each) == (4, None, 1024) and given.limit is None


def test_the_last_word_on_the_cache_counts():
    assert seat("--kv-unified", "--no-kv-unified", limit=10)[0].context is None
    assert seat("-no-kvu", "-kvu", limit=10)[0].context == 4096


def test_a_single_slot_shares_with_nobody():
    one = Resolved(4096, None, 1, 2, 2, 0)
    assert seat("--kv-unified", resolved=one, limit=1)[0].each == 4096


@pytest.mark.parametrize("flag", ["-n", "--predict", "--n-predict"])
def test_the_limit_of_the_form_is_that_of_who_names_none(flag):
    assert seat("--kv-unified", flag, "6", limit=None)[1].limit == 6
    assert seat("--kv-unified", flag, "-1", limit=None)[1].limit > 256


@pytest.mark.parametrize(
    "argv, mixes",
    [
        ("", True),
        ("--cont-batching", True),
        ("--no-cont-batching -cb", True),
        ("-nocb", False),
        ("--cont-batching --no-cont-batching", False),
        ("--lora a.gguf", False),
        ("--lora-scaled a.gguf:0.5", False),
    ],
)
def test_where_each_step_reads_prompts_and_generates(argv, mixes):
    """Beside another request, one waits with all that its slot holds where that is not so, and
    where requests may want other adapters."""
    budget, given = seat("--kv-unified", *argv.split(), limit=10)
    assert budget._mixes == mixes and given


def test_drafts_take_tokens_too_and_a_context_that_shifts_shows_no_numbers():
    assert seat("--kv-unified", "-md", "x", limit=10)[1].tokens == MARGIN + 10 + MOST_DRAFTED
    assert not seat("--kv-unified", "--context-shift", limit=10)[1].marked
