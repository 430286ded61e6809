"""One instance's life: start, run until a reason, drain, stop."""

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
from urllib.parse import urlsplit

from app import __version__, console
from app.engine.http import Client
from app.errors import AppError, LoadError, LostError
from app.form.fields import ARGS, HF_TOKEN_KEY
from app.form.merge import Form, merge, parse
from app.form.settings import Settings
from app.gateway.admission import (
    ALLOW_VARIABLE,
    KEY_VARIABLE,
    Keys,
    allowed_networks,
    listening_host,
)
from app.gateway.http.server import Server
from app.gateway.pages import admin, status
from app.gateway.proxy import Proxy, Rules
from app.instance.bring_up import Deployment, announce, devices, endpoint, targets
from app.instance.front import BookHandler, Watching
from app.instance.invocation import PROJECT, Invocation
from app.machine import clock, gpu, host, network, private
from app.memory.ledger import Free, Model, Tier
from app.memory.pool import BOUND, Pool
from app.models.store import Store
from app.page import examples
from app.planning import report
from app.planning.plan import Plan, Surroundings, check_memory, plan
from app.planning.settle import check_form
from app.task import requeue, route
from app.task.clearml_task import ClearMLTask, Outcome
from app.task.endpoints import Endpoints
from app.task.launch import task_name
from app.task.presence import Presence, model_endpoints
from app.task.reporter import Reporter
from app.task.route import Route
from app.task.weights import Weights
from app.telemetry.idle import expired
from app.telemetry.logs import LogBook
from app.telemetry.overview import Details, Overview, Phase
from app.telemetry.samples import Sample
from app.telemetry.scalars import gauges
from app.telemetry.windows import Windows

logger = logging.getLogger(__name__)

KV_ROOM = 8 << 30  # bytes free in a memory file system, for KV caches of models that are away
AGENT_IDLE_LIMIT = 24.0  # hours, where the form says none
AGENT_INTERRUPTED = 254  # what clearml-agent takes for "stopped", not "failed"


@dataclass(frozen=True)
class Reason:
    """Why an instance ends, and what is told to whom."""

    text: str
    exit_status: int
    outcome: Outcome


