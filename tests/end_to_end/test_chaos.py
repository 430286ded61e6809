"""One short seed of `make chaos`, with the real llama-server, nginx and ClearML's SDK."""

import pytest

from tests.chaos.world import run
from tests.end_to_end.conftest import PATIENCE

SEED = 0


@pytest.mark.long
def test_a_seed_of_the_chaos():
    """Faults for some seconds. Result: every request has an answer or one clear error, every model
    serves again, `/metrics` has counted what the callers have, and nothing is left."""
    report = run(SEED, seconds=12, callers=16, recovers=PATIENCE)
    assert report.phase == "rest" and report.faults.total() >= 4
    assert not report.problems, "\n".join([*report.problems, *report.story, report.output])
    assert report.ledger.ended["a", "200"] and not report.leaks
