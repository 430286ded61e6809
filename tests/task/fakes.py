"""A stand-in for ClearMLTask: it notes what is asked, and answers as a test says."""

import asyncio

from app.task.sdk import translated


class FakeTask:
    """`answers` maps "service.action" to the data that is answered, to an exception that is raised,
    or to a coroutine function on the request's fields; what is not named answers {}. `sdk_task` is
    what functions are called with. `shown` are the confirmed calls of `show` and `show_page`."""

    def __init__(self, answers=None, *, sdk_task=None, offline=False, under_agent=True):
        self.answers, self.sdk_task = answers or {}, sdk_task
        self.offline, self.under_agent, self.task_id = offline, under_agent, "task"
        self.asked, self.deadlines, self.shown = [], [], []
        self.told = {}  # the live state
        self.refusals = {}  # "state" or "page" → an exception
        self.tried = asyncio.Queue()  # an entry for each `show` and `show_page`

    async def ask(self, service, action, fields, deadline):
        name = f"{service}.{action}"
        self.asked.append((name, dict(fields)))
        self.deadlines.append(deadline)
        answer = self.answers.get(name, {})
        if callable(answer):
            answer = await answer(fields)
        if isinstance(answer, Exception):
            raise answer
        return answer

    write = ask

    async def look(self, deadline=None):
        pass

    async def call(self, name, function, deadline):
        self.deadlines.append(deadline)
        try:
            return function(self.sdk_task)
        except Exception as error:  # noqa: BLE001 as the SDK's thread does
            raise translated(name, error) from None

    async def set_runtime(self, values):
        self.sdk_task.runtime |= values

    async def tell(self, state, deadline=None):
        self.told |= state

    async def flush(self, deadline):
        self.asked.append(("flush", {}))

    async def show(self, properties, table, deadline=None):
        await self._show("state", (properties, table))

    async def show_page(self, title, series, page):
        await self._show("page", page)

    async def _show(self, kind, what):
        refusal = self.refusals.get(kind)
        self.tried.put_nowait(what)
        await asyncio.sleep(0)  # others have their turns, as while the SDK is asked
        if refusal is not None:
            raise refusal
        self.shown.append(what)

    def names(self):
        return [name for name, _ in self.asked]
