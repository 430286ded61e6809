import pytest

from app.errors import RequestError
from app.gateway.body.asked import Asked, asked, prompts_in
from app.telemetry.samples import Several


@pytest.mark.parametrize(
    "value, count",
    [
        ("a", 1),
        (["a", "b"], 2),
        ([1, 2, 3], 1),
        (["a", 1, "b"], 1),
        ([[1, 2], [3]], 2),
        ([["a", "b"], "c"], 3),
        ([], 0),
        ({"odd": 1}, 1),
        ([{"odd": 1}, {}], 2),
    ],
)
def test_a_list_of_token_numbers_is_one_prompt(value, count):
    assert len(list(prompts_in(value))) == count


def test_what_is_asked_is_read_however_odd_it_is():
    odd = {"n": "x", "max_tokens": [], "prompt": {"a": 1}, "n_predict": True}
    assert asked(odd) == Asked({"prompt": 1}, 1, {"n_predict": 1, "max_tokens": None})
    assert asked({"id_slot": 1, "n": 3}) == Asked(choices=3, chooses_slot=True)


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({}, Several()),
        ({"n": 4}, Several(1, 4)),
        ({"n": 4.0}, Several(1, 4)),
        ({"n_cmpl": 2}, Several(1, 2)),
        ({"n": 1, "n_cmpl": 4}, Several(1, 4)),
        ({"n": 4, "n_cmpl": 1}, Several(1, 1)),
        ({"n": -1}, Several()),
        ({"n": "many", "prompt": "x"}, Several()),
        ({"prompt": ["a", "b"], "n": 2}, Several(2, 2)),
        ({"prompt": [1, 2, 3]}, Several()),
        ({"prompt": [1, "a", 3]}, Several()),
        ({"prompt": []}, Several()),
    ],
)
def test_how_many_answers_are_asked_for(fields, expected):
    assert asked(fields).several == expected


@pytest.mark.parametrize("name", ["n", "n_cmpl"])
@pytest.mark.parametrize("number", [2**31, 2**32 + 1, -(2**32) + 2, 18446744069414584321, 1e300])
def test_what_llama_server_would_read_as_another_number_is_refused(name, number):
    with pytest.raises(RequestError, match=f"^{name}: must be a whole number") as raised:
        asked({name: number})
    assert raised.value.status == 400
