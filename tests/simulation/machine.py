"""The machine: one GPU, the processes on it, and what NVML and psutil say of them."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from types import SimpleNamespace

from app.machine.activity import Activity, Standing
from app.machine.children import Done

GPU = "CUDA0"
GIB, MIB = 1 << 30, 1 << 20
HELP = """usage: llama-server
  --host HOST  address, or unix socket
-m, --model FNAME  model
-c, --ctx-size N  context
-ngl, --gpu-layers N  layers
-np, --parallel N  slots
-t, --threads N  threads
-tb, --threads-batch N  threads
-kvu, --kv-unified  shared
--no-cache-idle-slots  keep them
-cram, --cache-ram N  MiB
-fit, --fit on|off  fit
--port PORT  port
--alias NAME  name
--metrics  metrics
--slots  slots
--slot-save-path PATH  folder
--no-ui  no page
--log-jsonl  JSON lines
--no-warmup  no warm-up
--warmup  warm-up
--list-devices  GPUs
--embeddings  embeddings
--embedding  embeddings
--pooling KIND  pooling
-b, --batch-size N  batch
-ub, --ubatch-size N  batch
-cb, --cont-batching  batching
"""


class Child:
    """A process: what `subprocess.Popen` would be."""

    def __init__(self, machine, pid, argv, environment, pipes):
        self.machine, self.pid, self.argv, self.environment = machine, pid, argv, environment
        self.returncode = None
        self.ended = machine.loop.create_future()
        self.held = 0  # bytes of the GPU
        self.frozen = False
        self.program = None
        self._input, self._output = (os.dup(end) for end in pipes)
        os.set_blocking(self._output, False)
        machine.loop.add_reader(self._input, self._told)

    def _told(self):
        word = os.read(self._input, 4096)
        if not word:
            self.machine.loop.remove_reader(self._input)
        elif self.program is not None:
            self.program.told(word)

    def say(self, line):
        with contextlib.suppress(OSError):  # nobody reads it, or not fast enough
            os.write(self._output, line.encode() + b"\n")

    def signal(self, signum):
        if self.returncode is None:
            self.machine.trace(f"{self.name} gets {signal.Signals(signum).name}")
            self.machine.loop.call_later(0.001, self._take, signum)

    def _take(self, signum):
        if signum == signal.SIGSTOP:
            self.frozen = True
        elif signum == signal.SIGCONT:
            self.frozen = False
        elif signum == signal.SIGTERM:
            self.program.terminate()
        else:
            self.die(-signum)

    @property
    def name(self):
        return f"{self.program.alias}#{self.pid - self.machine.first_pid}"

    def die(self, status):
        if self.returncode is not None:
            return
        self.returncode = status
        self.machine.trace(f"{self.name} ends with {status}")
        self.program.end()
        self.machine.let_go(self)
        with contextlib.suppress(OSError, ValueError):
            self.machine.loop.remove_reader(self._input)
        os.close(self._input)
        os.close(self._output)
        self.ended.set_result(status)

    def poll(self):
        return self.returncode

    wait = poll


class Machine:
    """`capacity`, `others` (what other programs hold) in bytes of the GPU. `sizes`: of each model
    by its file's name, what the planning tool says and what it really takes. `program` makes the
    simulated llama-server of a child."""

    first_pid = 5_000_000  # beyond every real one

    def __init__(self, loop, trace, capacity, sizes, *, hides):
        self.loop, self.trace, self.capacity, self.sizes = loop, trace, capacity, sizes
        self.others, self.hides, self.disk = 0, hides, 1 << 40
        self.children, self.wills = [], []
        self.held, self.most_held = 0, 0
        self.broken = False  # nothing can be started
        self.program = None
        self.over = []  # each moment in which models held more than there is

    @property
    def alive(self):
        return [child for child in self.children if child.returncode is None]

    # Memory.

    def take(self, child, size):
        """Whether so much could be allocated."""
        if self.held + self.others + size > self.capacity:
            if not self.others:
                self.over.append(f"{child.name} wants {size >> 20} MiB beside {self.held >> 20}")
            return False
        child.held += size
        self.held += size
        self.most_held = max(self.most_held, self.held)
        return True

    def let_go(self, child):
        self.held -= child.held
        child.held = 0

    # The seam of processes.

    def run(self, argv, environment, timeout):
        """A short program: llama-server that is asked, or its planning tool."""
        if argv[0].endswith("llama-fit-params"):
            return Done(0, self._predicted(argv), "")
        if argv[1:] == ["--help"]:
            return Done(0, HELP, "")
        free = (self.capacity - self.held - self.others) >> 20
        listed = f"  {GPU}: Simulated ({self.capacity >> 20} MiB, {free} MiB free)\n"
        return Done(0, f"Available devices:\n{listed}", "")

    def _predicted(self, argv):
        if "--fit-print" not in argv:
            return "-c 2048 -ngl -1"
        predicted, _ = self.sizes[os.path.basename(argv[argv.index("-m") + 1])]
        return f"{GPU} {predicted >> 20} 0 0\nHost 1 1 1\n"

    def spawn(self, argv, environment, *, stdin, stdout, stderr):
        if self.broken:
            raise OSError(12, "Cannot allocate memory")
        assert argv[0] != sys.executable, "a worker for large bodies: not simulated"
        pid = self.first_pid + len(self.children) + 1
        child = Child(self, pid, list(argv), dict(environment), (stdin, stdout))
        self.children.append(child)
        child.program = self.program(child)
        self.trace(f"{child.name} is started")
        return child

    async def exit_status(self, child):
        return await asyncio.shield(child.ended)

    def signal_group(self, child, signum):
        child.signal(signum)

    def outlive(self, argv, environment):
        self.wills.append(will := Will())
        return will

    def activity(self, pid):
        """What the kernel shows."""
        child = self.children[pid - self.first_pid - 1]
        if child.returncode is not None:
            return Activity(Standing.GONE)
        if child.frozen:
            return Activity(Standing.STOPPED)
        return Activity(Standing.ASLEEP, 0.0 if child.program.wedged else self.loop.time())

    # psutil and NVML, as far as app.machine uses them.

    @property
    def psutil(self):
        memory = SimpleNamespace(total=64 * GIB, available=48 * GIB)
        return SimpleNamespace(
            Error=LookupError,
            virtual_memory=lambda: memory,
            cpu_count=lambda logical: 8,
            disk_usage=lambda path: SimpleNamespace(free=self.disk),
            disk_partitions=lambda all: [],
            Process=lambda pid=0: SimpleNamespace(
                memory_info=lambda: SimpleNamespace(rss=100 * MIB), parents=list
            ),
            cpu_times=lambda percpu: [],
            net_io_counters=lambda: None,
            disk_io_counters=lambda: None,
        )

    @property
    def pynvml(self):
        return SimpleNamespace(
            NVMLError=LookupError,
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(
                total=self.capacity, used=self.held + self.others
            ),
            nvmlDeviceGetName=lambda handle: "Simulated",
            nvmlDeviceGetTemperature=lambda handle, kind: 60,
            nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=50),
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [
                SimpleNamespace(pid=child.pid, usedGpuMemory=child.held)
                for child in ([] if self.hides else self.alive)
            ],
        )

    def visible(self):
        return {GPU: ("0", "GPU-0")}


class Will(io.BytesIO):
    """What the process of the last will was told."""

    @property
    def last(self):
        lines = self.getvalue().splitlines()
        return json.loads(lines[-1]) if lines else {}
