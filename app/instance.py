"""One instance's life: start, run until a reason, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from app import __version__, console, preflight
from app.deployment import Deployment, announce, endpoint
from app.engine.client import Client
from app.errors import AppError, LoadError, LostError
from app.form.fields import ARGS, HF_TOKEN_KEY
from app.form.settings import Form, Settings, merge, parse
from app.gateway import status
from app.gateway.admission import Keys
from app.gateway.proxy import Proxy, Rules
from app.gateway.server import Server
from app.gateway.status import Details, Overview, Phase
from app.machine import gpu, host, private
from app.memory.ledger import Model, Tier
from app.memory.pool import Pool
from app.models.store import Store
from app.preflight import KEY_VARIABLE, Plan
from app.task.connection import Connection, Outcome
from app.task.reporter import Reporter
from app.task.weights import Weights
from app.telemetry.idle import expired
from app.telemetry.windows import Windows

logger = logging.getLogger(__name__)

AGENT_IDLE_LIMIT = 24.0  # hours, where the form says none
AGENT_INTERRUPTED = 254  # what clearml-agent takes for "stopped", not "failed"


@dataclass(frozen=True)
class Request:
    """What the command line asks for; `config` and `overrides` by "Section/name"."""

    config: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    cache_dir: str | None = None


@dataclass(frozen=True)
class Reason:
    """Why an instance ends, and what is told to whom."""

    text: str
    exit_status: int
    outcome: Outcome


class Instance:
    def __init__(self, request: Request, environment: Mapping[str, str]) -> None:
        self._request = request
        self._environment = environment
        self._connection = Connection(offline=request.offline, environment=environment)
        self._stop: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._drain_timeout = 20.0
        self._needs_key = False
        self._folder: private.PrivateFolder | None = None
        self._server: Server | None = None
        self._pool: Pool[Client] | None = None
        self._overview: Overview | None = None
        self._deployment: Deployment | None = None
        self._reporter: Reporter | None = None

    async def run(self) -> int:
        """The exit status."""
        self._catch_signals()
        life = asyncio.create_task(self._live())
        await asyncio.wait({life, self._stop}, return_when=asyncio.FIRST_COMPLETED)
        reason = await self._reason(life)
        await self._shut_down(reason)
        return reason.exit_status

    async def _live(self) -> Reason:
        settings = await self._settle()
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

    async def _settle(self) -> Settings:
        """Task and parameters → settings. What was merged is written to the task, once."""
        request = self._request
        known = merge(request.config, request.overrides).values
        name = known["Model/endpoint_name"] or known["Model/model"] or "llama.cpp"
        found = await self._connection.open(known["General/project"], name)
        form = await self._take_secret(merge(request.config, found, request.overrides), found)
        for warning in form.warnings:
            logger.warning("%s", warning)
        settings = parse(form)
        for number, override in form.overrides.items():
            for field_name, text in override.items():
                logger.info("model %d: %s is overridden with %s", number + 1, field_name, text)
        self._connection.write_parameters(form.to_write())
        self._drain_timeout = settings.general.drain_timeout
        self._connection.on_abort(self._aborted, self._drain_timeout)
        if settings.general.debug:
            logging.getLogger("app").setLevel(logging.DEBUG)
        return settings

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
        store = Store(self._request.cache_dir, self._environment, registry)
        offline = self._connection.offline
        plan = await preflight.plan(settings, store, self._environment, offline=offline)
        self._folder = private.create()
        return plan

    async def _listen(self, settings: Settings, plan: Plan) -> None:
        """The preflight's last step: bind the port. From here on our own pages answer."""
        keys = [key.strip() for key in self._environment.get(KEY_VARIABLE, "").split(",")]
        agent = self._connection.under_agent
        if agent and not any(keys):
            keys = [await self._connection.run_key()]
            logger.info("callers need the key in the task's runtime property _api_key")
        general = settings.general
        self._overview = self._describe(settings, plan)
        has_key = any(keys)
        address = preflight.listening_host(general.host, under_agent=agent, has_key=has_key)
        rules = Rules(Keys(keys), general.wait_timeout, general.allow_remote_media, general.debug)
        windows = Windows(plan.names, time.monotonic())
        pages = status.pages(self._overview)
        assert self._pool is not None
        self._server = Server(Proxy(self._pool, plan.names, rules, pages, windows.add))
        bound, port = await self._server.start(address, general.port)
        self._reporter = Reporter(windows, self._connection.report, time.monotonic)
        self._reporter.start()
        base = f"http://{_reachable(bound, self._environment)}:{port}"
        self._overview.endpoint = base
        for name, details in self._overview.models.items():
            details.endpoint = endpoint(base, name)
        shown = f"[{bound}]" if ":" in bound else bound
        console.plain(logger, f"listening on http://{shown}:{port}")
        self._needs_key = has_key

    def _describe(self, settings: Settings, plan: Plan) -> Overview:
        tier = Tier.GPU if plan.capabilities.devices else Tier.RAM
        models: list[Model[Client]] = [
            Model(m.name, limit=m.settings.max_concurrent_requests) for m in plan.models
        ]
        unlimited = 1 << 62  # one model: nothing has to make room
        self._pool = Pool(models, unlimited, time.monotonic, resident_tier=tier)
        hours = settings.idle.idle_time_limit
        if hours is None and self._connection.under_agent:
            hours = AGENT_IDLE_LIMIT
        return Overview(
            __version__,
            {m.name: Details(reference=m.label) for m in plan.models},
            idle_limit=hours * 3600 if hours else None,
            active_for=settings.idle.last_action_interval,
            devices=gpu.devices,
            view=self._pool.view,
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
            self._environment,
        )
        await self._deployment.bring_up()
        self._overview.phase = Phase.SERVING
        self._overview.serving_since = time.monotonic()
        announce(plan, self._overview, needs_key=self._needs_key)

    async def _serve(self) -> Reason:
        """Until nobody has asked for anything for too long, or nothing can be served."""
        overview, pool = self._overview, self._pool
        assert overview is not None and pool is not None
        while not pool.lost.done():
            idle = overview.idle(time.monotonic())
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
            if self._server is not None:
                await self._server.close()
            if self._reporter is not None:
                self._reporter.stop()
            await self._connection.end(reason.outcome, reason.text)
        finally:
            self._remove_folder()
            self._ended.set()

    async def _drain(self, pool: Pool[Client]) -> None:
        """Running requests may go on for a while, then every process is stopped."""
        pool.refuse_new()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(pool.drained(), self._drain_timeout)
        await pool.close()

    def _remove_folder(self) -> None:
        if self._folder is not None:
            self._folder.remove()

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
        return environment.get("CLEARML_AGENT_HOST_IP") or host.own_address()
    return f"[{bound}]" if ":" in bound else bound
