import asyncio
import threading
from pathlib import Path

from app.doctor.examination import Check, examine
from app.doctor.finding import Verdict, not_checked, ok, problem, warning
from app.errors import ConfigError
from app.machine import threads


def test_one_that_fails_or_hangs_costs_the_others_nothing(run):
    blocked = threading.Event()

    async def fine():
        return ok("fine")

    async def refused():
        raise ConfigError("no such thing: name another")

    async def faulty():
        raise KeyError("a password")

    here, line = Path(__file__).name, faulty.__code__.co_firstlineno + 1

    async def hangs():
        await asyncio.Event().wait()

    async def blocks():
        await threads.run(blocked.wait)

    async def scenario():
        checks = [
            Check("hangs", hangs, 0.05, hanging="restart it"),
            Check("blocks", blocks, 0.05, Verdict.WARNING, "look"),
            Check("refused", refused),
            Check("mild", refused, failure=Verdict.WARNING),
            Check("faulty", faulty),
            Check("fine", fine),
        ]
        try:
            found = await examine(checks)
        finally:
            blocked.set()
        assert found == {
            "hangs": problem("no answer in 0.05 s", "restart it"),
            "blocks": warning("no answer in 0.05 s", "look"),
            "refused": problem("no such thing: name another"),
            "mild": warning("no such thing: name another", ""),
            "faulty": not_checked(f"a fault in this check: KeyError in {here}, line {line}"),
            "fine": ok("fine"),
        }
        assert list(found) == [check.name for check in checks]

    run(scenario)


def test_they_run_side_by_side(run):
    """The second one waits for the third, and the first one for both."""

    async def scenario():
        second, third = asyncio.Event(), asyncio.Event()

        async def waits(for_whom, then):
            await for_whom.wait()
            then.set()
            return ok("")

        async def goes():
            third.set()
            return ok("")

        found = await examine(
            [
                Check("a", lambda: waits(second, asyncio.Event())),
                Check("b", lambda: waits(third, second)),
                Check("c", goes),
            ]
        )
        assert all(finding == ok("") for finding in found.values())

    run(scenario)
