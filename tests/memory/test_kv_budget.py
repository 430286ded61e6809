import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.memory.kv_budget import (
    BUSY_FOR,
    LEAST_ANSWER,
    LONGEST_TEMPLATE,
    MARGIN,
    SHORT,
    KvBudget,
    Ways,
)
from app.memory.seat import MOST_NUMBERS, Demand, SlotState, Use
from app.memory.shown import ARRIVES, UNSEEN

CONTEXT, SLOTS = 4096, 4


def counted(prompt, limit=None, slots=1):
    return Demand(slots, prompt, limit, exact=True, marked=True)


def test_what_fits_beside_the_others_is_seated():
    """The case that failed all: three that generate 700 tokens, and a prompt of 3,000."""
    budget = KvBudget(SLOTS, CONTEXT)
    small = [budget.seat(counted(20, 700), 0.0) for _ in range(3)]
    assert all(small) and [seat.limit for seat in small] == [700] * 3
    large = counted(3000, 700)
    assert budget.seat(large, 0.0) is None
    for seat in small:
        budget.free(seat)
    assert budget.seat(large, 0.0).limit == 700


def test_one_short_request_may_wait_inside_for_the_next_slot():
    """Its slot would be idle for a moment, which is a part of a short answer that counts."""
    budget = KvBudget(SLOTS, CONTEXT)
    held = [budget.seat(counted(20, SHORT + 1), 0.0) for _ in range(SLOTS)]
    assert budget.seat(counted(20, SHORT), 0.0) is None  # no slot will be free soon
    budget.free(held.pop())
    held.append(budget.seat(counted(20, SHORT), 0.0))
    assert budget.seat(counted(20, SHORT + 1), 0.0) is None
    assert budget.seat(counted(20, None), 0.0) is None
    assert budget.seat(counted(20, 0), 0.0) is None
    assert budget.seat(counted(20, 1, 2), 0.0) is None
    assert budget.seat(counted(20, 1)._replace(marked=False), 0.0) is None
    inside = budget.seat(counted(20, SHORT), 0.0)
    assert budget.seat(Demand(slots=0), 0.0)  # what wants no slot is not concerned
    assert inside.limit == SHORT and budget.taken == SLOTS + 1
    assert budget.seat(counted(20, SHORT), 0.0) is None
    budget.free(held[0])  # its slot is that one's
    assert budget.seat(counted(20, SHORT + 1), 0.0) is None
    budget.free(held[1])
    assert budget.seat(counted(20, SHORT + 1), 0.0)


def test_what_waits_inside_fits_beside_the_others():
    budget = KvBudget(SLOTS, CONTEXT)
    assert all(budget.seat(counted(990 - MARGIN, 20), 0.0) for _ in range(SLOTS))
    assert budget.seat(counted(CONTEXT - 4 * 1010, 1), 0.0) is None
    assert budget.seat(counted(10, 1), 0.0) is not None


def test_one_that_cannot_begin_yet_is_not_looked_for():
    budget = KvBudget(SLOTS, CONTEXT)
    held = [budget.seat(counted(20, 1), 0.0) for _ in range(SLOTS + 1)]
    assert budget.unsure(waited_for=True)
    for seat in held[:SLOTS]:
        budget.begin(seat)
    assert not budget.unsure(waited_for=True)
    budget.end(held[0], Use.LEFT, 0.0)
    assert budget.unsure(waited_for=True)


def test_alone_one_request_may_use_the_whole_context():
    budget = KvBudget(SLOTS, CONTEXT)
    assert budget.seat(counted(20, 10**9), 0.0).limit == CONTEXT - 20
    assert budget.used == CONTEXT


def test_a_prompt_that_fills_the_context_still_gets_what_is_left():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(CONTEXT - 20, 100), 0.0)
    assert (seat.tokens, seat.limit) == (CONTEXT, 20)
    budget.free(seat)
    assert budget.seat(counted(CONTEXT - 20, 7), 0.0).limit == 7
    budget = KvBudget(SLOTS, CONTEXT)
    assert not budget.too_long(counted(CONTEXT - 1)) and budget.too_long(counted(CONTEXT))
    assert budget.seat(counted(CONTEXT - 1), 0.0).limit == 1


