import pytest

from app.planning.amounts import GIB, lacking


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
