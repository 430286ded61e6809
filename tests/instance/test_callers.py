import asyncio

import pytest

from app.errors import ConfigError
from app.form.settings import GeneralSettings
from app.gateway.origins import KEY_VARIABLE
from app.instance.callers import callers_of, own_keys
from tests.task.fakes import FakeTask


@pytest.mark.parametrize("text", ["0123456789\nabcdef", "0123456789abcdef,\udcff", "a\x00b"])
def test_a_key_that_no_header_can_carry(text):
    with pytest.raises(ConfigError, match="^LLAMACPP_API_KEY: has a line break") as raised:
        own_keys({KEY_VARIABLE: text})
    assert "0123" not in str(raised.value)


def test_what_surrounds_a_key_is_none_of_it():
    """As the end of a file that a secret was made of."""
    assert own_keys({KEY_VARIABLE: "one\n, two "}) == ["one", "two"]


@pytest.mark.parametrize(
    "variable, routed, token, warned",
    [
        ("", False, True, False),
        ("", True, True, False),
        (" , ", False, True, False),
        ("0123456789abcdef", False, False, False),
        ("0123456789abcdef,short", False, False, True),
    ],
)
def test_only_without_a_key_there_is_a_token(caplog, variable, routed, token, warned):
    given = (FakeTask(under_agent=False), GeneralSettings(), {KEY_VARIABLE: variable})
    callers = [asyncio.run(callers_of(*given, routed=routed)) for _ in range(2)]
    assert len({each.token for each in callers}) == (2 if token else 1)
    assert all(len(each.token) >= 43 * token for each in callers)
    assert ("can be guessed" in caplog.text) == warned
