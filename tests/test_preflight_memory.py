"""Where models go on a machine with two GPUs, by what a planning tool says of them."""

import asyncio

import pytest

from app.engine.arguments import Wanted
from app.engine.capabilities import Capabilities
from app.engine.footprint import Machine
from app.form.settings import ModelSettings
from app.models.gguf import Header
from app.models.reference import Tiny
from app.models.store import ModelFiles
from app.preflight import Files, Planned, Room, settle_memory

GIB = 1 << 30
HEADER = Header({"general.architecture": "llama", "llama.context_length": 8192}, (), 0)
# A model of {size} MiB, which {single} fits on one GPU, and is spread as it is told.
TOOL = """#!/usr/bin/env python3
import sys
words = sys.argv[1:]
given = dict(zip(words, words[1:]))
if "--fit-print" not in words:
    print({single!r} if "--device" in given else {several!r})
    sys.exit()
print("Host 1 1 1")
if "--device" in given:
    print(given["--device"], {size}, 0, 0)
else:
    split = given.get("--tensor-split") or given["-ts"]
    shares = [int(share) for share in split.split(",")]
    for number, share in enumerate(shares):
        print(f"CUDA{{number}}", {size} * share // sum(shares), 0, 0)
"""


@pytest.fixture
def settled(tmp_path):
    """`settled(room, size=MiB, single=…)`: placement, and GiB by device."""

    def settle(room, size, single="-c 8192 -ngl -1", several="-c 8192 -ngl -1"):
        tool = tmp_path / "llama-fit-params"
        tool.write_text(TOOL.format(size=size, single=single, several=several))
        tool.chmod(0o755)
        known = Capabilities({}, tmp_path / "llama-server", {"CUDA0": 24 * GIB, "CUDA1": 24 * GIB})
        files = ModelFiles((tmp_path / "m.gguf",), HEADER)
        planned = Planned(ModelSettings(), Tiny(), Files(files, None, files), Wanted())
        found = asyncio.run(settle_memory(planned, files, known, Machine(0, 4, 1, {}), room))
        devices = {name: size >> 30 for name, size in found.footprint.devices.items()}
        return found.resolved, devices

    return settle


def room(**assigned):
    sizes = {name: size * GIB for name, size in assigned.items()}
    return Room({"CUDA0": 24 * GIB, "CUDA1": 24 * GIB, "host": 99 * GIB}, sizes)


def test_the_single_gpu_with_most_room(settled):
    shared = room(CUDA0=1)
    resolved, devices = settled(shared, 10 << 10)
    assert resolved.placement == ("--device", "CUDA1") and devices == {"CUDA1": 10}
    assert shared.assigned["CUDA1"] > 10 * GIB


@pytest.mark.parametrize("cut", ["-c 8192 -ngl 17", "-c 4096 -ngl -1", "-c 8192 -ot x=CPU"])
def test_what_is_cut_to_fit_on_one_is_spread_over_both_instead(settled, cut):
    resolved, devices = settled(room(), 30 << 10, single=cut)
    assert resolved.placement == ("--tensor-split", "24576,24576")
    assert devices == {"CUDA0": 15, "CUDA1": 15}
    assert resolved.gpu_layers == 9999 and resolved.context == 8192 and resolved.whole


def test_it_is_spread_by_what_others_leave_where_it_fits_so(settled):
    resolved, devices = settled(room(CUDA0=8), 30 << 10, single="-ngl 3")
    assert resolved.placement == ("--tensor-split", "16384,24576")
    assert devices == {"CUDA0": 12, "CUDA1": 18}


def test_where_it_does_not_fit_beside_them_by_all_that_there_is(settled):
    """It has to take turns with them."""
    resolved, devices = settled(room(CUDA0=22), 40 << 10, single="-ngl 3")
    assert resolved.placement == ("--tensor-split", "24576,24576")
    assert devices == {"CUDA0": 20, "CUDA1": 20}


def test_one_that_is_too_large_for_both_is_cut(settled):
    resolved, _ = settled(room(), 40 << 10, single="-ngl 3", several="-c 8192 -ngl 20 -ts 1,1")
    assert not resolved.whole and resolved.gpu_layers == 20
    assert resolved.placement == ("-ts", "1,1")
