"""The real ctypes path against a libcuda of ours, compiled from tests/cuda/libcuda.c."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.machine import children
from app.memory import checkpoint_child
from app.memory.checkpoint import Checkpoints, Helper, deadline, probe
from app.memory.checkpoint_child import CHECKPOINTED, RUNNING
from app.memory.mover import MoveError, NoRoomError
from tests.fakes import until
from tests.gpus import CUDA, compiled

GIB = 1 << 30
USAGE = {"CUDA0": GIB}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda")
    compiled(CUDA, folder / "libcuda.so.1")
    return folder


@pytest.fixture
def cuda(library, tmp_path):
    """The environment of a machine with this driver; its folder says what goes wrong."""
    return {**os.environ, "LD_LIBRARY_PATH": str(library), "CUDA_FAKE": str(tmp_path)}


@pytest.fixture
def process():
    child = subprocess.Popen(["/bin/sleep", "600"])
    yield child
    child.kill()
    child.wait()


def calls(cuda):
    return [line.split()[0] for line in Path(cuda["CUDA_FAKE"], "calls").read_text().splitlines()]


def wrong(cuda, call):
    Path(cuda["CUDA_FAKE"], call).touch()


def test_a_trip_to_cpu_ram_and_back(run, cuda, process):
    async def scenario():
        helper = Helper(cuda)
        checkpoints = Checkpoints(helper, lambda: 10 * GIB)
        await checkpoints.park(process.pid, USAGE)
        assert await helper.ask("state", process.pid, 10) == CHECKPOINTED
        await checkpoints.restore(process.pid, USAGE)
        assert await helper.ask("state", process.pid, 10) == RUNNING
        assert calls(cuda) == ["Lock", "Checkpoint", "Restore", "Unlock"]
        checkpoints.stop()
        await helper.ended()

    run(scenario)


def test_without_room_in_host_memory_nothing_is_moved(run, cuda, process):
    async def scenario():
        checkpoints = Checkpoints(Helper(cuda), lambda: 3 * GIB)
        with pytest.raises(NoRoomError, match="2.5 GiB are needed of host memory, 3.0 are free"):
            await checkpoints.park(process.pid, {"CUDA0": 2 * GIB, "CUDA1": GIB // 2})
        assert not Path(cuda["CUDA_FAKE"], "calls").exists()

    run(scenario)


def test_a_restore_waits_for_room_on_the_gpu_and_is_not_tried_without(
    run, cuda, process, monkeypatch
):
    monkeypatch.setattr("app.memory.checkpoint.GPU_PAUSE", 0.001)

    async def scenario():
        free = [0, 0, GIB]

        def gpus():
            return {"CUDA0": free.pop(0) if free else 0, "CUDA1": 9 * GIB}

        helper = Helper(cuda)
        checkpoints = Checkpoints(helper, lambda: 10 * GIB, gpus)
        await checkpoints.park(process.pid, USAGE)
        await checkpoints.restore(process.pid, USAGE)
        await checkpoints.park(process.pid, USAGE)
        with pytest.raises(MoveError, match="1.0 GiB are needed on CUDA0, 0.0 are free"):
            await checkpoints.restore(process.pid, USAGE)
        assert calls(cuda).count("Restore") == 1
        checkpoints.stop()
        await helper.ended()

    run(scenario)


def test_a_failed_move_says_the_drivers_word_and_is_unlocked(run, cuda, process):
    async def scenario():
        helper = Helper(cuda)
        checkpoints = Checkpoints(helper, lambda: 10 * GIB)
        wrong(cuda, "Checkpoint.fail")
        with pytest.raises(MoveError, match="Checkpoint: CUDA_ERROR_OUT_OF_MEMORY"):
            await checkpoints.park(process.pid, USAGE)
        assert calls(cuda) == ["Lock", "Checkpoint", "Unlock"]
        with pytest.raises(MoveError, match="Restore: CUDA_ERROR_ILLEGAL_STATE"):
            await checkpoints.restore(process.pid, USAGE)
        checkpoints.stop()
        await helper.ended()

    run(scenario)


def test_a_call_that_hangs_is_given_up_and_the_next_helper_works(run, cuda, process):
    async def scenario():
        helper = Helper(cuda)
        await helper.start()
        first = helper.pid
        wrong(cuda, "Lock.hang")
        with pytest.raises(MoveError, match="no answer from the CUDA driver in 0 s"):
            await helper.ask("park", process.pid, 0.3)
        await until(lambda: not Path(f"/proc/{first}").exists())
        Path(cuda["CUDA_FAKE"], "Lock.hang").unlink()
        await helper.ask("park", process.pid, 10)
        assert helper.pid != first
        helper.stop()
        await helper.ended()

    run(scenario)


class Stuck(subprocess.Popen):
    """In the driver: SIGKILL ends it later, and until then whoever waits for it stands still."""

    def kill(self):
        """Nothing happens."""

    def wait(self, timeout=None):
        assert self.poll() is not None, "the loop stands still"
        return super().wait(timeout)

    def let_go(self):
        super().kill()


def test_a_helper_that_does_not_end_when_it_is_killed_is_not_waited_for(
    run, cuda, process, monkeypatch
):
    """It hangs in the driver and is given up. Result: the next one works at once, and once the
    driver lets it go nothing of it stays behind."""

    def spawn(argv, environment, **ends):
        return Stuck(argv, env=environment, start_new_session=True, **ends)

    async def scenario():
        helper = Helper(cuda)
        with monkeypatch.context() as patch:
            patch.setattr(children, "spawn", spawn)
            await helper.start()
        stuck = helper._child
        try:
            wrong(cuda, "Lock.hang")
            with pytest.raises(MoveError, match="no answer from the CUDA driver"):
                await helper.ask("park", process.pid, 0.3)
            Path(cuda["CUDA_FAKE"], "Lock.hang").unlink()
            await helper.ask("park", process.pid, 10)
            helper.stop()
            await helper.ended(0.05)
            assert stuck.returncode is None
        finally:
            stuck.let_go()
        await until(lambda: stuck.returncode == -signal.SIGKILL)
        assert not Path(f"/proc/{stuck.pid}").exists()

    run(scenario)


def test_a_helper_that_reads_no_more_is_replaced(run, cuda, process, monkeypatch):
    def spawn(argv, environment, **ends):
        deaf = ["/bin/sh", "-c", """exec <&-; echo '{"ok": true}'; exec sleep 600"""]
        return subprocess.Popen(deaf, start_new_session=True, **ends)

    async def scenario():
        helper = Helper(cuda)
        with monkeypatch.context() as patch:
            patch.setattr(children, "spawn", spawn)
            await helper.start()
        with pytest.raises(MoveError, match="the helper is gone"):
            await helper.ask("park", process.pid, 10)
        await helper.ask("park", process.pid, 10)
        helper.stop()
        await helper.ended()

    run(scenario)


@pytest.mark.parametrize("seen", [False, True])
def test_a_helper_that_was_killed_is_replaced(run, cuda, process, seen):
    """Killed, and either found dead before the question, or while it waits for the answer."""

    async def scenario():
        helper = Helper(cuda)
        try:
            await helper.start()
            first = helper.pid
            if seen:
                os.kill(first, signal.SIGKILL)
                await asyncio.to_thread(os.waitid, os.P_PID, first, os.WEXITED | os.WNOWAIT)
            else:
                os.kill(first, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(0.1, os.kill, first, signal.SIGKILL)
                with pytest.raises(MoveError, match="the helper has ended"):
                    await helper.ask("park", process.pid, 10)
            await helper.ask("park", process.pid, 10)
            assert helper.pid != first
        finally:
            helper.stop()
            await helper.ended()

    run(scenario)


def test_the_probe_says_that_it_works_and_leaves_nothing(run, cuda):
    async def scenario():
        assert await probe(cuda) == ""
        assert calls(cuda) == ["Lock", "Checkpoint", "Restore", "Unlock"]
        (sibling,) = [p.name for p in Path(cuda["CUDA_FAKE"]).iterdir() if p.name.isdigit()]
        assert not Path(f"/proc/{sibling}").exists()

    run(scenario)


def test_the_probe_moves_as_many_gpus_as_are_used(run, cuda):
    """A machine that can move a process on one GPU, and none on several."""

    async def scenario():
        assert await probe(cuda, 2) == ""
        wrong(cuda, "Checkpoint.several")
        assert await probe(cuda, 1) == ""
        assert "CUDA_ERROR_NOT_SUPPORTED" in await probe(cuda, 2)

    run(scenario)


@pytest.mark.parametrize(
    "call, problem",
    [
        ("cuInit.fail", "cuInit: CUDA_ERROR_INVALID_VALUE"),
        ("Checkpoint.fail", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("Restore.fail", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("Unlock.fail", "CUDA_ERROR_OUT_OF_MEMORY"),
    ],
)
def test_the_probe_says_why_not(run, cuda, call, problem):
    wrong(cuda, call)

    async def scenario():
        assert problem in await probe(cuda)

    run(scenario)


def test_without_a_driver_or_with_an_old_one_the_probe_says_so(run, cuda, tmp_path):
    async def scenario():
        assert "no CUDA driver" in await probe({**cuda, "LD_LIBRARY_PATH": ""})
        old = tmp_path / "old"
        old.mkdir()
        (old / "x.c").write_text("int cuInit(unsigned f) { return 0; }")
        line = ["cc", "-shared", "-fPIC", "-o", old / "libcuda.so.1", old / "x.c"]
        subprocess.run(line, check=True)
        assert "older than 570" in await probe({**cuda, "LD_LIBRARY_PATH": str(old)})

    run(scenario)


def test_larger_moves_may_take_longer():
    assert deadline(0) == 20 and deadline(40 * GIB) == 100


def test_the_helper_is_a_program_by_itself(cuda):
    line = [sys.executable, "-I", "-S", checkpoint_child.__file__]
    done = subprocess.run(line, env=cuda, input=b"", capture_output=True, timeout=30)
    assert done.stdout == b'{"ok": true}\n' and done.returncode == 0
    assert shutil.which("cc")
