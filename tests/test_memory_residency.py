import pytest

from app.memory.residency import Refuse, Resident, Serve, Swap, Wait, decide

GIB = 1024**3


def resident(name: str, size: int, *, pinned: bool = False, last_used: float = 0.0) -> Resident:
    return Resident(name, size * GIB, pinned, last_used)


@pytest.mark.parametrize(
    "size, residents, expected",
    [
        pytest.param(8, [], Swap(()), id="empty-gpu"),
        pytest.param(8, [resident("target", 8)], Serve(), id="already-resident"),
        pytest.param(8, [resident("a", 10)], Swap(()), id="fits-beside"),
        pytest.param(8, [resident("a", 20)], Swap(("a",)), id="evicts-idle"),
        pytest.param(8, [resident("a", 20, pinned=True)], Wait(), id="waits-for-busy"),
        pytest.param(25, [], Refuse(), id="larger-than-budget"),
        pytest.param(24, [], Swap(()), id="exactly-the-budget"),
        pytest.param(
            8,
            [resident("new", 10, last_used=2), resident("old", 10, last_used=1)],
            Swap(("old",)),
            id="evicts-least-recently-used",
        ),
        pytest.param(
            20,
            [resident("busy", 12, pinned=True), resident("idle", 8)],
            Wait(),
            id="evicting-idle-is-not-enough",
        ),
    ],
)
def test_decide(size, residents, expected):
    assert decide("target", size * GIB, residents, budget=24 * GIB) == expected
