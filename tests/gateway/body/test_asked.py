import pytest

from app.gateway.body.asked import Asked, asked, prompts_in


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
