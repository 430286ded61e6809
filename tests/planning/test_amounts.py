import pytest

from app.planning.amounts import GIB, lacking, lasting


@pytest.mark.parametrize(
    "wanted, available, told",
    [
        (2 * GIB, GIB, "2.00 GiB are needed, of 1.00 GiB"),
        (50 << 20, 49 << 20, "0.049 GiB are needed, of 0.048 GiB"),
        (GIB + 1, GIB, "1.000000001 GiB are needed, of 1.000000000 GiB"),
    ],
)
def test_two_sizes_that_differ_look_different(wanted, available, told):
    assert lacking({"host": wanted}, {"host": available}) == f"host memory: {told}"


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 seconds"),
        (1.8, "1.8 seconds"),
        (60, "1 minute"),
        (108, "1.8 minutes"),
        (3600, "1 hour"),
        (86400, "24 hours"),
    ],
)
def test_a_time_is_told_in_the_unit_that_tells_it(seconds, text):
    assert lasting(seconds) == text