def test_who_names_no_limit_gets_half_of_what_is_left_where_nobody_else_comes():
    budget = KvBudget(SLOTS, CONTEXT)
    assert budget.seat(counted(96 - MARGIN), 0.0).limit == (CONTEXT - 96) // 2


def test_who_names_no_limit_leaves_as_much_to_those_that_were_there_lately():
    budget = KvBudget(SLOTS, CONTEXT)
    for seat in [budget.seat(counted(0, 1), 0.0) for _ in range(2)]:
        budget.free(seat)
    alone = budget.seat(counted(96 - MARGIN), 1.0)
    assert alone.limit == (CONTEXT - 96) // 3
    budget.free(alone)
    later = budget.seat(counted(96 - MARGIN), BUSY_FOR + 1)
    assert later.limit == (CONTEXT - 96) // 2


def test_in_a_crowd_every_free_slot_has_an_equal_part():
    budget = KvBudget(SLOTS, CONTEXT)
    seats = [budget.seat(counted(0), 0.0, crowded=True) for _ in range(SLOTS)]
    limits = [seat.limit for seat in seats]
    assert max(limits) - min(limits) <= 2 * MARGIN and sum(limits) > CONTEXT * 0.95


def test_who_names_no_limit_waits_for_a_little_room():
    budget = KvBudget(SLOTS, CONTEXT)
    budget.seat(counted(0, CONTEXT - LEAST_ANSWER - 2 * MARGIN), 0.0)
    assert budget.seat(counted(1), 0.0) is None
    assert budget.seat(counted(0), 0.0).limit == LEAST_ANSWER


def test_the_default_of_the_form_bounds_who_names_none():
    budget = KvBudget(SLOTS, CONTEXT, limit=64)
    assert budget.seat(counted(10), 0.0).limit == 64
    assert budget.seat(counted(10, 65), 0.0).limit == 65


def test_a_request_of_several_answers_takes_as_many_slots():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(100, 50, slots=3), 0.0)
    assert (budget.taken, seat.tokens, seat.limit) == (3, 100 + 3 * (MARGIN + 50), 50)
    assert budget.seat(counted(1, 1, slots=2), 0.0) is None
    budget.free(seat)
    assert budget.seat(counted(1, 1, slots=99), 0.0).slots == SLOTS


def test_slots_with_a_context_of_their_own_are_only_counted():
    budget = KvBudget(2, each=1024)
    first = budget.seat(counted(1000, 5000), 0.0)
    assert first.limit is None and budget.seat(counted(1000), 0.0)
    assert budget.seat(counted(1), 0.0) is None and budget.too_long(counted(1024))


def test_a_request_that_only_asks_takes_nothing():
    budget = KvBudget(1, CONTEXT)
    budget.seat(counted(1, CONTEXT), 0.0)
    assert budget.seat(Demand(slots=0), 0.0)


@pytest.mark.parametrize(
    "demand, must",
    [
        (Demand(1, 100, 100, countable=True), False),
        (Demand(1, 100, 1000, countable=True), True),
        (Demand(1, 600, 1, countable=True), True),
        (Demand(1, 100, None, countable=True), False),
        (Demand(1, 100, 1, countable=True, templated=True), True),
        (Demand(1, None, 1, countable=True), True),
        (Demand(1, 4000, 1), False),
        (Demand(0, None, 1, countable=True), False),
        (counted(4000), False),
    ],
)
def test_a_prompt_is_counted_where_it_matters(demand, must):
    """An equal share of the context is 1,024 tokens, and a template 512 until it is measured."""
    assert LONGEST_TEMPLATE == 512
    assert KvBudget(SLOTS, CONTEXT).must_count(demand) is must


def test_a_prompt_that_cannot_be_counted_has_the_context_for_itself():
    budget = KvBudget(SLOTS, CONTEXT)
    beside = budget.seat(counted(1, 1), 0.0)
    unknown = Demand(1, None, 5)
    assert budget.seat(unknown, 0.0) is None
    budget.free(beside)
    assert budget.seat(unknown, 0.0) and budget.seat(counted(1, 1), 0.0) is None


