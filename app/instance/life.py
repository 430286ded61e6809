"""One instance's life: start, run until a reason, drain, stop.

Each phase returns a frozen value, and pushes what has to be stopped of it onto one stack
(`instance.ending`): whatever fails or hangs, the end has all its parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from app import console
from app.engine.http import Client
from app.errors import AppError, LoadError, LostError
from app.form.settings import Settings
from app.gateway.admission import (
    ALLOW_VARIABLE,
    KEY_VARIABLE,
    Keys,
    allowed_networks,
    listening_host,
)
from app.gateway.proxy import Rules
from app.instance import opening
from app.instance.announce import announce, endpoint
from app.instance.bring_up import LlamaServers
from app.instance.ending import Ending, simply
from app.instance.front import BookHandler, Callers, Front
from app.instance.invocation import Invocation
from app.instance.reports import Reports
from app.instance.rows import kv_folder, overview_of, pool_of
from app.machine import clock, network, private
from app.memory.pool import Pool
from app.models.store import Store
from app.page import examples
from app.planning import report
from app.planning.plan import Plan, Surroundings, check_memory, plan
from app.planning.settle import check_form
from app.task import requeue, route
from app.task.clearml_task import END_BUDGET, ClearMLTask
from app.task.outcome import Outcome
from app.task.route import Route
from app.task.weights import Weights
from app.telemetry.idle import expired
from app.telemetry.logs import LogBook
from app.telemetry.overview import Overview, Phase

logger = logging.getLogger(__name__)

AGENT_INTERRUPTED = 254  # what clearml-agent takes for "stopped", not "failed"
CHILDREN = 12.0  # seconds for llama-servers to end, the last of them by SIGKILL
GIVE_UP = 5.0  # seconds for a phase under way to heed that all ends


@dataclass(frozen=True)
class Reason:
    """Why an instance ends, and what is told to whom."""

    text: str
    exit_status: int
    outcome: Outcome


@dataclass(frozen=True)
class Planned:
    """Nothing was found wrong; nothing has moved yet. `folder` is our private one."""

    settings: Settings
    plan: Plan
    folder: private.PrivateFolder


@dataclass(frozen=True)
class Listening:
    """The port is bound, our own pages answer, requests for models wait."""

    overview: Overview
    pool: Pool[Client]
    servers: LlamaServers
    front: Front
    reports: Reports
    callers: Callers


class Instance:
    def __init__(
        self,
        invocation: Invocation,
        environment: Mapping[str, str],
        task: ClearMLTask | None = None,
    ) -> None:
        """`task` is the one to become, by default as the invocation and the environment say."""
        self._invocation = invocation
        self._environment = environment
        self._task = task or ClearMLTask(offline=invocation.offline, environment=environment)
        self._route = Route(self._task)
        self._logs = LogBook()
        self._stop: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._ending = Ending()
        self._ended = asyncio.Event()

    async def run(self) -> int:
        """The exit status."""
        self._catch_signals()
        logging.getLogger("app").addHandler(BookHandler(self._logs))
        life = asyncio.create_task(self._live())
        await asyncio.wait({life, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        reason = await self._reason(life)
        await self._shut_down(reason)
        return reason.exit_status

    async def _live(self) -> Reason:
        opened = await opening.open_task(self._task, self._invocation, self._environment)
        if opened.elsewhere:
            return await self._move(opened.settings)
        opening.write_back(self._task, opened)
        self._task.on_abort(self._aborted, opened.settings.general.drain_timeout)
        planned = await self._plan(opened.settings)
        listening = await self._listen(planned)
        await self._bring_up(listening)
        return await self._serve(listening)

    async def _reason(self, life: asyncio.Task[Reason]) -> Reason:
        if self._stop.done():
            life.cancel()
            await asyncio.wait({life}, timeout=GIVE_UP)
            return self._stop.result()
        try:
            return life.result()
        except AppError as error:
            if not isinstance(error, LoadError):  # the pool has said that
                logger.error("%s", error)
            return Reason(str(error), error.exit_status, Outcome.FAILED)
        except Exception as error:  # noqa: BLE001 a fault of ours must still leave nothing behind
            logger.exception("a fault in the app")
            text = f"a fault in the app: {type(error).__name__}: {error}"
            return Reason(text, LostError.exit_status, Outcome.FAILED)

    # The phases.

    async def _move(self, settings: Settings) -> Reason:
        """This machine has no GPU: the task goes on elsewhere, as it is."""
        check_form(settings)
        await requeue.move(self._task, settings.general, self._environment["CLEARML_TASK_ID"])
        return Reason(f"moved to the queue {settings.general.queue}", 0, Outcome.MOVED)

    async def _plan(self, settings: Settings) -> Planned:
        store = Store(self._invocation.cache_dir, self._environment, Weights(self._task))
        folder = self._private_folder(None)
        around = Surroundings(store, self._environment, folder.path, self._task.offline)
        found = await plan(settings, around)
        for line in report.table(found):
            console.plain(logger, line)
        check_memory(found)
        return Planned(settings, found, folder)

    async def _listen(self, planned: Planned) -> Listening:
        """The preflight's last step: bind the port. From here on our own pages answer."""
        general = planned.settings.general
        routed = await self._route.available()
        callers = await self._callers(planned.settings, routed=routed)
        address = listening_host(
            general.host, under_agent=self._task.under_agent, has_key=bool(callers.rules.keys)
        )
        listening = self._assemble(planned, callers)
        bound, port = await listening.front.listen(address, general.port)
        self._start(planned, listening)
        self._locate(listening, f"http://{_reachable(bound, self._environment)}:{port}")
        shown = f"[{bound}]" if ":" in bound else bound
        console.plain(logger, f"listening on http://{shown}:{port}")
        if routed:
            await self._ask_for_route(listening, port, general.gateway_route)
        elif general.gateway_route:
            logger.warning("%s is ignored: there is no App Gateway to route", route.FIELD)
        return listening

    async def _callers(self, settings: Settings, *, routed: bool) -> Callers:
        """What callers must send; with a route the gateway looks after that."""
        networks = allowed_networks(self._environment.get(ALLOW_VARIABLE, ""))
        keys = [key.strip() for key in self._environment.get(KEY_VARIABLE, "").split(",")]
        if self._task.under_agent and not any(keys) and not routed:
            keys = [await self._task.run_key()]
            logger.info("callers need the key in the task's runtime property _api_key")
        general = settings.general
        rules = Rules(
            Keys(keys),
            wait_timeout=general.wait_timeout,
            allow_remote_media=general.allow_remote_media,
            debug=general.debug,
            routed=routed,
        )
        placeholder = examples.KEY if any(keys) else examples.TOKEN if routed else ""
        return Callers(rules, placeholder, networks)

    def _assemble(self, planned: Planned, callers: Callers) -> Listening:
        pool = pool_of(planned.settings, planned.plan)
        overview = overview_of(planned.settings, planned.plan, pool, self._task.under_agent)
        servers = LlamaServers(
            planned.plan,
            planned.settings.general,
            pool,
            overview,
            planned.folder.path,
            kv_folder(planned.plan, planned.folder.path, self._private_folder),
            self._environment,
            lambda name, level, text: self._logs.add(clock.wall(), level, name, text),
        )
        reports = Reports(self._task, overview, callers.placeholder)
        front = Front(overview, pool, callers, self._logs, (reports.seen, servers.seen))
        return Listening(overview, pool, servers, front, reports, callers)

    def _start(self, planned: Planned, listening: Listening) -> None:
        """What is pushed last ends first: requests, models, connections, then who tells of them."""
        drain = planned.settings.general.drain_timeout
        servers, pool = listening.servers, listening.pool
        listening.reports.start(self._ending)
        self._ending.push("the route", simply(self._route.stop))
        listening.front.start(self._ending)
        # Whoever did not end when asked to; at a second signal, everybody.
        self._ending.push("llama-servers", simply(servers.kill), at_once=servers.kill)
        self._ending.push("models", lambda _: pool.close(), CHILDREN)
        self._ending.push("requests", lambda seconds: _drain(listening, seconds), drain)

    async def _ask_for_route(self, listening: Listening, port: int, static: str) -> None:
        if not listening.callers.networks:
            logger.warning("%s is not set: others than the gateway may connect", ALLOW_VARIABLE)
        await self._route.request(port, static)

        def routed(url: str) -> None:
            listening.front.below(url)
            self._locate(listening, url)

        self._route.follow(routed)

    def _locate(self, listening: Listening, base: str) -> None:
        """Where callers reach us."""
        listening.overview.endpoint = base
        for name, details in listening.overview.models.items():
            details.endpoint = endpoint(base, name)
        listening.reports.refresh()

    async def _bring_up(self, listening: Listening) -> None:
        overview = listening.overview
        listening.reports.start_endpoints()
        await listening.servers.bring_up()
        overview.phase, overview.serving_since = Phase.SERVING, clock.now()
        announce(overview, listening.callers.placeholder)
        listening.reports.refresh()

    async def _serve(self, listening: Listening) -> Reason:
        """Until nobody has asked for anything for too long, or nothing can be served."""
        overview, lost = listening.overview, listening.pool.lost
        while not lost.done():
            idle, limit = overview.idle(clock.now()), overview.idle_limit
            if expired(idle, limit):
                text = f"idle for {(limit or 0.0) / 3600:.2g} hours, the limit"
                return Reason(text, 0, Outcome.COMPLETED)
            await asyncio.wait({lost}, timeout=limit - idle if limit else None)
        raise LostError(lost.result())

    def _private_folder(self, parent: Path | None) -> private.PrivateFolder:
        """One that no end leaves behind."""
        folder = private.create(parent)
        self._ending.push(f"the folder {folder.path}", simply(folder.remove), at_once=folder.remove)
        return folder

    # The end.

    async def _shut_down(self, reason: Reason) -> None:
        if reason.outcome is not Outcome.FAILED:  # that has been said
            console.plain(logger, f"stopping: {console.escape(reason.text)}")
        await self._ending.run()
        end = partial(self._task.end, reason.outcome, reason.text)
        self._ending.push("the task in ClearML", lambda _: end(), END_BUDGET)
        await self._ending.run()
        self._ended.set()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup leaves it
                loop.add_signal_handler(signum, self._signalled, signum)

    def _signalled(self, signum: signal.Signals) -> None:
        if self._stop.done():
            self._end_at_once(signum)
        name = signal.Signals(signum).name
        self._ask_to_stop(f"stopped by {name}", 128 + signum)

    def _end_at_once(self, signum: signal.Signals) -> None:
        """A second signal: nothing is waited for, and nothing is left behind all the same."""
        self._ending.at_once()
        console.flush()
        os._exit(AGENT_INTERRUPTED if self._task.under_agent else 128 + signum)

    async def _aborted(self) -> None:
        self._ask_to_stop("aborted in ClearML", 143)
        await self._ended.wait()

    def _ask_to_stop(self, text: str, exit_status: int) -> None:
        if self._task.under_agent:
            exit_status = AGENT_INTERRUPTED
        if not self._stop.done():
            self._stop.set_result(Reason(text, exit_status, Outcome.STOPPED))


async def _drain(listening: Listening, seconds: float) -> None:
    """Running requests may go on for a while; nobody else is served."""
    listening.overview.phase = Phase.STOPPING
    listening.pool.refuse_new()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(listening.pool.drained(), seconds)


def _reachable(bound: str, environment: Mapping[str, str]) -> str:
    """An address to call, for one that stands for all of this machine's."""
    if bound in ("0.0.0.0", "::"):
        return environment.get("CLEARML_AGENT_HOST_IP") or network.own_address()
    return f"[{bound}]" if ":" in bound else bound
