"""The ClearML task that this process is: parameters, scalars, abort, end."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib
import io
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from app.errors import ConfigError
from app.machine import chance, network
from app.task.sdk import SdkThread, SdkTimeoutError
from app.telemetry.scalars import Point

logger = logging.getLogger(__name__)

T = TypeVar("T")

START_DEADLINE = 60.0
FILE_SERVER_DEADLINE = 3.0
END_BUDGET = 10.0  # seconds for all calls of the end itself
ABORT_SLACK = 40.0  # seconds for all that the end does besides the drain
KEY_VARIABLES = ("CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY", "CLEARML_AUTH_TOKEN")
KEY_PROPERTY = "_api_key"  # a runtime property; ClearML's pages hide those that begin with "_"
FALSE = ("", "0", "false", "no")
MONITOR = {  # the SDK's machine monitor, on an axis of seconds from the first report on
    "report_frequency_sec": 15,
    "first_report_sec": 15,
    "wait_for_first_iteration_to_start_sec": 0,
    "max_wait_for_first_iteration_to_start_sec": 0,
    "report_mem_used_per_process": False,
}
# A message that begins so is not taken for an abort by the SDK, which would kill us.
OURS = "worker: "


class Mode(enum.Enum):
    OFFLINE = "offline"
    LOCAL = "local"  # online, but nobody's agent started us
    AGENT = "agent"


class Outcome(enum.Enum):
    """How the task ends in ClearML's own words."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"
    MOVED = "moved"  # it is no longer ours: it waits on another queue


@dataclass(frozen=True)
class Table:
    """Rows of cells, the headings first."""

    title: str
    series: str
    rows: Sequence[Sequence[str]]


def known_offline(wanted: bool, environment: Mapping[str, str]) -> bool:
    """Offline without having to ask the SDK for its configuration."""
    return wanted or environment.get("CLEARML_OFFLINE_MODE", "").lower() not in FALSE


