"""Eighty worlds, and what makes them worth something: each is the same whenever it is run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.kept import KEPT
from tests.simulation.world import simulate

ROOT = Path(__file__).parents[2]
BLOCK, BLOCKS = 10, 8  # seeds of a test, and tests
DIGESTS = """
from tests.simulation.world import simulate
print(*(simulate(seed).digest for seed in range(1000, 1004)))
"""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_breaks(block):
    seeds = range(block * BLOCK, (block + 1) * BLOCK)
    found = {seed: simulate(seed).violations for seed in seeds}
    assert {seed: told for seed, told in found.items() if told} == {}, (
        "see what happens: python -m tests.simulation --seed N --trace"
    )


@pytest.mark.parametrize("seed", KEPT)
def test_what_was_found_before_stays_mended(seed):
    assert simulate(seed).violations == [], KEPT[seed]


def test_the_command_tells_what_happened_and_how_to_repeat_it(capsys):
    """Of one seed, with a trace, and of several."""
    told = [main(["--seed", "15", "--trace"]), capsys.readouterr().out]
    assert told[0] == 0 and "INFO app ready" in told[1] and "failed: []" in told[1]
    assert main(["--seeds", "2", "--first", "20"]) == 0
    assert capsys.readouterr().out.startswith("2 worlds, ")


def test_a_world_is_the_same_whenever_it_is_run():
    """Also where Python gives other hashes and addresses to everything."""

    def digests(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-c", DIGESTS]
        return subprocess.run(line, cwd=ROOT, env=environment, check=True, capture_output=True)

    first, second = digests("1").stdout.split(), digests("2").stdout.split()
    assert first == second and len(set(first)) == 4
    assert simulate(1000).digest.encode() == first[0]
