import pytest

from app.planning.amounts import at_once
from app.planning.budget import CONTEXT, LEAST_FREE, beside_others, hardware, headroom


def test_the_smaller_of_what_llama_server_and_the_driver_say():
    """Either may see only our part of a GPU; one may say nothing."""
    listed = {"CUDA0": 80, "CUDA1": 80, "CUDA2": 0, "Vulkan0": 24}
    assert hardware(listed, {"CUDA0": 40, "CUDA1": 90, "CUDA2": 70}) == {
        "CUDA0": 40,
        "CUDA1": 80,
        "CUDA2": 70,
        "Vulkan0": 24,
    }


GIB = 1 << 30


@pytest.mark.parametrize(
    "free, available, expected",
    [
        (79 * GIB, 80 * GIB, 79 * GIB - LEAST_FREE),  # all of it is for models
        (79 * GIB, 8 * GIB, 8 * GIB - CONTEXT),
        (5 * GIB, 8 * GIB, 5 * GIB - LEAST_FREE),  # others hold the rest
        (0, 8 * GIB, 0),
        (None, 8 * GIB, 8 * GIB - CONTEXT),  # it is not said
    ],
)
def test_what_one_model_may_take(free, available, expected):
    known = {} if free is None else {"CUDA0": free}
    assert headroom(known, {"CUDA0": available, "host": 1}) == {"CUDA0": expected}


@pytest.mark.parametrize(
    "needs, expected",
    [
        ([], 0),
        ([{"a": 10}] * 3, 1),
        ([{"a": 9}, {"a": 3}, {"a": 4}, {"a": 3}], 3),
        ([{"a": 6}, {"a": 6}, {"b": 9}, {"b": 9}, {"a": 1, "b": 1}], 3),
        ([{"a": 5, "host": 90}, {"a": 5, "host": 20}], 1),
        ([{"a": 11}], 0),
    ],
)
def test_how_many_run_at_once(needs, expected):
    assert at_once(needs, {"a": 10, "b": 10, "host": 100}) == expected


@pytest.mark.parametrize(
    "free, ours, wanted, expected",
    [
        ({"d": 80}, {}, {}, 80),
        ({"d": 30}, {"d": 50}, {"d": 40}, 80),  # nobody else
        ({"d": 10}, {"d": 50}, {"d": 40}, 60),
        ({"d": 0}, {"d": 90}, {"d": 40}, 80),  # ours hold less than they count for
        ({"d": 38}, {}, {"d": 40}, 40),  # it nearly fits
        ({"d": 20}, {}, {"d": 40}, 22),
        ({}, {"d": 50}, {"d": 40}, 80),  # the driver says nothing
        ({"d": 0}, {}, {}, 0),
    ],
)
def test_what_other_programs_leave(free, ours, wanted, expected):
    found = beside_others({"d": 80, "host": 7}, free, ours, wanted)
    assert found == {"d": expected, "host": 7}