def test_one_that_is_not_counted_and_may_fill_the_context_keeps_its_limit():
    """An infill's prompt is cut by llama-server itself."""
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(Demand(1, 3 * CONTEXT, 128), 0.0)
    assert (seat.tokens, seat.limit) == (CONTEXT, 128)


def test_many_texts_to_embed_are_no_long_prompt():
    budget = KvBudget(SLOTS, CONTEXT)
    texts = Demand(9, 3 * CONTEXT, 0, exact=True, separate=True)
    assert not budget.too_long(texts) and budget.seat(texts, 0.0).tokens == CONTEXT
    assert budget.too_long(Demand(9, CONTEXT, 0, exact=True))


# Who leaves.


def test_what_a_leaver_had_is_free_when_its_slot_is_seen_at_work_no_more():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 3000), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    assert budget.unsure(waited_for=False) and budget.used
    assert not budget.look([SlotState(seat.number, True)], 1.1)
    assert budget.look([], 1.2) and not budget.used
    assert not budget.unsure(waited_for=True)


def test_a_leaver_that_was_never_seen_may_still_be_on_its_way():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 3000), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    assert not budget.look([], 1.1) and budget.used
    assert budget.look([], 1.2 + UNSEEN)


def test_a_leaver_is_gone_when_a_slot_that_rests_had_it_last():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 3000), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    assert not budget.look([SlotState(seat.number + 1, False)], 1.1)
    assert budget.look([SlotState(seat.number, False)], 1.2) and not budget.used


def test_several_answers_to_one_prompt_were_given_slots_at_once():
    """They may be done before anybody has looked."""
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 100, 2)._replace(together=True), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    slots = [SlotState(seat.number, True), SlotState(seat.number, False)]
    assert not budget.look(slots, 1.1) and budget.taken == 2
    assert budget.look([SlotState(seat.number, False)], 1.2) and not budget.taken


def test_several_prompts_are_over_when_each_slot_that_they_had_rests():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 100, 2), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    assert budget.look([SlotState(seat.number, False)] * 2, 1.1) and not budget.taken


def test_of_several_prompts_one_slot_that_rests_says_nothing_of_the_others():
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 100, 2), 0.0)
    budget.end(seat, Use.LEFT, 1.0)
    assert not budget.look([SlotState(seat.number, False)], 1.1) and budget.taken == 2
    assert not budget.look([SlotState(seat.number, True), SlotState(seat.number, False)], 1.2)
    assert budget.look([SlotState(seat.number, False)], 1.3) and not budget.taken


def test_a_leaver_whose_slot_shows_no_number_is_gone_when_no_such_slot_is_at_work():
    budget = KvBudget(SLOTS, CONTEXT)
    leaver = budget.seat(Demand(1, 100, 100, exact=True), 0.0)
    budget.begin(leaver)
    budget.end(leaver, Use.LEFT, 1.0)
    assert not budget.look([SlotState(0, True, True)], 1.1)
    assert budget.look([SlotState(0, False)], 1.2) and budget.taken == 0


def test_of_slots_without_a_number_any_may_be_the_leavers_until_it_must_be_noticed():
    """Another one's answer may be whole already, and on its way to us: the slot at work is not his
    then."""
    budget = KvBudget(SLOTS, CONTEXT)
    unmarked = Demand(1, 100, 100, exact=True)
    stays, leaver = budget.seat(unmarked, 0.0), budget.seat(unmarked, 0.0)
    for seat in (stays, leaver):
        budget.begin(seat)
    budget.end(leaver, Use.LEFT, 1.0)
    assert not budget.look([SlotState(0, True, True)], 1.3)
    assert not budget.look([SlotState(0, True, True)] * 2, 1.1 + UNSEEN)
    assert budget.look([SlotState(0, True, True)], 1.1 + UNSEEN) and budget.taken == 1


def test_leavers_that_show_no_number_are_free_in_time_also_under_a_steady_load():
    """Others, whose answers come whole, never show that they have begun."""
    budget = KvBudget(SLOTS, CONTEXT)
    unmarked = Demand(1, 100, 0, exact=True)
    leaver = budget.seat(unmarked, 0.0)
    budget.end(leaver, Use.LEFT, 1.0)
    budget.seat(unmarked, 1.0)
    assert not budget.look([SlotState(0, True)], 1.0 + UNSEEN)
    assert budget.look([SlotState(0, True)], 1.1 + UNSEEN) and budget.taken == 1


