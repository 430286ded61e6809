"""Every bench runs, small: what it prints is no measurement here, but it says what it measured."""

import os
import shutil
import subprocess

import pytest

from tests.end_to_end.conftest import PATIENCE, ROOT, end_family

BENCHES = {
    "callers": ["app: 0 of 8 failed", "tokens per second, app / directly", "person, app"],
    "front": [
        "per relayed chunk",
        "per small request",
        "first byte",
        "a JSON body",
        "beside bodies",
    ]
    + ["sleeping model", "tokens per second", "idle, 1 models", "resident memory"],
    "start": ["median app, second start, listening", "median bare", "resident memory"],
    "memory": ["decision: 50 models", "wake", "kept: gone on with", "turns"]
    + ["agents: total", "agents: batch done"],
    "fetch": ["a file of 8 MB: ours", "with a limit for each connection"],
    "cold": [
        "seconds to the first token",
        "mmap, as it is: ",
        "no warm-up, read ahead by us: ",
        "warm: ",
    ],
    "fleet": ["affinity, door: ", "affinity, one instance: ", "added by the instance's front"]
    + ["CPU per chunk, door / instance", "request to enqueued", "/ready to the first token"],
    "policy": ["of the best in hindsight", "mean wait", "ours"],
    "soak": ["failed: none", "/metrics counted the same: yes", "nothing leaked"],
    "page": ["first contentful paint", "idle, 20 viewers", "no viewer"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_runs_and_says_what_it_measured(name, tmp_path):
    if name == "page" and not shutil.which("chromium"):
        pytest.skip("no chromium here")
    with subprocess.Popen(
        [ROOT / "scripts/bench" / name, "--small"],
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as bench:
        try:
            told, wrong = bench.communicate(timeout=3 * PATIENCE)
        except BaseException:
            end_family(bench)  # with its agents, doors and instances
            raise
    assert bench.returncode == 0, told + wrong
    for words in BENCHES[name]:
        assert words in told, told
