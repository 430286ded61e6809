"""Forty fleets, and what makes them worth something: each is the same whenever it is run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import main
from tests.simulation.fleet.kept import KEPT, SCALE
from tests.simulation.fleet.world import simulate

ROOT = Path(__file__).parents[3]
BLOCK, BLOCKS = 10, 4  # seeds of a test, and tests
DIGESTS = """
from tests.simulation.fleet.world import simulate
print(*(simulate(seed).digest for seed in range(1000, 1003)))
"""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_nothing_breaks(block):
    seeds = range(block * BLOCK, (block + 1) * BLOCK)
    found = {seed: simulate(seed).violations for seed in seeds}
    assert {seed: told for seed, told in found.items() if told} == {}, (
        "see what happens: python -m tests.simulation --fleet --seed N --trace"
    )


@pytest.mark.parametrize("seed", KEPT)
def test_what_was_found_before_stays_mended(seed):
    assert simulate(seed, SCALE).violations == [], KEPT[seed]


def test_the_command_tells_what_happened(capsys):
    assert main(["--fleet", "--seed", "1", "--trace"]) == 0
    told = capsys.readouterr().out
    assert "ordered an instance" in told and "failed: []" in told


def test_a_fleet_is_the_same_whenever_it_is_run():
    """Also where Python gives other hashes and addresses to everything."""

    def digests(hash_seed):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        line = [sys.executable, "-c", DIGESTS]
        return subprocess.run(line, cwd=ROOT, env=environment, check=True, capture_output=True)

    first, second = digests("1").stdout.split(), digests("2").stdout.split()
    assert first == second and len(set(first)) == 3
