import asyncio
import threading
import time

import pytest

from app.task.clearml_task import known_offline
from app.task.sdk import SdkThread, SdkTimeoutError


@pytest.mark.parametrize(
    "wanted, variable, expected",
    [(True, None, True), (False, "1", True), (False, "2.33", True), (False, "0", False)]
    + [(False, "False", False), (False, None, False)],
)
def test_known_offline(wanted, variable, expected):
    environment = {} if variable is None else {"CLEARML_OFFLINE_MODE": variable}
    assert known_offline(wanted, environment) is expected


def test_calls_run_in_order_in_one_thread_of_their_own(run):
    async def scenario():
        sdk, seen = SdkThread(), []
        sdk.start()
        for number in range(5):
            sdk.post(lambda n=number: seen.append((n, threading.current_thread().name)))
        assert await sdk.call(lambda: "last", 5) == "last"
        assert seen == [(n, "clearml") for n in range(5)]

    run(scenario)


def test_a_call_has_a_deadline_and_the_loop_goes_on(run):
    async def scenario():
        sdk = SdkThread()
        sdk.start()
        with pytest.raises(SdkTimeoutError):
            await sdk.call(lambda: time.sleep(0.5), 0.05)
        assert await sdk.call(lambda: 1, 5) == 1

    run(scenario)


def test_a_failure_goes_to_who_waits_and_the_thread_goes_on(run):
    async def scenario():
        sdk = SdkThread()
        sdk.start()

        def fail():
            raise SystemExit(3)

        with pytest.raises(SystemExit):
            await sdk.call(fail, 5)
        assert await sdk.call(lambda: 1, 5) == 1

    run(scenario)


def test_calls_that_wait_are_bounded(run):
    async def scenario():
        sdk, go_on = SdkThread(), threading.Event()
        sdk.start()
        sdk.post(go_on.wait)
        futures = [sdk.post(lambda: None) for _ in range(1100)]
        refused = [f for f in futures if f.done() and f.exception()]
        assert 90 <= len(refused) <= 101
        go_on.set()
        await asyncio.to_thread(futures[0].result, 5)

    run(scenario)
