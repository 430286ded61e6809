import asyncio

import pytest

from app.machine.deadline import within


def test_who_is_cancelled_in_the_moment_of_the_result_is_cancelled(run):
    """asyncio.wait_for of Python 3.11 returns the result then, and its caller goes on."""

    async def scenario():
        came = asyncio.get_running_loop().create_future()
        caller = asyncio.ensure_future(within(5.0, came))
        await asyncio.sleep(0)
        came.set_result("too late")
        caller.cancel()
        await asyncio.wait({caller})
        assert caller.cancelled()

    run(scenario)


@pytest.mark.parametrize("cancelled", [False, True])
def test_what_is_given_up_has_ended(run, cancelled):
    """By the time limit, or because the caller is cancelled."""
    ended = []

    async def long():
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def scenario():
        caller = asyncio.ensure_future(within(None if cancelled else 0.01, long()))
        await asyncio.sleep(0)
        if cancelled:
            caller.cancel()
        with pytest.raises(asyncio.CancelledError if cancelled else asyncio.TimeoutError):
            await caller
        assert ended

    run(scenario)


def test_results_and_errors_pass(run):
    async def fails():
        raise OSError("so")

    async def scenario():
        assert await within(None, asyncio.sleep(0, "so")) == "so"
        with pytest.raises(OSError, match="so"):
            await within(1.0, fails())

    run(scenario)
