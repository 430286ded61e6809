"""The phases of an instance: listen, plan, open, bring up, serve.

A phase is given what the phases before it returned, frozen values. What a phase begins, it pushes
onto the stack of the end, with how it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from app import console
from app.engine.http import Client
from app.errors import LostError
from app.form.settings import Settings
from app.gateway.admission import (
    ALLOW_VARIABLE,
    listening_host,
)
from app.gateway.keys_file import OTHER
from app.instance import joining
from app.instance.announce import announce, endpoint, tell_token
from app.instance.bring_up import LlamaServers
from app.instance.callers import Callers, callers_of
from app.instance.doorway import Doorway
from app.instance.ending import Ending, Reason, simply
from app.instance.front import Front
from app.instance.invocation import Invocation
from app.instance.reports import Reports
from app.instance.rows import kv_folder, overview_of, pool_of
from app.machine import clock, garbage, network, private
from app.memory.pool import Pool
from app.models.reference import Tiny
from app.models.store import Store
from app.planning import report
from app.planning.amounts import lasting
from app.planning.plan import Plan, Surroundings, check_memory, plan
from app.task.clearml_task import ClearMLTask
from app.task.inputs import inputs
from app.task.outcome import Outcome
from app.task.route import Route
from app.task.weights import Weights
from app.telemetry.callers import ByCaller
from app.telemetry.idle import expired
from app.telemetry.logs import LogBook
from app.telemetry.overview import Overview, Phase

logger = logging.getLogger(__name__)

LOOK = 2.0  # seconds between two looks whether a door still needs the instance
CHILDREN = 12.0  # seconds for llama-servers to end, the last of them by SIGKILL


@dataclass(frozen=True)
class Given:
    """What every phase works with."""

    invocation: Invocation
    environment: Mapping[str, str]
    task: ClearMLTask
    route: Route
    logs: LogBook
    ending: Ending
    keys_due: asyncio.Event = field(default_factory=asyncio.Event)  # the keys file is to be read


@dataclass(frozen=True)
class Listening:
    """The port is bound at `address`; what is served is not known yet, so requests wait."""

    callers: Callers
    doorway: Doorway
    address: str
    port: int
    routed: bool


@dataclass(frozen=True)
class Planned:
    """Nothing was found wrong; nothing has moved yet. `folder` is our private one."""

    settings: Settings
    plan: Plan
    folder: private.PrivateFolder


@dataclass(frozen=True)
class Open:
    """All requests are taken; those for models wait for them."""

    overview: Overview
    pool: Pool[Client]
    servers: LlamaServers
    front: Front
    reports: Reports
    callers: Callers


async def listen(given: Given, settings: Settings) -> Listening:
    """Bind the port: it takes no longer for large models. Raises ConfigError."""
    general = settings.general
    routed = await given.route.available()
    callers = await callers_of(given.task, general, given.environment, routed=routed)
    host = await listening_host(
        general.host, under_agent=given.task.under_agent, has_key=bool(callers.rules.keys)
    )
    doorway = Doorway(callers)
    bound, port = await doorway.listen(host, general.port, given.ending)
    listening = Listening(callers, doorway, bound, port, routed)
    console.plain(logger, f"listening on {_shown(listening)}")
    return listening


async def prepare(given: Given, settings: Settings) -> Planned:
    """Find out whether it can be served at all, before any byte moves. Raises AppError."""
    weights = Weights(given.task)
    given.ending.push("downloads", simply(weights.discard), at_once=weights.discard)
    store = Store(
        given.invocation.cache_dir,
        given.environment,
        weights,
        private_urls=settings.general.allow_private_urls,
    )
    folder = _private_folder(given, None)
    trial = given.task.offline or given.task.under_agent  # a person who is online names a model
    found = await plan(settings, Surroundings(store, given.environment, folder.path, trial))
    if given.task.under_agent and isinstance(found.models[0].reference, Tiny):
        logger.warning("Model/model is empty: a tiny model is served, as a trial")
    for line in report.table(found):
        console.plain(logger, line)
    check_memory(found)
    given.task.show_inputs(inputs(found.models))
    return Planned(settings, found, folder)


async def open_door(given: Given, planned: Planned, listening: Listening) -> Open:
    """What was planned answers the requests."""
    general, callers, port = planned.settings.general, listening.callers, listening.port
    address = await _address(given, listening)
    member = await joining.join(given.task, general, given.environment, address, callers)
    listening = replace(listening, callers=replace(callers, membership=member))
    opened = _assemble(given, planned, listening)
    _start(given, planned, opened)
    _locate(opened, address)
    if callers.token:
        file = planned.folder.keep(f"token-{port}", callers.token)
        tell_token(callers.token, file, _shown(listening), under_agent=given.task.under_agent)
    if listening.routed:
        await _ask_for_route(given, opened, port, general.gateway_route)
    return opened


def _shown(listening: Listening) -> str:
    host = f"[{listening.address}]" if ":" in listening.address else listening.address
    return f"http://{host}:{listening.port}"


async def _address(given: Given, listening: Listening) -> str:
    """Where other machines reach the port, as the agent of a container has published it."""
    port = await given.route.published(listening.port)
    return f"http://{reachable(listening.address, given.environment)}:{port}"


def _assemble(given: Given, planned: Planned, listening: Listening) -> Open:
    callers = listening.callers
    pool = pool_of(planned.settings, planned.plan)
    overview = overview_of(planned.settings, planned.plan, pool, given.task.under_agent)
    if callers.keys_file is not None:
        overview.by_caller = ByCaller(OTHER)
    folders = [planned.folder]

    def create(parent: Path) -> private.PrivateFolder:
        folders.append(_private_folder(given, parent))
        return folders[-1]

    kv = kv_folder(planned.plan, planned.folder.path, create)
    servers = LlamaServers(
        planned.plan,
        planned.settings.general,
        pool,
        overview,
        folders,
        kv,
        given.environment,
        lambda name, level, text: given.logs.add(clock.wall(), level, name, text),
    )
    reports = Reports(
        given.task, overview, callers.placeholder, usage=planned.settings.general.report_usage
    )
    front = Front(
        overview,
        pool,
        callers,
        listening.doorway,
        given.logs,
        (reports.seen, servers.seen),
    )
    return Open(overview, pool, servers, front, reports, callers)


def _start(given: Given, planned: Planned, opened: Open) -> None:
    """What is pushed last ends first: requests, models, connections, then who tells of them."""
    drain = planned.settings.general.drain_timeout
    servers, pool = opened.servers, opened.pool
    opened.reports.start(given.ending)
    given.ending.push("the route", simply(given.route.stop))
    _watch_keys(given, opened)
    opened.front.start(given.ending)
    # Whoever did not end when asked to; at a second signal, everybody.
    given.ending.push("llama-servers", simply(servers.kill), at_once=servers.kill)
    given.ending.push("models", lambda _: pool.close(), CHILDREN)
    given.ending.push("requests", lambda seconds: _drain(opened, seconds), drain)


def _watch_keys(given: Given, opened: Open) -> None:
    keys_file, by_caller = opened.callers.keys_file, opened.overview.by_caller
    if keys_file is not None and by_caller is not None:
        keys_file.start(given.keys_due, opened.overview.names, by_caller.keep)
        given.ending.push("the keys file", simply(keys_file.stop))


async def _ask_for_route(given: Given, opened: Open, port: int, static: str) -> None:
    if not opened.callers.networks:
        logger.warning("%s is not set: others than the gateway may connect", ALLOW_VARIABLE)
    await given.route.request(port, static)

    def routed(url: str) -> None:
        opened.front.below(url)
        _locate(opened, url)

    given.route.follow(routed)


def _locate(opened: Open, base: str) -> None:
    """Where callers reach us."""
    opened.overview.endpoint = base
    for name, details in opened.overview.models.items():
        details.endpoint = endpoint(base, name)
    opened.reports.refresh()


async def bring_up(opened: Open) -> None:
    """Fetch and load the models. Raises AppError where none of them can be served."""
    overview = opened.overview
    opened.reports.start_endpoints()
    await opened.servers.bring_up()
    overview.phase, overview.serving_since = Phase.SERVING, clock.now()
    announce(overview, opened.callers.placeholder)
    opened.reports.refresh()
    garbage.settle()


async def serve(opened: Open) -> Reason:
    """Until nobody has asked for anything for too long, or nothing can be served."""
    overview, lost, keeps = opened.overview, opened.pool.lost, opened.overview.keeps
    while not lost.done():
        now = clock.now()
        idle, limit = overview.idle(now), overview.idle_limit
        if idle and keeps.released(now):
            return Reason("its route needs it no more", 0, Outcome.COMPLETED)
        if expired(idle, limit) and not keeps.held(now):
            text = f"idle for {lasting(limit or 0.0)}, the limit"
            return Reason(text, 0, Outcome.COMPLETED)
        wait = max(limit - idle, 0.0) if limit else None
        if opened.callers.rules.joined:
            wait = LOOK if wait is None or keeps.held(now) else min(wait, LOOK)
        await asyncio.wait({lost}, timeout=wait)
    raise LostError(lost.result())


def _private_folder(given: Given, parent: Path | None) -> private.PrivateFolder:
    """One that no end leaves behind."""
    folder = private.create(parent)
    given.ending.push(f"the folder {folder.path}", simply(folder.remove), at_once=folder.remove)
    return folder


async def _drain(opened: Open, seconds: float) -> None:
    """Running requests may go on for a while; nobody else is served."""
    opened.overview.phase = Phase.STOPPING
    opened.pool.refuse_new()
    await opened.front.drain(seconds, opened.pool.drained)


def reachable(bound: str, environment: Mapping[str, str]) -> str:
    """The address for callers: `bound`, unless that stands for all addresses of this machine."""
    if bound in ("0.0.0.0", "::"):
        bound = environment.get("CLEARML_AGENT_HOST_IP") or network.own_address()
    return f"[{bound}]" if ":" in bound else bound