def test_a_slot_without_a_number_is_the_leavers_while_who_came_just_now_has_none():
    budget = KvBudget(SLOTS, CONTEXT)
    unmarked = Demand(1, 100, 100, exact=True)
    leaver = budget.seat(unmarked, 0.0)
    budget.end(leaver, Use.LEFT, 1.0)
    later = 1.1 + UNSEEN
    budget.seat(unmarked, later)
    assert not budget.look([SlotState(0, True)], later + 0.1) and budget.taken == 2
    assert budget.look([SlotState(0, True)], later + ARRIVES + 0.1) and budget.taken == 1


def test_one_that_left_before_it_had_a_slot_may_get_one_while_all_are_at_work():
    budget = KvBudget(SLOTS, CONTEXT)
    leaver = budget.seat(counted(100, 100), 0.0)
    budget.end(leaver, Use.LEFT, 1.0)
    others = [SlotState(99, True)] * (SLOTS - 1)
    assert not budget.look([*others, SlotState(98, True)], 1.1 + UNSEEN)
    assert budget.look([*others, SlotState(98, False)], 1.2 + UNSEEN) and not budget.taken


def test_what_was_never_sent_leaves_a_slot_as_it_was():
    budget = KvBudget(2, CONTEXT)
    budget.free(budget.seat(counted(3000, 100), 0.0))
    reads = budget.seat(counted(1000, 100), 1.0)
    unsent = budget.seat(Demand(1, 10, 10, exact=True, begins=(1, 2, 3)), 1.0)
    assert unsent is None  # the slot that it may get holds 3,132 tokens still
    budget.free(reads)
    unsent = budget.seat(Demand(1, 10, 10, exact=True, begins=(1, 2, 3)), 1.0)
    before = list(budget._remains._idle)
    budget.end(unsent, Use.UNSENT, 1.0)
    assert budget._remains._idle == before and budget.taken == 0
    assert not budget.keeps(Demand(begins=(1, 2, 3)))


def test_slots_of_which_nothing_is_said_are_free_in_the_end():
    budget = KvBudget(SLOTS, CONTEXT)
    stays, leaves = (budget.seat(counted(1, 1), 0.0) for _ in range(2))
    budget.end(leaves, Use.LEFT, 1.0)
    assert budget.forget_left() and budget.taken == 1
    assert not budget.forget_left() and stays in budget._seats


def test_numbers_are_whole_and_take_no_memory():
    budget = KvBudget(SLOTS, CONTEXT)
    budget._numbers = itertools.count(MOST_NUMBERS - 1)
    seats = [budget.seat(counted(1, 1), 0.0) for _ in range(2)]
    assert [seat.number for seat in seats] == [MOST_NUMBERS, 1]


def test_another_process_knows_of_no_leaver():
    budget = KvBudget(SLOTS, CONTEXT)
    stays, leaves = (budget.seat(counted(1, 1), 0.0) for _ in range(2))
    budget.end(leaves, Use.LEFT, 1.0)
    budget.reset(template=7)
    assert budget.taken == 1 and budget.template == 7
    budget.free(leaves)
    budget.free(stays)
    assert budget.taken == budget.used == 0


def test_a_conversation_is_known_again_by_its_beginning():
    budget = KvBudget(2, CONTEXT)
    turn = Demand(1, 10, 10, begins=(1, 2, 3))
    budget.free(budget.seat(turn, 0.0))
    assert budget.keeps(Demand(begins=(1, 2, 4, 5)))
    assert not budget.keeps(Demand(begins=(1, 9, 4))) and not budget.keeps(Demand(begins=(1,)))
    for other in range(2):
        budget.free(budget.seat(Demand(1, 10, 10, begins=(7, 8 + other, 9)), 0.0))
    assert not budget.keeps(turn)  # its slot has another one


# What slots hold of requests before.


