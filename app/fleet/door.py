"""The life of a door: it becomes a task, listens, and passes requests on until told to stop."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

from app import __version__, console
from app.errors import ConfigError
from app.fleet import config, doors
from app.fleet.edits import Edits
from app.fleet.metrics import Metrics
from app.fleet.orders import Orders
from app.fleet.pages import Pages
from app.fleet.reports import Reports
from app.fleet.routes import Routes
from app.fleet.watch import LEAVING, Watch
from app.form.fields import GENERAL
from app.form.merge import Form, merge, parse
from app.form.settings import GeneralSettings
from app.gateway.admission import listening_host
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import Allowance, allowance
from app.gateway.body.workers import Workers
from app.gateway.origins import KEY_VARIABLE
from app.gateway.proxy import Proxy
from app.gateway.tls import Certificate
from app.instance.callers import Callers, callers_of, secret_of
from app.instance.doorway import CLOSE, Doorway
from app.instance.ending import Reason, simply
from app.instance.invocation import PROJECT, Invocation
from app.instance.lifetime import Lifetime
from app.instance.phases import reachable
from app.machine import chance
from app.task.checkout import Script
from app.task.clearml_task import ClearMLTask
from app.task.launch import task_name

logger = logging.getLogger(__name__)

NAME = "llama.cpp door"
FIELDS = (  # of the form's, those that a door has
    "host",
    "port",
    "wait_timeout",
    "drain_timeout",
    "body_limit",
    "allowed_hosts",
    "project",
    "debug",
)
LARGEST_CONTEXT = 1 << 20  # tokens: how large bodies may be is the instance's to say
SERVICE = "/service"  # before a route's name, as ClearML's gateway spells it


@dataclass(frozen=True)
class Wish:
    """What the command line says besides the form's fields. `routes`: their text; "" where the task
    has them. `script`: what agents run for a route with a form."""

    routes: str = ""
    script: Script | None = None
    name: str = ""
    certificate: str = ""
    certificate_key: str = ""


class Door(Lifetime):
    def __init__(self, invocation: Invocation, wish: Wish, environment: Mapping[str, str]) -> None:
        task = ClearMLTask(offline=False, environment=environment, command="fleet")
        super().__init__(invocation, environment, task)
        self._wish = wish

    async def _live(self) -> Reason:
        given = self._given
        if self._wish.routes:
            config.parse(self._wish.routes)  # before there is a task
        certificate = self._certificate()
        general = await self._open()
        given.task.on_taken(self._taken)
        given.task.on_abort(self._aborted, general.drain_timeout)
        secret = secret_of(given.environment)
        orders = Orders(given.task, general.project or PROJECT, self._wish.script, secret)
        text = self._wish.routes or await orders.routes(given.task.task_id)
        if not text.strip():
            raise ConfigError("--config: no routes: name a file of TOML with a table for each")
        routes = Routes(general.wait_timeout, secret)
        routes.configure(config.parse(text))
        callers = await callers_of(given.task, general, given.environment, routed=False)
        self._warn(callers)
        doorway, address = await self._listen(general, callers, certificate)
        if self._wish.routes:
            await orders.keep_routes(given.task.task_id, text)
        name = chance.name(8)
        edits = Edits(routes, orders, name, given.task.task_id, text)
        watch = Watch(routes, orders, edits, name, given.task.task_id)
        pages = self._serve(routes, callers, doorway, watch, general.drain_timeout)
        pages.endpoint = address
        await edits.name_models()
        await self._start(routes, callers, watch)
        Reports(given.task, routes, address).start(given.ending)
        _announce(routes, address)
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")

    async def _start(self, routes: Routes, callers: Callers, watch: Watch) -> None:
        """Tell the other doors, and look after the keys file and after the instances."""
        given = self._given
        # A server without tasks.edit_runtime takes it only now: there later edits are not told.
        told = doors.told(routes.states, given.task.task_id)
        await given.task.set_runtime({doors.PROPERTY: told})
        if callers.keys_file is not None:
            callers.keys_file.start(given.keys_due, routes.names, lambda _: None)
            given.ending.push("the keys file", simply(callers.keys_file.stop))
        watch.start()
        given.ending.push("the watch", watch.stop, LEAVING)

    def _warn(self, callers: Callers) -> None:
        if not secret_of(self._given.environment):
            logger.warning(NO_SECRET)
        if callers.keys_file is not None and callers.token:
            logger.warning("%s is not set: nobody may see how all routes stand", KEY_VARIABLE)
        elif callers.token:
            logger.warning("%s is not set: whoever reaches the door may call", KEY_VARIABLE)

    async def _open(self) -> GeneralSettings:
        """Become the task and read its form. Raises ConfigError."""
        given = self._given
        form = merge(given.invocation.config, {}, given.invocation.overrides)
        project = form.values[f"{GENERAL}/project"] or PROJECT
        name = task_name(self._wish.name or NAME)
        parameters = await given.task.open(project, name)
        if given.task.offline:
            raise ConfigError("fleet needs a ClearML server: run clearml-init")
        form = merge(given.invocation.config, parameters, given.invocation.overrides)
        for warning in form.warnings:
            logger.warning("%s", warning)
        given.task.write_parameters(_own_fields(form))
        return parse(form).general

    async def _listen(
        self, general: GeneralSettings, callers: Callers, certificate: Certificate | None
    ) -> tuple[Doorway, str]:
        given = self._given
        host = await listening_host(
            general.host, under_agent=given.task.under_agent, has_key=bool(callers.rules.keys)
        )
        tls = None if certificate is None else self._follow(certificate)
        doorway = Doorway(callers, "door.html", tls)
        bound, port = await doorway.listen(host, general.port, given.ending)
        published = await given.route.published(port)
        scheme = "http" if tls is None else "https"
        address = f"{scheme}://{reachable(bound, given.environment)}:{published}"
        console.plain(logger, f"listening on {scheme}://{bound}:{port}")
        return doorway, address

    def _certificate(self) -> Certificate | None:
        """Raises ConfigError."""
        if not self._wish.certificate:
            return None
        return Certificate(self._wish.certificate, self._wish.certificate_key)

    def _follow(self, certificate: Certificate) -> ssl.SSLContext:
        following = asyncio.create_task(certificate.follow())
        self._given.ending.push("the certificate", simply(lambda: _cancel(following)))
        return certificate.context

    def _serve(
        self, routes: Routes, callers: Callers, doorway: Doorway, watch: Watch, drain: float
    ) -> Pages:
        metrics, workers = Metrics(routes.states), Workers()
        pages = Pages(routes, lambda: watch.listed_at, metrics, doorway.document, __version__)
        rules = callers.rules
        limit = rules.body_limit

        def allowed(_: str) -> Allowance:
            return allowance(LARGEST_CONTEXT, multimodal=True, limit=limit)

        # What a body may name is the instance's to say.
        reading = Reading(workers, allowed, allow_remote=True)
        routes.read_by(reading)
        routes.on_wait = watch.want
        rules.prefixes.append(SERVICE)
        proxy = Proxy(routes, routes.names, rules, pages.by_path(), metrics.add, reading)

        async def close(_: float) -> None:
            try:
                await doorway.close()
            finally:
                await workers.close()

        ending = self._given.ending
        doorway.open(proxy, ending)
        ending.push("connections", close, CLOSE)
        ending.push("requests", lambda seconds: _drain(routes, doorway, seconds), drain)
        return pages


NO_SECRET = (
    "LLAMACPP_ROUTE_SECRET is not set: every user of this ClearML server can read the keys of the "
    "instances, and lead callers elsewhere"
)


def _own_fields(form: Form) -> dict[str, str]:
    return {f"{GENERAL}/{name}": form.values[f"{GENERAL}/{name}"] for name in FIELDS}


def _announce(routes: Routes, address: str) -> None:
    console.plain(logger, "ready")
    for name in routes.states:
        console.plain(logger, f"route {name}: {address}/service/{name}/v1")


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _drain(routes: Routes, doorway: Doorway, seconds: float) -> None:
    """Running requests may go on for a while; nobody else is served."""
    routes.close()
    await doorway.drain(seconds, routes.drained)
