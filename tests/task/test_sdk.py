import asyncio
import gc
import linecache
import logging
import sys
import threading

import pytest

from app.errors import ConfigError, FormError
from app.task.sdk import ClearMLError, Complaints, NoAnswerError, SdkThread, one_line
from tests.fakes import until


def started():
    sdk = SdkThread()
    sdk.start()
    return sdk


class LoginError(Exception):
    """As the SDK's own: of no class that we know."""


def test_calls_run_in_order_in_one_thread_of_their_own(run):
    async def scenario():
        sdk, seen = started(), []
        for number in range(5):
            sdk.post(lambda n=number: seen.append((n, threading.current_thread().name)))
        assert await sdk.call("last", lambda: "last", 5) == "last"
        assert seen == [(n, "clearml") for n in range(5)]

    run(scenario)


def test_a_call_has_a_deadline_and_the_loop_goes_on(run):
    async def scenario():
        sdk, go_on = started(), threading.Event()
        with pytest.raises(NoAnswerError, match="ClearML: tasks.edit: no answer in 0.01 s"):
            await sdk.call("tasks.edit", go_on.wait, 0.01)
        go_on.set()
        assert await sdk.call("next", lambda: 1, 5) == 1

    run(scenario)


def test_a_call_without_a_deadline_that_takes_long_is_told(run, caplog, monkeypatch):
    monkeypatch.setattr("app.task.sdk.SILENCE", 0.05)

    async def scenario():
        sdk, go_on = started(), threading.Event()

        def hangs():
            return go_on.wait()

        call = asyncio.create_task(sdk.call("tasks.edit", hangs, None))
        await until(lambda: caplog.text)
        go_on.set()
        assert await call
        assert await sdk.call("next", lambda: 1, None) == 1

    run(scenario)
    (record,) = caplog.records
    assert "ClearML: tasks.edit: no answer in 0.05 s" in record.getMessage()
    assert f"{__file__}:" in record.getMessage() and " hangs" in record.getMessage()


def test_nothing_is_collected_while_python_looks_for_frames():
    """Python before 3.12 holds a lock then, for which a collection may wait for ever."""
    sdk, *_ = [started() for _ in range(20)]
    collected = []

    def note(phase, _):
        caller = sys._getframe(1)
        collected.append(linecache.getline(caller.f_code.co_filename, caller.f_lineno))

    thresholds = gc.get_threshold()
    gc.callbacks.append(note)
    try:
        gc.set_threshold(1)
        assert "_run" in sdk.place()
    finally:
        gc.callbacks.remove(note)
        gc.set_threshold(*thresholds)
    assert collected and not any("_current_frames" in line for line in collected)
    assert gc.isenabled()


def test_a_call_that_has_not_begun_at_its_deadline_is_dropped(run):
    async def scenario():
        sdk, go_on, done = started(), threading.Event(), []
        sdk.post(go_on.wait)
        calls = [sdk.call("late", lambda: done.append(1), 0.01) for _ in range(3)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in failures] == [NoAnswerError] * 3
        go_on.set()
        await sdk.call("next", lambda: None, 5)
        assert done == []

    run(scenario)


def test_what_comes_after_the_deadline_is_nobodys_unhandled_error(run):
    async def scenario():
        sdk, go_on, unhandled = started(), threading.Event(), []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: unhandled.append(told))

        def fail_late():
            go_on.wait()
            raise LoginError

        with pytest.raises(NoAnswerError):
            await sdk.call("late", fail_late, 0.01)
        go_on.set()
        await sdk.call("next", lambda: None, 5)
        await asyncio.sleep(0)
        assert unhandled == []

    run(scenario)


@pytest.mark.parametrize("raised", [LoginError("no token"), KeyError("x"), SystemExit(3)], ids=repr)
def test_whatever_the_sdk_raises_becomes_our_error(run, raised):
    async def scenario():
        sdk = started()

        def fail():
            raise raised

        with pytest.raises(ClearMLError) as caught:
            await sdk.call("tasks.edit", fail, 5)
        assert str(caught.value) == f"ClearML: tasks.edit: {one_line(raised)}"
        assert caught.value.exit_status == ConfigError.exit_status
        assert await sdk.call("next", lambda: 1, 5) == 1  # the thread goes on

    run(scenario)


def test_our_own_errors_pass_as_they_are(run):
    async def scenario():
        def fail():
            raise FormError("Model/model", "is empty")

        with pytest.raises(FormError, match="^Model/model: is empty$"):
            await started().call("x", fail, 5)

    run(scenario)


@pytest.mark.parametrize(
    "error, expected",
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (ValueError(), "ValueError"),
        (OSError("at https://me:secret@host/x"), "OSError: at https://host/x"),
    ],
    ids=str,
)
def test_an_error_is_one_line_without_credentials(error, expected):
    assert one_line(error) == expected


def test_an_error_that_is_a_page_is_cut():
    assert len(one_line(ValueError("x" * 10_000))) < 400


def test_a_failure_is_said_when_it_begins(caplog):
    complaints = Complaints()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            complaints.failed("a", "a fails")
        complaints.failed("b", "b fails")
        complaints.worked("a")
        complaints.failed("a", "a fails again")
    assert caplog.messages == ["a fails", "b fails", "a fails again"]


def test_calls_that_wait_are_bounded(run):
    async def scenario():
        sdk, go_on = started(), threading.Event()
        sdk.post(go_on.wait)
        futures = [sdk.post(lambda: None) for _ in range(1100)]
        refused = [f for f in futures if f.done() and f.exception()]
        assert 90 <= len(refused) <= 101
        go_on.set()
        await asyncio.to_thread(futures[0].result, 5)

    run(scenario)