def test_two_beginnings_count_what_their_slots_may_hold():
    """A slot is cleared when its prompt begins, and that waits while another one's is read."""
    budget = KvBudget(2, CONTEXT)
    for seat in [budget.seat(counted(0, 1500), 0.0) for _ in range(2)]:
        budget.free(seat)
    reads = budget.seat(counted(3000, 100), 1.0)
    small = counted(10, 100)
    assert budget.seat(small, 1.0) is None and budget.unsure(waited_for=True)
    assert budget.look([SlotState(reads.number, True, True)], 1.1)
    assert budget.seat(small, 1.1)


def test_slots_that_held_nothing_leave_what_the_others_hold():
    """1. Requests in three slots of four end. 2. One ends in the fourth. 3. One in three ends.
    Result: what the largest one has left is not forgotten."""
    budget = KvBudget(SLOTS, CONTEXT)
    large, two, one = (budget.seat(counted(*w), 0.0) for w in [(2400, 1), (10, 1, 2), (10, 1)])
    for seat in (two, large):
        budget.free(seat)
    budget.free(one)
    budget.free(budget.seat(counted(10, 1, 3), 0.0))
    assert budget.seat(counted(2500, 100), 1.0)
    assert budget.seat(counted(10, 100), 1.0) is None


def test_what_is_kept_while_a_model_is_away_is_in_the_slots_of_the_next_process():
    budget = KvBudget(2, CONTEXT)
    for seat in [budget.seat(counted(0, 1500), 0.0) for _ in range(2)]:
        budget.free(seat)
    budget.reset()
    assert budget.seat(counted(3000, 100), 1.0) and budget.seat(counted(10, 100), 1.0) is None


def test_a_slot_may_be_given_a_longer_conversation_out_of_the_cache():
    budget = KvBudget(SLOTS, CONTEXT)
    budget.free(budget.seat(counted(2000, 100), 0.0))
    budget.free(budget.seat(counted(10, 10, SLOTS), 0.0))  # what the slots hold now is small
    assert budget.seat(counted(2000, 100), 1.0)
    assert budget.seat(counted(600, 100), 1.0) is None  # it may get all that the first one left
    assert budget.seat(counted(60, 100), 1.0)  # this one gets none of it: it shares too little


def test_the_further_slots_of_one_request_hold_what_they_held_until_it_has_begun():
    budget = KvBudget(SLOTS, CONTEXT)
    before = [budget.seat(counted(900, 100), 0.0) for _ in range(SLOTS - 1)]
    for seat in before:
        budget.free(seat)
    beside = budget.seat(counted(2400, 100), 1.0)
    budget.begin(beside)
    several = counted(300, 30, 2)
    assert budget.seat(several, 1.0) is None
    assert budget.seat(counted(300, 30), 1.0)  # one slot is emptied at once


def test_one_that_is_in_the_way_of_itself_has_resting_slots_cleared():
    """Several answers to one prompt: it waits for nobody, but the slots of the further answers
    hold so much that llama-server could not read the prompt at once."""
    budget, several = KvBudget(SLOTS, CONTEXT), counted(300, 30, 2)._replace(together=True)
    first = budget.seat(several, 0.0)
    assert not first.clears
    budget.free(first)
    budget.free(budget.seat(counted(4000, 10), 0.0))
    seat = budget.seat(several, 1.0)
    assert seat.clears and budget.seat(counted(300, 30), 1.0) is None
    budget.cleared(seat)
    beside = budget.seat(counted(300, 30), 1.0)
    assert beside
    budget.free(beside)
    large = counted(10, 2500)  # no room for it beside what the host cache may put into a slot
    assert budget.seat(large, 1.0) is None
    budget.begin(seat)
    beside = budget.seat(large, 1.0)
    assert beside
    budget.free(beside)
    budget.free(seat)
    assert not budget.seat(several, 2.0).clears


@pytest.mark.parametrize("together", [True, False])
def test_each_slot_that_reads_a_prompt_may_be_given_something_first(together):
    """Of several answers to one prompt it is one slot, of several prompts each."""
    budget = KvBudget(SLOTS, CONTEXT)
    budget.free(budget.seat(counted(4000, 10), 0.0))
    seat = budget.seat(counted(300, 30, 3)._replace(together=together), 1.0)
    assert seat.clears
    budget.cleared(seat)
    assert bool(budget.seat(counted(10, 1500), 1.0)) == together


