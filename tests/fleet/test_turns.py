from app.fleet.turns import in_turns
from app.memory.caller import Caller


class Request:
    def __init__(self, caller, since, **about):
        self.caller, self.since = Caller("key", caller, **about), float(since)

    def __repr__(self):
        return f"{self.caller.name}{self.since:g}"


def order(slots, *requests):
    return " ".join(map(repr, in_turns(requests, slots)))


def test_who_came_first_with_many_does_not_take_all_slots():
    many = [Request("a", n) for n in range(4)]
    assert order(3, *many, Request("b", 4), Request("c", 5)) == "a0 b4 c5 a1 a2 a3"


def test_beyond_the_slots_they_go_in_order_of_coming():
    assert order(1, Request("b", 3), Request("a", 2), Request("a", 1)) == "a1 a2 b3"


def test_weights_and_classes_count():
    heavy = [Request("a", n, weight=2) for n in range(4)]
    light = [Request("b", n + 4) for n in range(2)]
    batch = [Request("c", -1, batch=True)]
    assert order(6, *batch, *heavy, *light) == "a0 b4 a1 a2 b5 a3 c-1"
