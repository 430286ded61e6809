import pytest

from app.engine.lifecycle import TRANSITIONS, Event, IllegalTransition, State, next_state


def test_every_state_has_a_row():
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
def test_next_state_is_the_table(state):
    for event in Event:
        if event in TRANSITIONS[state]:
            assert next_state(state, event) is TRANSITIONS[state][event]
        else:
            with pytest.raises(IllegalTransition):
                next_state(state, event)
