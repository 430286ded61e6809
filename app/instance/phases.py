"""The phases of an instance: plan, listen, bring up, serve.

A phase is given what the phases before it returned, frozen values. What a phase begins, it pushes
onto the stack of the end, with how it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
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
from app.instance.announce import announce, endpoint, tell_token
from app.instance.bring_up import LlamaServers
from app.instance.callers import Callers, callers_of
from app.instance.ending import Ending, Reason, simply
from app.instance.front import Front
from app.instance.invocation import Invocation
from app.instance.reports import Reports
from app.instance.rows import kv_folder, overview_of, pool_of
from app.machine import clock, garbage, network, private
from app.memory.pool import Pool
from app.models import unfinished
from app.models.reference import Tiny
from app.models.store import Store
from app.planning import report
from app.planning.amounts import lasting
from app.planning.plan import Plan, Surroundings, check_memory, plan
from app.task import route
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


async def prepare(given: Given, settings: Settings) -> Planned:
    """Find out whether it can be served at all, before any byte moves. Raises AppError."""
    weights = Weights(given.task)
    for discard in (weights.discard, unfinished.discard):
        given.ending.push("downloads", simply(discard), at_once=discard)
    store = Store(given.invocation.cache_dir, given.environment, weights)
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


async def listen(given: Given, planned: Planned) -> Listening:
    """The preflight's last step: bind the port. From here on our own pages answer."""
    general = planned.settings.general
    routed = await given.route.available()
    callers = await callers_of(given.task, general, given.environment, routed=routed)
    address = listening_host(
        general.host, under_agent=given.task.under_agent, has_key=bool(callers.rules.keys)
    )
    listening = _assemble(given, planned, callers)
    bound, port = await listening.front.listen(address, general.port)
    _start(given, planned, listening)
    _locate(listening, f"http://{_reachable(bound, given.environment)}:{port}")
    shown = f"[{bound}]" if ":" in bound else bound
    console.plain(logger, f"listening on http://{shown}:{port}")
    if callers.token:
        file = planned.folder.keep(f"token-{port}", callers.token)
        page, under_agent = f"http://{shown}:{port}", given.task.under_agent
        tell_token(callers.token, file, page, under_agent=under_agent)
    if routed:
        await _ask_for_route(given, listening, port, general.gateway_route)
    elif general.gateway_route:
        logger.warning("%s is ignored: there is no App Gateway to route", route.FIELD)
    return listening


def _assemble(given: Given, planned: Planned, callers: Callers) -> Listening:
    pool = pool_of(planned.settings, planned.plan)
    overview = overview_of(planned.settings, planned.plan, pool, given.task.under_agent)
    if callers.keys_file is not None:
        overview.by_caller = ByCaller(OTHER)
    servers = LlamaServers(
        planned.plan,
        planned.settings.general,
        pool,
        overview,
        planned.folder.path,
        kv_folder(planned.plan, planned.folder.path, partial(_private_folder, given)),
        given.environment,
        lambda name, level, text: given.logs.add(clock.wall(), level, name, text),
    )
    reports = Reports(
        given.task, overview, callers.placeholder, usage=planned.settings.general.report_usage
    )
    front = Front(overview, pool, callers, given.logs, (reports.seen, servers.seen))
    return Listening(overview, pool, servers, front, reports, callers)


def _start(given: Given, planned: Planned, listening: Listening) -> None:
    """What is pushed last ends first: requests, models, connections, then who tells of them."""
    drain = planned.settings.general.drain_timeout
    servers, pool = listening.servers, listening.pool
    listening.reports.start(given.ending)
    given.ending.push("the route", simply(given.route.stop))
    _watch_keys(given, listening)
    listening.front.start(given.ending)
    # Whoever did not end when asked to; at a second signal, everybody.
    given.ending.push("llama-servers", simply(servers.kill), at_once=servers.kill)
    given.ending.push("models", lambda _: pool.close(), CHILDREN)
    given.ending.push("requests", lambda seconds: _drain(listening, seconds), drain)


def _watch_keys(given: Given, listening: Listening) -> None:
    keys_file, by_caller = listening.callers.keys_file, listening.overview.by_caller
    if keys_file is not None and by_caller is not None:
        keys_file.start(given.keys_due, listening.overview.names, by_caller.keep)
        given.ending.push("the keys file", simply(keys_file.stop))


async def _ask_for_route(given: Given, listening: Listening, port: int, static: str) -> None:
    if not listening.callers.networks:
        logger.warning("%s is not set: others than the gateway may connect", ALLOW_VARIABLE)
    await given.route.request(port, static)

    def routed(url: str) -> None:
        listening.front.below(url)
        _locate(listening, url)

    given.route.follow(routed)


def _locate(listening: Listening, base: str) -> None:
    """Where callers reach us."""
    listening.overview.endpoint = base
    for name, details in listening.overview.models.items():
        details.endpoint = endpoint(base, name)
    listening.reports.refresh()


async def bring_up(listening: Listening) -> None:
    """Fetch and load the models. Raises AppError where none of them can be served."""
    overview = listening.overview
    listening.reports.start_endpoints()
    await listening.servers.bring_up()
    overview.phase, overview.serving_since = Phase.SERVING, clock.now()
    garbage.settle()
    announce(overview, listening.callers.placeholder)
    listening.reports.refresh()


async def serve(listening: Listening) -> Reason:
    """Until nobody has asked for anything for too long, or nothing can be served."""
    overview, lost = listening.overview, listening.pool.lost
    while not lost.done():
        idle, limit = overview.idle(clock.now()), overview.idle_limit
        if expired(idle, limit):
            text = f"idle for {lasting(limit or 0.0)}, the limit"
            return Reason(text, 0, Outcome.COMPLETED)
        await asyncio.wait({lost}, timeout=limit - idle if limit else None)
    raise LostError(lost.result())


def _private_folder(given: Given, parent: Path | None) -> private.PrivateFolder:
    """One that no end leaves behind."""
    folder = private.create(parent)
    given.ending.push(f"the folder {folder.path}", simply(folder.remove), at_once=folder.remove)
    return folder


async def _drain(listening: Listening, seconds: float) -> None:
    """Running requests may go on for a while; nobody else is served."""
    listening.overview.phase = Phase.STOPPING
    listening.pool.refuse_new()
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(listening.pool.drained(), seconds)


def _reachable(bound: str, environment: Mapping[str, str]) -> str:
    """The address for callers: `bound`, unless that stands for all addresses of this machine."""
    if bound in ("0.0.0.0", "::"):
        return environment.get("CLEARML_AGENT_HOST_IP") or network.own_address()
    return f"[{bound}]" if ":" in bound else bound
