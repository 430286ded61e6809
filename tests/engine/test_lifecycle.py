import pytest

from app.engine.lifecycle import TRANSITIONS, Event, IllegalTransition, State, next_state


def test_every_state_has_a_row():
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_next_state_is_the_table(state, event):
    if event in TRANSITIONS[state]:
        assert next_state(state, event) is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, event)