class ClearMLTask:
    def __init__(self, *, offline: bool, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._offline = known_offline(offline, environment)
        self._sdk = SdkThread()
        self._task: Any = None
        self._ended = True  # nothing to end before it is open
        self._said_no_files = False
        self.mode = Mode.OFFLINE
        self.task_id = ""  # once it is open

    @property
    def offline(self) -> bool:
        return self.mode is Mode.OFFLINE

    @property
    def under_agent(self) -> bool:
        return self.mode is Mode.AGENT

    async def open(self, project: str, name: str) -> dict[str, str]:
        """Become the task; its hyperparameters by "Section/name". Raises ConfigError.

        Offline there are none to read, so nobody waits for the SDK to be imported.
        """
        self._sdk.start()
        self._ended = False
        if self._offline:
            opening = self._sdk.post(lambda: self._init(Mode.OFFLINE, project, name))
            opening.add_done_callback(_say_failure)
            return {}
        try:
            self.mode = await self._sdk.call(self._find_mode, START_DEADLINE)
            read = self._sdk.call(lambda: self._init(self.mode, project, name), START_DEADLINE)
            return await read
        except SdkTimeoutError:
            self._ended = True  # there is nobody to tell
            raise ConfigError(
                f"ClearML does not answer ({START_DEADLINE:.0f} s): check api_server in "
                "clearml.conf or CLEARML_API_HOST and the credentials, or start with --offline"
            ) from None
        except Exception as error:  # noqa: BLE001 whatever the SDK raises, it is about its set-up
            raise ConfigError(f"ClearML: {type(error).__name__}: {error}") from None

    async def attach(self) -> None:
        """Be able to ask the server, without a task of our own. Raises ConfigError."""
        self._sdk.start()
        if not self._offline:
            try:
                self.mode = await self._sdk.call(self._find_mode, START_DEADLINE)
            except SdkTimeoutError as error:
                raise ConfigError(f"ClearML: {error}") from None

    def _find_mode(self) -> Mode:
        if self._environment.get("CLEARML_TASK_ID"):
            return Mode.AGENT
        if any(self._environment.get(name) for name in KEY_VARIABLES):
            return Mode.LOCAL
        configuration = importlib.import_module("clearml.config").ConfigWrapper
        return Mode.LOCAL if configuration.get("api.credentials.access_key", None) else Mode.OFFLINE

    def _init(self, mode: Mode, project: str, name: str) -> dict[str, str]:
        from clearml import Task  # takes half a second: not before it is needed

        # Its reporter would be a fork of this process, that shares our sockets.
        Task._report_subprocess_enabled = False
        logging.getLogger("clearml.resource_monitor").setLevel(logging.ERROR)
        if mode is Mode.OFFLINE:
            Task.set_offline(True)
        self._task = Task.init(
            project_name=project,
            task_name=name,
            task_type=Task.TaskTypes.inference,
            reuse_last_task_id=False,
            continue_last_task=False,
            output_uri=False,
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=dict(MONITOR),
            auto_connect_streams={"stdout": True, "stderr": True, "logging": False},
        )
        self.task_id = str(self._task.id)
        parameters = {} if mode is Mode.OFFLINE else self._task.get_parameters()
        return {key: "" if text is None else str(text) for key, text in parameters.items()}

    async def call(self, function: Callable[[Any], T], deadline: float | None) -> T:
        """Run `function` of the task in the SDK's thread. Raises SdkTimeoutError."""
        return await self._sdk.call(lambda: function(self._task), deadline)

    async def ask(
        self, service: str, action: str, fields: Mapping[str, Any], deadline: float
    ) -> dict[str, Any]:
        """An action of the server's API, and the data that it answers. Raises ConfigError with
        what it says, or SdkTimeoutError."""

        def send() -> dict[str, Any]:
            from clearml import Task

            session = Task._get_default_session()
            answer = session.send_request(service, action, json=dict(fields), method="post")
            told = answer.json()
            if not answer.ok:
                said = told.get("meta", {}).get("result_msg") or answer.status_code
                raise ConfigError(f"ClearML: {service}.{action}: {said}")
            return told.get("data") or {}

        return await self._sdk.call(send, deadline)

    def write_parameters(self, values: Mapping[str, str]) -> None:
        """Once: what was merged, so that a clone of the task shows every field."""
        self._post(lambda task: task.update_parameters(dict(values)))

    def rename(self, name: str) -> None:
        self._post(lambda task: task.set_name(name) if task.name != name else None)

    async def blank(self, keys: Sequence[str]) -> None:
        """Remove what these hyperparameters hold, before anything else happens. Raises
        ConfigError where the server does not confirm it."""
        try:
            await self._sdk.call(
                lambda: self._task.update_parameters(dict.fromkeys(keys, "")), START_DEADLINE
            )
        except SdkTimeoutError as error:
            raise ConfigError(f"{keys[0]} cannot be removed from the task: {error}") from None

    def report(self, points: Sequence[Point]) -> None:
        def send(task: Any) -> None:
            log = task.get_logger()
            for point in points:
                log.report_scalar(point.title, point.series, point.value, point.iteration)

        self._post(send)

    def show(self, properties: Mapping[str, str], table: Table | None) -> None:
        """User properties (online) and a table, both in place of what was there."""

        def send(task: Any) -> None:
            if properties and self.mode is not Mode.OFFLINE:
                task.set_user_properties(**properties)
            if table is not None:
                log = task.get_logger()
                rows = [list(row) for row in table.rows]
                log.report_table(table.title, table.series, 0, table_plot=rows)

        self._post(send)

    def show_page(self, title: str, series: str, page: str) -> None:
        """An HTML page among the task's debug samples, in place of the one before."""

        def send(task: Any) -> None:
            log = task.get_logger()
            server = urlsplit(str(log.get_default_upload_destination() or ""))
            if self.mode is not Mode.OFFLINE and not _listens(server):
                if not self._said_no_files:
                    name = server.netloc.rpartition("@")[2]  # without what is secret in it
                    logger.info("no page of examples: the file server %s does not answer", name)
                self._said_no_files = True
                return
            stream = io.StringIO(page)
            log.report_media(title, series, 0, stream=stream, file_extension=".html", max_history=1)

        self._post(send)

    async def run_key(self) -> str:
        """A key for this task, kept where those who may read the task find it; a restart of the
        task keeps it. Raises ConfigError."""

        def settle() -> str:
            known = (self._task._get_runtime_properties() or {}).get(KEY_PROPERTY)
            key = str(known or chance.key(32))
            if not known:
                self._task._set_runtime_properties({KEY_PROPERTY: key})
            return key

        try:
            return await self._sdk.call(settle, START_DEADLINE)
        except SdkTimeoutError as error:
            raise ConfigError(f"the task's API key cannot be stored: {error}") from None

    def on_abort(self, stop: Callable[[], Awaitable[None]], grace: float) -> None:
        """Run `stop` on the loop when somebody aborts the task; the SDK kills us afterwards."""
        if self.mode is Mode.OFFLINE:
            return  # offline the SDK takes every look at the status for an abort
        loop = asyncio.get_running_loop()
        timeout = grace + ABORT_SLACK

        def aborted() -> None:
            async def run() -> None:
                await stop()

            with contextlib.suppress(FutureTimeout):
                asyncio.run_coroutine_threadsafe(run(), loop).result(timeout)

        self._post(lambda task: task.register_abort_callback(aborted, timeout))

    async def move(self, queue: str, changes: Mapping[str, Any]) -> None:
        """Put this very task on another queue, edited; from then on it is no longer ours.

        Raises ConfigError, SdkTimeoutError.
        """

        def send() -> None:
            self._task._edit(**changes)
            self._task.mark_stopped(force=True, status_message=f"{OURS}moving to another queue")

        await self._sdk.call(send, START_DEADLINE)
        await self.ask("tasks", "enqueue", {"task": self.task_id, "queue": queue}, START_DEADLINE)

    async def end(self, outcome: Outcome, reason: str) -> None:
        """Flush what was reported and say how it ended, within one budget of time. Once."""
        if self._ended:
            return
        self._ended = True
        try:
            await self._sdk.call(lambda: self._end(outcome, reason), END_BUDGET)
        except SdkTimeoutError:
            logger.warning("ClearML does not answer: its record of the end may be incomplete")
        except Exception as error:  # noqa: BLE001 the end goes on, whatever the SDK makes of it
            logger.warning("ClearML: %s: %s", type(error).__name__, error)

    def _end(self, outcome: Outcome, reason: str) -> None:
        task = self._task
        if task is None or outcome is Outcome.MOVED:
            return
        if self.mode is not Mode.OFFLINE:
            task.set_user_properties(stop_reason=reason)
        task.get_logger().flush(wait=True)
        if self.mode is Mode.OFFLINE:
            task.close()
        elif outcome is Outcome.FAILED:
            task.mark_failed(status_reason=reason, status_message=OURS + reason, force=True)
        elif self.mode is Mode.AGENT:
            pass  # the agent reads it from our exit status
        elif outcome is Outcome.COMPLETED:
            task.mark_completed(status_message=OURS + reason)
        else:
            task.mark_stopped(force=True, status_message=OURS + reason)

    def _post(self, function: Callable[[Any], object]) -> None:
        def call() -> None:
            if self._task is not None:
                function(self._task)

        self._sdk.post(call).add_done_callback(_say_failure)


def _listens(url: SplitResult) -> bool:
    """Whether anybody takes connections there: the SDK itself would try for minutes, and hold back
    the scalars meanwhile. Storage that is no server of ours to ask is taken for there."""
    if url.scheme not in ("http", "https"):
        return bool(url.scheme)
    port = url.port or (443 if url.scheme == "https" else 80)
    return network.answers(url.hostname or "", port, FILE_SERVER_DEADLINE)


def _say_failure(future: Any) -> None:
    error = future.exception()
    if error is not None:
        logger.warning("ClearML: %s: %s", type(error).__name__, error)
