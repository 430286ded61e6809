"""The ClearML task of this process: its parameters, scalars, abort and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from typing import Any, TypeVar

from app import console
from app.machine import chance, clock, threads
from app.task import api, file_server, inputs, live, mode, reporting, script, secret
from app.task.api import RefusedError
from app.task.claim import Claim
from app.task.direct import Direct
from app.task.inputs import Input
from app.task.last_words import LastWords
from app.task.live import Runtime
from app.task.mode import Mode
from app.task.outcome import Outcome, Run, unwatched
from app.task.reporting import Table
from app.task.sdk import ClearMLError, NoAnswerError, translated
from app.task.session import START_DEADLINE, Session
from app.telemetry.scalars import Point

logger = logging.getLogger(__name__)

T = TypeVar("T")

END_BUDGET = 9.0  # seconds, for the requests that write the end
END_PATIENCE = 60.0  # seconds that are added where nobody waits for us
OWN_END = 5.0  # seconds in which this process ends by itself
TRIES = 3  # requests that `once` may take: with an expired token it logs in
ABORT_SLACK = 40.0  # seconds, for everything that is stopped besides the drain
LOOK_DEADLINE = 5.0  # seconds, for the question whose the task is


class ClearMLTask:
    """The methods that are awaited raise ClearMLError where ClearML does not do what was asked."""

    def __init__(
        self,
        *,
        offline: bool,
        environment: Mapping[str, str],
        recorded: bool = True,
        command: str = "",
    ) -> None:
        """Unless it is `recorded` it is offline, and the SDK is neither called nor imported.
        `command`: of the app, which a clone of the task runs, too."""
        self._session = Session(offline=offline or not recorded, environment=environment)
        self._recorded = recorded
        self._command = command
        self._runtime = Runtime()
        self._last_words: LastWords | None = None  # None: offline, or not open yet
        self._claim: Claim | None = None  # None as well
        self._direct: Direct | None = None  # None as well
        self._task: Any = None
        self._ended = True  # an unopened task has no end to write
        self.task_id = ""  # until the task is open

    @property
    def mode(self) -> Mode:
        return self._session.mode

    @property
    def offline(self) -> bool:
        return self.mode is Mode.OFFLINE

    @property
    def under_agent(self) -> bool:
        return self.mode is Mode.AGENT

    async def open(self, project: str, name: str) -> dict[str, str]:
        """Create the task, or take over the one that an agent started. Returns its hyperparameters
        by "Section/name".

        An offline task has none, so it is opened without waiting for the SDK's import.
        """
        become = partial(self._become, project, name)
        self._session.start()
        if self._session.known_offline:
            self._ended = False
            if self._recorded:
                self._session.post("opening the offline task", become)
            return {}
        await self._session.find_mode()
        if not self.offline:
            await self._session.log_in_to_serve()
        self._ended = False
        try:
            parameters = await self._session.call("opening the task", become, START_DEADLINE)
        except NoAnswerError:
            self._ended = True  # the server would not hear of the end either
            raise self._session.silent() from None
        if self.mode is Mode.LOCAL:
            what = "recording how an agent runs a clone of the task"
            self._post(
                what, lambda task: script.record(task, mode.REQUIREMENTS.parent, self._command)
            )
        return parameters

    async def attach(self) -> None:
        """Prepare for requests to the server, without a task of our own."""
        self._session.start()
        if not self._session.known_offline:
            await self._session.find_mode()

    def _become(self, project: str, name: str) -> dict[str, str]:
        self._task = mode.become(self.mode, project, name)
        self.task_id = str(self._task.id)
        if self.offline:
            return {}
        run = self._clear()
        self._last_words = LastWords(run, self.mode, mode.direct(self._task))
        self._direct = mode.direct(self._task)
        self._claim = Claim(run, self._direct.ask)
        if self.under_agent:
            self._last_words.begin(self._task.session)
        parameters = self._task.get_parameters()
        return {key: "" if text is None else str(text) for key, text in parameters.items()}

    def _clear(self) -> Run:
        """What is shown of an earlier run, or of another task; then this run of the task begins.
        Not being able to is no failure."""
        run = chance.name(8)
        try:
            live.clear(self._task, self._runtime, run)
        except Exception as error:  # noqa: BLE001 the SDK's edge
            logger.warning("%s", translated("clearing the user properties", error))
            return Run(self.task_id, "")
        return Run(self.task_id, run)

    async def call(self, name: str, function: Callable[[Any], T], deadline: float) -> T:
        """Run `function` of the SDK's task in the SDK's thread; a failure names the call."""
        return await self._session.call(name, lambda: function(self._task), deadline)

    async def ask(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        """Send a request to the server's API; the data of the answer."""
        return await self._session.ask(service, action, fields, deadline)

    async def once(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> tuple[dict[str, Any], str]:
        """As `ask`, but one try, which an outage cannot make one of hours; with the answer's date.
        Raises NoAnswerError where it is not known whether the request has had an effect."""
        call = f"{service}.{action}"

        def send() -> tuple[dict[str, Any], str]:
            assert self._direct is not None, "the task is not open"
            try:
                return self._direct.dated(service, action, fields, deadline / TRIES)
            except RefusedError:
                raise
            except (ClearMLError, OSError) as error:
                raise NoAnswerError(str(translated(call, error))) from None

        return await self._session.call(call, send, deadline)

    async def write(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> None:
        """As `ask`, for what shows this run: nothing once another run has the task."""
        call = f"{service}.{action}"

        def send() -> None:
            if self._claim is not None:
                self._claim.ask(service, action, fields)

        await self._session.call(call, lambda: self._write(send), deadline)

    async def look(self, deadline: float | None = None) -> None:
        """Find out whether another run has the task, at most once a minute."""
        if self._claim is not None:
            await self._session.call("looking at the task", self._claim.holds, deadline)

    async def is_lost(self) -> bool:
        """Whether another run has the task, or is to have it, as the server says now. Never
        raises: False where it does not say."""
        if self._claim is not None:
            self._claim.doubt()
            with contextlib.suppress(ClearMLError):
                await self.look(LOOK_DEADLINE)
        return self._lost

    def on_taken(self, stop: Callable[[], object]) -> None:
        """Call `stop` on the loop when another run has the task, or is to have it."""
        loop = asyncio.get_running_loop()
        if self._claim is not None:
            self._claim.on_loss(lambda: loop.call_soon_threadsafe(stop))

    def _set_properties(self, claim: Claim, values: Mapping[str, str]) -> None:
        claim.ask("tasks", "edit_hyper_params", api.properties(self.task_id, values))

    def _write(self, send: Callable[[], object]) -> None:
        """In the SDK's thread."""
        if self._claim is None:
            send()
        elif self._claim.holds():
            with self._claim.watched():
                send()

    def write_parameters(self, values: Mapping[str, str]) -> None:
        """Write the merged form, once: a clone of the task shows every field."""
        self._post("writing the parameters", lambda task: task.update_parameters(dict(values)))

    def rename(self, name: str, replaceable: Callable[[str], bool]) -> None:
        """Name the task so, if its name is `replaceable`."""

        def rename(task: Any) -> None:
            if task.name != name and replaceable(task.name):
                task.set_name(name)

        self._post("naming the task", rename)

    def show_inputs(self, wanted: Sequence[Input]) -> None:
        """List the models that are served as the task's inputs, and no others."""
        if not self.offline:
            self._post("showing the input models", lambda task: inputs.show(task.id, wanted))

    async def blank(self, keys: Sequence[str]) -> None:
        """Empty these hyperparameters; the server has confirmed it on return."""
        call = f"removing {keys[0]} from the task"
        await self.call(call, lambda task: secret.remove(task, keys), START_DEADLINE)

    def report(self, points: Sequence[Point], since: float) -> None:
        """Report these values, whenever the SDK can send them. `since`: seconds since iteration
        0."""
        began = clock.wall() - since
        self._post("sending scalars", lambda task: reporting.scalars(task, points, began))

    async def show(
        self, properties: Mapping[str, str], table: Table | None, deadline: float | None = None
    ) -> None:
        """Set user properties (online only) and replace a table. On return the server has confirmed
        the properties, and the SDK has taken the table."""

        def send() -> None:
            if self._task is None:
                return
            if properties and self._claim is not None:
                self._set_properties(self._claim, properties)
            if table is not None:
                reporting.table(self._task, table)

        await self._session.call("showing the state", lambda: self._write(send), deadline)

    async def tell(self, state: Mapping[str, str], deadline: float | None = None) -> None:
        """Tell programs these parts of the live state (`live.LIVE`), which the server has confirmed
        on return."""

        def send() -> None:
            claim = self._claim
            if claim is None:
                return
            edited = self._runtime.edit(self._task, live.keys(state), ask=claim.ask)
            if not edited and live.MODELS in state:
                self._set_properties(claim, {live.MODELS: state[live.MODELS]})

        await self._session.call("telling the state", lambda: self._write(send), deadline)

    async def show_page(self, title: str, series: str, page: str) -> None:
        """Upload an HTML page to the task's debug samples, where it replaces the one before."""

        def send() -> None:
            if self._task is None:
                return
            if not self.offline:
                to = self._task.get_logger().get_default_upload_destination()
                file_server.check(str(to or ""))
            reporting.page(self._task, title, series, page)

        call = "showing the page of examples"
        await self._session.call(call, lambda: self._write(send), None)

    async def run_key(self) -> str:
        """The task's API key, which everybody who may read the task can read. A restart of the
        task keeps it."""
        call = "storing the task's API key"
        return await self.call(call, lambda t: secret.run_key(t, self._runtime), START_DEADLINE)

    def forget_key(self) -> None:
        """Callers send another key, or a token of the App Gateway."""
        call = "removing the key of an earlier run"
        self._post(call, lambda task: secret.forget_key(task, self._runtime))

    async def set_runtime(self, values: Mapping[str, str]) -> None:
        """Set runtime properties of the task; only at the start, before others write any."""
        call = "setting runtime properties"
        await self.call(call, lambda task: self._runtime.set(task, values), START_DEADLINE)

    def on_abort(self, stop: Callable[[], Awaitable[None]], grace: float) -> None:
        """Run `stop` on the loop when somebody aborts the task. It is not to return before this
        process ends: the SDK would then write all runtime properties, and kill the process."""
        if self.offline:
            return  # offline the SDK's watcher takes the task for aborted, and kills this process
        loop = asyncio.get_running_loop()
        timeout = grace + ABORT_SLACK

        def aborted() -> None:
            async def run() -> None:
                await stop()

            with contextlib.suppress(FutureTimeout):
                threads.result(asyncio.run_coroutine_threadsafe(run(), loop), timeout)
            clock.sleep(OWN_END)

        self._post(
            "registering the abort callback",
            lambda task: task.register_abort_callback(aborted, timeout),
        )

    def foresee(self, outcome: Outcome, reason: str) -> None:
        """What is to be said of the end if an agent kills us from here on."""
        if self._claim is not None:
            self._claim.doubt()  # who has aborted the task may have enqueued it at once
        if self._last_words is not None:
            self._last_words.foresee(outcome, reason)

    def has_rows(self, containers: Sequence[str]) -> None:
        """Whatever ends us, these are to be taken out of Model Endpoints."""
        if self._last_words is not None:
            self._last_words.has_rows(containers)

    async def flush(self, deadline: float) -> None:
        """Send everything that was reported."""
        await self.call("flush", lambda task: task.flush(wait_for_uploads=True), deadline)

    async def end(self, outcome: Outcome, reason: str, budget: float = END_BUDGET) -> bool:
        """Send what was reported and write how the task ended, within `budget` seconds. Only the
        first call does so. Never raises. Returns whether the server has confirmed the status."""
        if self._ended:
            return False
        self._ended = True
        if self._lost:
            self.foresee(Outcome.MOVED, "")
        if outcome is Outcome.MOVED or self._lost:
            return False
        until = clock.now() + budget
        # Offline nothing is said after it, and a busy machine takes its time.
        await self._flush_and_close(budget if self.offline else min(budget, END_BUDGET) / 2)
        if self._task is None or self._last_words is None:
            return False
        unwatched(self._task)
        console.flush()  # an agent reads it
        return await self._last_words.say(outcome, reason, until)

    @property
    def _lost(self) -> bool:
        return self._claim is not None and self._claim.lost

    async def _flush_and_close(self, budget: float) -> None:
        def flush() -> None:
            if self._task is not None:
                self._task.get_logger().flush(wait=True)
                if self.offline:
                    mode.close_hidden(self._task)

        try:
            await self._session.call("sending what was reported", flush, budget)
        except NoAnswerError:
            pass  # offline it is the SDK itself that takes its time; online it is said below
        except ClearMLError as error:
            logger.warning("%s", error)

    def _post(self, what: str, function: Callable[[Any], object]) -> None:
        """Call `function` of the SDK's task in the SDK's thread, without waiting for it."""

        def call() -> None:
            if self._task is not None and not self._lost:
                function(self._task)

        self._session.post(what, call)