def test_who_only_asks_is_in_nobodys_way():
    """Somebody who counts tokens has no slot. Result: slots are cleared as if he were not there."""
    budget = KvBudget(SLOTS, CONTEXT)
    budget.free(budget.seat(counted(4000, 10), 0.0))
    assert budget.seat(Demand(slots=0), 0.5)
    seat = budget.seat(counted(300, 30, 4), 1.0)
    assert seat and seat.clears


def test_one_slot_is_never_in_the_way_of_itself():
    budget = KvBudget(SLOTS, CONTEXT)
    for _ in range(SLOTS):
        budget.free(budget.seat(counted(4000, 10), 0.0))
    assert not budget.seat(counted(3000, 10), 1.0).clears


@pytest.mark.parametrize(
    "task, mixes, fits",
    [("completion", True, True), ("infill", True, False), ("completion", False, False)],
)
def test_who_does_not_begin_beside_others_may_be_given_something_first(task, mixes, fits):
    """llama-server computes an infill and a chat in steps of their own, and, if it is told so,
    reads no prompt while others generate: a request has its slot, with all that the host cache has
    put into it, and waits."""
    budget = KvBudget(SLOTS, CONTEXT, ways=Ways(mixes=mixes))
    budget.free(budget.seat(counted(2500, 10), 0.0))
    at_work = budget.seat(counted(1600, 128)._replace(task=task), 1.0)
    budget.begin(at_work)
    assert budget.seat(Demand(slots=0), 1.0)  # who only asks changes nothing
    chat = counted(1200, 1)._replace(task="completion")
    assert bool(budget.seat(chat, 1.1)) == fits
    if not fits:
        budget.free(at_work)
        assert budget.seat(chat, 1.2)


def test_those_without_a_number_have_begun_when_all_slots_without_one_have():
    budget = KvBudget(SLOTS, CONTEXT)
    one, other = (budget.seat(counted(10, 100)._replace(marked=False), 0.0) for _ in range(2))
    begun, reads = SlotState(0, True, True), SlotState(0, True)
    for slots in ([begun], [begun, SlotState(0, False)], [begun, reads], [begun] * 3):
        assert not budget.look(slots, 1.0) and not one.begun and not other.begun
    assert budget.look([begun, begun], 1.0) and one.begun and other.begun
    assert not budget.unsure(waited_for=True)


@pytest.mark.parametrize("task, mixes", [("infill", True), ("", False)])
def test_nobody_waits_inside_who_would_not_begin_beside_the_others(task, mixes):
    budget = KvBudget(SLOTS, CONTEXT, ways=Ways(mixes=mixes))
    assert all(budget.seat(counted(20, 1)._replace(task=task), 0.0) for _ in range(SLOTS))
    assert budget.seat(counted(20, 1), 0.0) is None
    assert bool(budget.seat(counted(20, 1)._replace(task=task), 0.0)) == mixes


def test_several_prompts_have_begun_when_each_has():
    """llama-server reads one after the other, where they are long."""
    budget = KvBudget(SLOTS, CONTEXT)
    seat = budget.seat(counted(1000, 1, 2), 0.0)
    done, reads = SlotState(seat.number, False), SlotState(seat.number, True)
    assert not budget.look([done, reads], 1.0) and not seat.begun
    assert budget.look([done, reads._replace(begun=True)], 2.0) and seat.begun


def test_of_more_prompts_than_slots_some_have_not_begun():
    """Their slots cannot show when all have. Result: nobody looks for that."""
    budget = KvBudget(2, CONTEXT)
    seat = budget.seat(counted(1000, 1, 3), 0.0)
    assert not budget.look([SlotState(seat.number, True, True)] * 2, 1.0) and not seat.begun
    assert not budget.unsure(waited_for=True)
    few = KvBudget(2, CONTEXT)
    assert few.seat(counted(1000, 1, 2), 0.0) and few.unsure(waited_for=True)


