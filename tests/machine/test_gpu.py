import json
import os
import subprocess
import sys

import pytest

from app.machine.gpu import Load, machine_stats
from tests.gpus import Gpus


def test_clearmls_machine_stats():
    loads = [Load(50.0, 3 << 20, 8 << 20, 61.0, "0"), Load(None, 1 << 20, 8 << 20, None, "1")]
    assert machine_stats(loads) == {
        "gpu_usage": [50.0],
        "gpu_memory_used": [3, 1],
        "gpu_memory_free": [5, 7],
        "gpu_temperature": [61.0],
    }
    assert machine_stats([]) == {}


ASK = """
import json
from app.machine import gpu
devices = [[d.id, d.cuda, d.name, d.used >> 20, d.total >> 20] for d in gpu.devices()]
loads = [[l.id, l.usage, l.temperature] for l in gpu.load()]
free = {name: size >> 20 for name, size in gpu.free().items()}
print(json.dumps([devices, loads, free, gpu.used_by(PID)]))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """One GPU of which we hold a part, and one that does not say what it does."""
    gpus = Gpus(tmp_path_factory.mktemp("gpus"), 16384, 8192)
    gpus.set(0, others=1000)
    gpus.set(1, others=10, usage=-1, temperature=-1)
    gpus.hold(0, os.getpid(), 500)
    gpus.hold(0, 1 << 22, 9999)  # nobody: no pid is so high
    return gpus


def ask(gpus, **environment):
    """The real pynvml, on the library of `gpus`."""
    clean = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    code = ASK.replace("PID", str(os.getpid()))
    told = subprocess.check_output(
        [sys.executable, "-c", code], env={**clean, **gpus.environment, **environment}
    )
    return json.loads(told)


def test_what_the_driver_says(two):
    devices, loads, free, held = ask(two)
    assert devices == [
        ["0", "CUDA0", "NVIDIA-Sham", 1500, 16384],
        ["1", "CUDA1", "NVIDIA-Sham", 10, 8192],
    ]
    assert loads == [["0", 37, 61], ["1", None, None]]
    assert free == {"CUDA0": 14884, "CUDA1": 8182} and held == {"CUDA0": 500 << 20}


@pytest.mark.parametrize(
    "visible, ids",
    [
        ("1", ["1"]),
        ("1,0", ["1", "0"]),
        ("GPU-b", ["1"]),
        ("GPU-bbbb-2222, 0", ["1", "0"]),
        ("0,7,1", ["0"]),
        ("GPU-", []),
        ("-1", []),
        ("", []),
    ],
)
def test_the_gpus_that_a_cuda_program_sees(two, visible, ids):
    """In its own order, up to the first that is none."""
    devices, loads, free, held = ask(two, CUDA_VISIBLE_DEVICES=visible)
    assert [device[0] for device in devices] == [load[0] for load in loads] == ids
    assert list(free) == [f"CUDA{n}" for n in range(len(ids))]
    assert held == ({f"CUDA{ids.index('0')}": 500 << 20} if "0" in ids else {})


def test_without_a_driver(two):
    assert ask(two, LD_LIBRARY_PATH="") == [[], [], {}, {}]
