import asyncio
import gc
import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import uvloop
from hypothesis import HealthCheck, settings

# No test needs an idle machine.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
# What opens sockets or starts processes depends on the loop; for the rest one loop is enough.
ON_EVERY_LOOP = "tests.engine", "tests.gateway", "tests.machine", "tests.memory.test_checkpoint"


def pytest_collection(session):
    """The collector need not go through what stays, while it is imported and afterwards."""
    if hasattr(session.config, "workerinput") or not session.config.getoption("numprocesses", 0):
        gc.disable()


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc):
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "run" in metafunc.fixturenames and "run" not in chosen:
        every = metafunc.module.__name__.startswith(ON_EVERY_LOOP)
        metafunc.parametrize("run", list(LOOPS) if every else ["asyncio"], indirect=True)


def kill_children(since):
    """Those that have begun `since` then (CLOCK_BOOTTIME), of a test that has failed. Tasks and
    threads that wait for them would wait for ever, and the loop's end waits for these."""
    for child in psutil.Process().children():
        with suppress(psutil.Error, OSError):  # it has ended meanwhile
            begun = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
            if int(begun) / os.sysconf("SC_CLK_TCK") > since - 0.02:
                child.kill()


@pytest.fixture
def run(request):
    """Run a coroutine function to its end, on asyncio's loop and, see above, on uvloop's."""
    new_loop = LOOPS[request.param]

    def runner(scenario, *arguments):
        loop, begun = new_loop(), time.clock_gettime(time.CLOCK_BOOTTIME)
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(asyncio.wait_for(scenario(*arguments), 30))
        except BaseException:
            kill_children(begun)
            raise
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.run_until_complete(asyncio.sleep(0.001))  # what was closed is closed in the loop
            loop.close()
            asyncio.set_event_loop(None)

    return runner