class Run:
    """Requests come, wait in order, are seated, begin, end and leave."""

    def __init__(self, slots, mixes=True):
        self.slots, self.budget = slots, KvBudget(slots, CONTEXT, ways=Ways(mixes=mixes))
        self.waiting, self.held, self.now = [], [], 0.0

    def come(self, prompt, limit, slots, task):
        demand = counted(prompt, limit, slots)
        self.waiting.append(demand._replace(together=prompt % 2 == 0, task=task))

    def play(self, data, deeds, comes):
        """So many of these deeds, with requests such as `comes`."""
        for _ in range(data.draw(st.integers(1, 40))):
            deed = data.draw(st.sampled_from(deeds))
            if deed == self.come:
                self.come(*data.draw(comes))
            elif deed == self.look:
                self.look()
            elif self.held:
                deed(data.draw(st.sampled_from(self.held)))
            self.seat()

    def clear(self, seat):
        self.budget.cleared(seat)

    def look(self):
        shown = [
            SlotState(seat.number, True, seat.begun) for seat in self.held if seat.left is None
        ]
        shown = shown[: self.slots]  # one may wait for a slot
        self.budget.look(shown, self.now)
        self.held = [seat for seat in self.held if seat.left is None or not seat.seen]

    def end(self, seat):
        if seat.left is None:
            self.budget.free(seat)
            self.held.remove(seat)

    def leave(self, seat):
        if seat.left is None:
            self.budget.end(seat, Use.LEFT, self.now)

    def seat(self):
        self.now += 1.0
        while self.waiting and (seat := self.budget.seat(self.waiting[0], self.now)):
            assert seat.limit >= 1
            if seat.clears:
                self.clear(seat)
            self.held.append(seat)
            self.waiting.pop(0)
        assert self.budget.used <= CONTEXT and self.budget.taken <= self.slots + 1
        self.adds_up()

    def adds_up(self):
        """What is counted on the way is what there is."""
        budget, seats = self.budget, list(self.budget._seats)
        begun = [seat for seat in seats if seat.begun]
        assert budget.used == sum(seat.tokens for seat in seats)
        assert budget.taken == sum(seat.slots for seat in seats)
        assert budget._at_work == sum(seat.slots for seat in begun)
        assert budget._beginning == len(seats) - len(begun)
        assert budget._left == sum(seat.left is not None for seat in seats)
        tasks = Counter()
        for seat in seats:
            tasks[seat.task] += seat.slots
        assert +budget._tasks == +tasks


SIZE = st.integers(0, CONTEXT - 1)
TASK = st.sampled_from(["completion", "infill"])
COMES = st.tuples(SIZE, st.none() | st.integers(0, 2 * CONTEXT), st.integers(1, 6), TASK)