class Instance:
    def __init__(self, invocation: Invocation, environment: Mapping[str, str]) -> None:
        self._invocation = invocation
        self._environment = environment
        self._connection = ClearMLTask(offline=invocation.offline, environment=environment)
        self._stop: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._drain_timeout = 20.0
        self._placeholder = ""  # for the key that callers send
        self._logs = LogBook()
        self._book = BookHandler(self._logs)
        self._watching: Watching | None = None
        self._folder: private.PrivateFolder | None = None
        self._kv: private.PrivateFolder | None = None
        self._server: Server | None = None
        self._pool: Pool[Client] | None = None
        self._overview: Overview | None = None
        self._deployment: Deployment | None = None
        self._reporter: Reporter | None = None
        self._display: Presence | None = None
        self._route = Route(self._connection)
        self._endpoints: Endpoints | None = None

    async def run(self) -> int:
        """The exit status."""
        self._catch_signals()
        logging.getLogger("app").addHandler(self._book)
        life = asyncio.create_task(self._live())
        await asyncio.wait({life, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        reason = await self._reason(life)
        await self._shut_down(reason)
        return reason.exit_status

    async def _live(self) -> Reason:
        settings, form = await self._settle()
        queue = settings.general.queue
        if requeue.wanted(self._environment, queue):
            return await self._move(settings)
        self._settled(settings, form)
        plan = await self._plan(settings)
        await self._listen(settings, plan)
        await self._bring_up(settings, plan)
        return await self._serve()

    async def _reason(self, life: asyncio.Task[Reason]) -> Reason:
        if self._stop.done():
            life.cancel()
            await asyncio.wait({life})
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

    # From the form to serving.

    async def _settle(self) -> tuple[Settings, Form]:
        """Task and parameters → settings."""
        invocation = self._invocation
        known = merge(invocation.config, invocation.overrides).values
        names = ("General/instance_name", "Model/endpoint_name", "Model/model")
        name = task_name(next((known[key] for key in names if known[key]), ""))
        found = await self._connection.open(known["General/project"] or PROJECT, name)
        form = merge(invocation.config, found, invocation.overrides)
        if requeue.wanted(self._environment, form.values["General/queue"]):
            form = form.without(HF_TOKEN_KEY)  # it stays on the task, for whoever will need it
        else:
            form = await self._take_secret(form, found)
        for warning in form.warnings:
            logger.warning("%s", warning)
        settings = parse(form)
        if settings.general.debug:
            logging.getLogger("app").setLevel(logging.DEBUG)
        return settings, form

    def _settled(self, settings: Settings, form: Form) -> None:
        """What was merged is written to the task, once."""
        for number, override in form.overrides.items():
            for field_name, text in override.items():
                logger.info("model %d: %s is overridden with %s", number + 1, field_name, text)
        self._connection.write_parameters(form.to_write())
        if settings.general.instance_name:
            self._connection.rename(settings.general.instance_name)
        self._drain_timeout = settings.general.drain_timeout
        self._connection.on_abort(self._aborted, self._drain_timeout)

    async def _move(self, settings: Settings) -> Reason:
        """This machine has no GPU: the task goes on elsewhere, as it is."""
        check_form(settings)
        await requeue.move(self._connection, settings.general, self._environment["CLEARML_TASK_ID"])
        return Reason(f"moved to the queue {settings.general.queue}", 0, Outcome.MOVED)

    async def _take_secret(self, form: Form, found: Mapping[str, str]) -> Form:
        """The Hugging Face token goes into our memory, and out of the task and the form."""
        held = [key for key in (HF_TOKEN_KEY, f"{ARGS}/hf_token") if found.get(key)]
        if held:
            await self._connection.blank(held)
            logger.info("%s was taken, and removed from the task", held[0])
        token = form.values[HF_TOKEN_KEY].strip()
        if token and not self._environment.get("HF_TOKEN"):
            os.environ["HF_TOKEN"] = token  # where huggingface_hub looks; no child gets it
        return form.without(HF_TOKEN_KEY)

    async def _plan(self, settings: Settings) -> Plan:
        registry = Weights(self._connection)
        store = Store(self._invocation.cache_dir, self._environment, registry)
        self._folder = private.create()
        offline = self._connection.offline
        around = Surroundings(store, self._environment, self._folder.path, offline)
        found = await plan(settings, around)
        for line in report.table(found):
            console.plain(logger, line)
        check_memory(found)
        return found

    async def _listen(self, settings: Settings, plan: Plan) -> None:
        """The preflight's last step: bind the port. From here on our own pages answer."""
        general = settings.general
        networks = allowed_networks(self._environment.get(ALLOW_VARIABLE, ""))
        routed = await self._route.available()
        keys = await self._keys(routed=routed)
        self._overview = self._describe(settings, plan)
        address = listening_host(
            general.host, under_agent=self._connection.under_agent, has_key=any(keys)
        )
        rules = Rules(
            Keys(keys),
            wait_timeout=general.wait_timeout,
            allow_remote_media=general.allow_remote_media,
            debug=general.debug,
            routed=routed,
        )
        windows = Windows(plan.names, clock.now())
        self._placeholder = examples.KEY if any(keys) else examples.TOKEN if routed else ""
        self._watching = Watching(self._overview, rules.keys, self._placeholder, self._logs)
        self._server = Server(self._front(plan, rules, windows, self._watching), allowed=networks)
        bound, port = await self._server.start(address, general.port)
        self._watching.start()
        self._report(settings, windows)
        self._located(f"http://{_reachable(bound, self._environment)}:{port}")
        shown = f"[{bound}]" if ":" in bound else bound
        console.plain(logger, f"listening on http://{shown}:{port}")
        if routed:
            if not networks:
                logger.warning("%s is not set: others than the gateway may connect", ALLOW_VARIABLE)
            await self._route.request(port, general.gateway_route)
            self._route.follow(lambda url: self._routed(url, rules))
        elif general.gateway_route:
            logger.warning("%s is ignored: there is no App Gateway to route", route.FIELD)

    async def _keys(self, *, routed: bool) -> list[str]:
        """What callers must send; with a route the gateway looks after that."""
        keys = [key.strip() for key in self._environment.get(KEY_VARIABLE, "").split(",")]
        if self._connection.under_agent and not any(keys) and not routed:
            keys = [await self._connection.run_key()]
            logger.info("callers need the key in the task's runtime property _api_key")
        return keys

    def _report(self, settings: Settings, windows: Windows) -> None:
        """Everything that tells ClearML of us."""
        overview = self._overview
        assert overview is not None
        reporter = self._reporter = Reporter(
            windows,
            self._connection.report,
            clock.now,
            lambda now: gauges(overview, now),
        )
        reporter.start()
        self._display = Presence(
            self._connection,
            overview,
            lambda: targets(overview, self._placeholder),
            settings.idle.last_action_interval,
        )
        self._display.start()
        meter = host.Meter()
        self._endpoints = Endpoints(
            self._connection,
            lambda: model_endpoints(overview, reporter.last, clock.now()),
            lambda: {**host.machine_stats(meter.load()), **gpu.machine_stats(gpu.load())},
        )

    def _located(self, base: str) -> None:
        """Where callers find us."""
        assert self._overview is not None and self._display is not None
        self._overview.endpoint = base
        for name, details in self._overview.models.items():
            details.endpoint = endpoint(base, name)
        self._display.update()
        if self._endpoints is not None:
            self._endpoints.refresh()

    def _routed(self, url: str, rules: Rules) -> None:
        """The gateway has given an address; what it leaves of its path is not ours."""
        path = urlsplit(url).path
        if path.strip("/") and path not in rules.prefixes:
            rules.prefixes.append(path)
        self._located(url)

    def _front(self, plan: Plan, rules: Rules, windows: Windows, watching: Watching) -> Proxy:
        assert self._pool is not None and self._overview is not None
        own = status.pages(self._overview) | admin.pages(self._pool, rules.keys)

        def record(sample: Sample) -> None:
            windows.add(sample)
            watching.add(sample)
            if self._deployment is not None:
                self._deployment.seen(sample)

        return Proxy(self._pool, plan.names, rules, {**own, **watching.pages}, record)

    def _describe(self, settings: Settings, plan: Plan) -> Overview:
        tier = Tier.GPU if plan.capabilities.devices else Tier.RAM
        models: list[Model[Client]] = [
            Model(
                m.name,
                m.settings.max_concurrent_requests,
                m.settings.priority,
                m.settings.pin,
            )
            for m in plan.models
        ]
        bound = min(BOUND, settings.general.wait_timeout / 2)
        self._pool = Pool(
            models,
            plan.budget,
            clock.now,
            resident_tier=tier,
            bound=bound,
            free=Free(gpu.free, lambda: host.memory_free() - plan.reserve),
        )
        hours = settings.idle.idle_time_limit
        if hours is None and self._connection.under_agent:
            hours = AGENT_IDLE_LIMIT
        return Overview(
            __version__,
            {m.name: Details(m.label, embedding=m.settings.embedding) for m in plan.models},
            idle_limit=hours * 3600 if hours else None,
            active_for=settings.idle.last_action_interval,
            devices=partial(devices, plan, self._pool.view),
            view=self._pool.view,
            host=host.memory_used,
        )

    async def _bring_up(self, settings: Settings, plan: Plan) -> None:
        assert self._pool is not None and self._overview is not None
        assert self._folder is not None
        self._deployment = Deployment(
            plan,
            settings.general,
            self._pool,
            self._overview,
            self._folder.path,
            self._kv_folder(plan),
            self._environment,
            lambda name, level, text: self._logs.add(clock.wall(), level, name, text),
        )
        if self._endpoints is not None:
            self._endpoints.start()
        await self._deployment.bring_up()
        self._overview.phase = Phase.SERVING
        self._overview.serving_since = clock.now()
        announce(plan, self._overview, self._placeholder)
        if self._endpoints is not None:
            self._endpoints.refresh()
        if self._display is not None:
            self._display.update()

    def _kv_folder(self, plan: Plan) -> Path:
        """Where the KV caches of models that are away lie: in memory if there is a file system
        for it with room to spare, else on the disk, in a folder that is removed with us."""
        assert self._folder is not None
        if not plan.sharing or host.in_memory(self._folder.path, KV_ROOM):
            return self._folder.path / "kv"
        parent = plan.store.cache / "kv"
        parent.mkdir(parents=True, exist_ok=True)
        self._kv = private.create(parent)
        return self._kv.path

    async def _serve(self) -> Reason:
        """Until nobody has asked for anything for too long, or nothing can be served."""
        overview, pool = self._overview, self._pool
        assert overview is not None and pool is not None
        while not pool.lost.done():
            idle = overview.idle(clock.now())
            if expired(idle, overview.idle_limit):
                hours = (overview.idle_limit or 0.0) / 3600
                text = f"idle for {hours:.2g} hours, the limit"
                return Reason(text, 0, Outcome.COMPLETED)
            left = overview.idle_limit - idle if overview.idle_limit else None
            await asyncio.wait({pool.lost}, timeout=left)
        raise LostError(pool.lost.result())

    # The end.

    async def _shut_down(self, reason: Reason) -> None:
        if reason.outcome is not Outcome.FAILED:  # that has been said
            console.plain(logger, f"stopping: {console.escape(reason.text)}")
        if self._overview is not None:
            self._overview.phase = Phase.STOPPING
        try:
            if self._pool is not None:
                await self._drain(self._pool)
            if self._deployment is not None:
                self._deployment.stop_parking()
            if self._watching is not None:
                self._watching.stop()
            if self._server is not None:
                await self._server.close()
            await self._last_reports()
            await self._connection.end(reason.outcome, reason.text)
        finally:
            self._remove_folder()
            self._ended.set()

    async def _last_reports(self) -> None:
        self._route.stop()
        if self._endpoints is not None:
            await self._endpoints.stop()
        if self._reporter is not None:
            self._reporter.stop()
        if self._display is not None:
            self._display.stop()

    async def _drain(self, pool: Pool[Client]) -> None:
        """Running requests may go on for a while, then every process is stopped."""
        pool.refuse_new()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(pool.drained(), self._drain_timeout)
        await pool.close()

    def _remove_folder(self) -> None:
        for folder in (self._folder, self._kv):
            if folder is not None:
                folder.remove()

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
        if self._deployment is not None:
            self._deployment.kill()
        self._remove_folder()
        console.flush()
        os._exit(AGENT_INTERRUPTED if self._connection.under_agent else 128 + signum)

    async def _aborted(self) -> None:
        self._ask_to_stop("aborted in ClearML", 143)
        await self._ended.wait()

    def _ask_to_stop(self, text: str, exit_status: int) -> None:
        if self._connection.under_agent:
            exit_status = AGENT_INTERRUPTED
        if not self._stop.done():
            self._stop.set_result(Reason(text, exit_status, Outcome.STOPPED))


def _reachable(bound: str, environment: Mapping[str, str]) -> str:
    """An address to call, for one that stands for all of this machine's."""
    if bound in ("0.0.0.0", "::"):
        return environment.get("CLEARML_AGENT_HOST_IP") or network.own_address()
    return f"[{bound}]" if ":" in bound else bound