class Cells(Run):
    """The same on slots that hold cells. A request gets any slot that rests; there it finds what
    that held, or a conversation out of the cache, until its prompt begins: at once, unless another
    one's is read, or any is at work of another task (where prompts are not
    mixed with answers: of any). Of several slots, all but one keep that until
    the first token has come."""

    def __init__(self, slots, mixes, data):
        super().__init__(slots, mixes)
        self._mixes = mixes
        self._data = data
        self._cells = [0] * slots
        self._given, self._ended, self._cleared = {}, [], None

    def clear(self, seat):
        """Of several answers only the first slot is given something out of the cache."""
        super().clear(seat)
        self._cells, self._cleared = [0] * self.slots, seat

    def _draw(self, of):
        return self._data.draw(st.sampled_from(of))

    def seat(self):
        super().seat()
        for seat in self.held:
            self._give(seat)
        self._check()

    def _give(self, seat):
        rest = set(range(self.slots)) - {n for of in self._given.values() for n in of}
        if seat in self._given or len(rest) < seat.slots:
            return  # it waits inside
        at_once = not self._in_the_way(seat) and all(other.begun for other in self._given)
        self._given[seat] = [rest.pop() for _ in range(seat.slots)]
        if at_once:
            self._cells[self._given[seat][0]] = seat.tokens // seat.slots
        if at_once and seat.slots == 1:
            return
        prompt = seat.tokens // seat.slots - (seat.limit or 0) - MARGIN
        cached = [n for n in self._ended if 4 * prompt >= n]
        given = self._given[seat][: 1 if seat is self._cleared and seat.together else None]
        for number in given if cached and self._data.draw(st.booleans()) else ():
            self._cells[number] = self._draw(cached)

    def _check(self):
        """What no request has been given is emptied where cells are needed."""
        at_work = {number for of in self._given.values() for number in of}
        assert sum(self._cells[number] for number in at_work) <= CONTEXT

    def begin(self, seat):
        if seat in self._given and not self._in_the_way(seat):
            self._grow(seat)
            self.budget.begin(seat)

    def _in_the_way(self, seat):
        """Those that generate, and beside which it does not begin."""
        others = [other for other in self._given if other.begun and other is not seat]
        return [other for other in others if not self._mixes or other.task != seat.task]

    def _grow(self, seat):
        for number in self._given[seat]:
            self._cells[number] = seat.tokens // seat.slots

    def end(self, seat):
        if seat.left is None and seat in self._given and seat.begun:
            self._grow(seat)
            self._check()
            self._ended += [seat.tokens // seat.slots]
            super().end(seat)
            del self._given[seat]

    def serve(self, seat):
        self.begin(seat)
        self.end(seat)

    def look(self):
        before = {seat for seat in self._given if seat.left is not None}
        super().look()
        for seat in before - {*self.held}:
            self._given.pop(seat, None)


# Few kinds, so that they meet.
FEW = st.tuples(
    st.sampled_from([10, 640, 2400]), st.sampled_from([1, 100]), st.integers(1, 3), TASK
)


@settings(max_examples=200)
@given(st.integers(3, 5), st.booleans(), st.data())
def test_slots_never_hold_more_cells_than_there_are(slots, mixes, data):
    run = Cells(slots, mixes, data)
    run.play(data, [run.come, run.come, run.serve, run.begin, run.end, run.look], FEW)


class Yes:
    def draw(self, _):
        return True


class Worst(Cells):
    """A slot that waits is given the longest conversation there is."""

    def _draw(self, of):
        return max(of)


@pytest.mark.parametrize("mixes, task", [(True, "infill"), (False, "completion")])
def test_who_waits_in_a_slot_for_another_task_finds_room(mixes, task):
    """What the drawn ones above seldom meet. Result: it is seated only when the other has ended."""
    run = Worst(SLOTS, mixes, Yes())
    for prompt, of in ((2400, "completion"), (2400, task), (640, "completion")):
        run.come(prompt, 100, 1, of)
        run.seat()
        for seat in list(run.held)[:1] if prompt == 2400 else ():
            run.begin(seat)
            if of == "completion" and len(run._ended) == 0:
                run.end(seat)
    assert len(run.held) == 1 and len(run.waiting) == 1
    run.end(run.held[0])
    run.seat()
    assert len(run.held) == 1 and not run.waiting


@given(st.integers(1, 5), st.data())
def test_it_is_never_exceeded_and_never_stuck(slots, data):
    run = Run(slots)
    run.play(data, [run.end, run.leave, run.budget.begin, run.look, run.come], COMES)
    for seat in run.held:
        run.budget.free(seat)
    run.budget.look([], run.now + 2 * UNSEEN)
    for demand in run.waiting:
        run.budget.free(run.budget.seat(demand, run.now))
    assert run.budget.used == run.budget.taken == 0


def test_what_takes_no_slot_leaves_nothing_to_be_looked_for():
    budget = KvBudget(SLOTS, CONTEXT)
    asks = budget.seat(Demand(slots=0), 0.0)
    assert not budget.unsure(waited_for=True)
    budget.end(asks, Use.LEFT, 0.0)
    assert not budget.unsure(waited_for=True)


@pytest.mark.parametrize(
    "budget, share",
    [
        (KvBudget(SLOTS, CONTEXT), 1000 / CONTEXT),
        (KvBudget(SLOTS, each=512), 1 / SLOTS),
        (KvBudget(), None),
    ],
    ids=["shared", "each its own", "unbounded"],
)
def test_how_much_is_given_away(budget, share):
    assert budget.usage in (0.0, None)
    seat = budget.seat(counted(1000 - MARGIN - 500, 500), 0.0)
    assert budget.usage == share
    budget.free(seat)
    assert budget.usage in (0.0, None)
