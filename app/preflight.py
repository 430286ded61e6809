"""Everything that can be found wrong before any bytes move, found; the rest is settled here."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.engine import arguments, capabilities
from app.engine.arguments import Wanted
from app.engine.capabilities import Capabilities
from app.engine.process import die_with_us
from app.errors import ConfigError, FormError
from app.form import cli
from app.form.settings import (
    ModelSettings,
    Settings,
    check_endpoint_name,
    default_endpoint_name,
    naming_item,
)
from app.machine import gpu
from app.models import reference
from app.models.reference import Reference, Tiny
from app.models.store import Located, Registered, Store

logger = logging.getLogger(__name__)

KEY_VARIABLE = "LLAMACPP_API_KEY"
ANYWHERE, HERE = "0.0.0.0", "127.0.0.1"
TINY_NAME = "tiny"


@dataclass(frozen=True)
class Planned:
    """One model: its settings with name and reference settled, and where its files are."""

    settings: ModelSettings
    reference: Reference
    located: Located
    wanted: Wanted

    @property
    def name(self) -> str:
        return self.settings.endpoint_name

    @property
    def label(self) -> str:
        return TINY_NAME if isinstance(self.reference, Tiny) else self.settings.model


@dataclass(frozen=True)
class Plan:
    models: tuple[Planned, ...]
    capabilities: Capabilities
    store: Store

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(model.name for model in self.models)


async def plan(
    settings: Settings, store: Store, environment: Mapping[str, str], *, offline: bool
) -> Plan:
    """Raises ConfigError, or TransferError for local weights that are not whole."""
    binary = capabilities.find(settings.general.llama_server, environment)
    known = await capabilities.probe(
        binary, arguments.environment(environment, str(store.cache), api_key="")
    )
    logger.info("llama-server: %s", binary)
    if not die_with_us():
        logger.warning("no setpriv (util-linux) here: killed, we might leave llama-server behind")
    alone = len(settings.models) == 1  # the tiny default is for who names nothing at all
    planned: list[Planned] = []
    for number, model in enumerate(settings.models, start=1):
        with naming_item(number, listed=bool(settings.general.models)):
            planned.append(await _plan_model(model, store, known, offline=offline and alone))
            check_names([other.name for other in planned])
    return Plan(tuple(planned), known, store)


async def _plan_model(
    model: ModelSettings, store: Store, known: Capabilities, *, offline: bool
) -> Planned:
    model = settle(model)
    for name in arguments.ignored_by_cli(model):
        logger.warning("%s is ignored, because Model/cli replaces it", name)
    found = reference.parse(model.model, offline=offline)
    arguments.check(model, known)
    wanted = arguments.wanted(model)
    visible = [device.name for device in gpu.devices()]
    capabilities.check_gpus(visible, known.devices, wanted.gpu_layers)
    located = await store.locate(found)
    return Planned(_named(model, found, located), found, located, wanted)


def settle(model: ModelSettings) -> ModelSettings:
    """With what a pasted command line says of model and name. Raises FormError."""
    for note in cli.read(model.extra_args, arguments.EXTRA).notes:
        logger.warning("%s", note)
    if not model.cli:
        return model
    line = cli.read(model.cli)
    for note in line.notes:
        logger.warning("%s", note)
    if line.model and model.model and line.model != model.model:
        raise FormError("Model/model", f"is {model.model!r}, but Model/cli has -m {line.model!r}")
    name = model.endpoint_name or line.endpoint_name
    if name:
        check_endpoint_name(name)
    return replace(model, model=model.model or line.model, endpoint_name=name)


def check_names(names: Sequence[str]) -> None:
    """Raises FormError for a name that stands twice. Pure."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FormError("Model/endpoint_name", f"{twice!r} is the name of two models")


def _named(model: ModelSettings, found: Reference, located: Located) -> ModelSettings:
    if model.endpoint_name:
        return model
    if isinstance(found, Tiny):
        return replace(model, endpoint_name=TINY_NAME)
    known_as = located.name if isinstance(located, Registered) else model.model
    return replace(model, endpoint_name=default_endpoint_name(known_as))


def listening_host(given: str, *, under_agent: bool, has_key: bool) -> str:
    """Where to listen. Raises ConfigError where everybody could use the models. Pure."""
    chosen = given or (ANYWHERE if under_agent or has_key else HERE)
    if not under_agent and not has_key and not _loopback(chosen):
        raise ConfigError(
            f"General/host: {chosen} is open to the network: set {KEY_VARIABLE} to a key that "
            f"callers must send, or listen on {HERE}"
        )
    return chosen


def _loopback(chosen: str) -> bool:
    try:
        return ipaddress.ip_address(chosen).is_loopback
    except ValueError:
        return chosen == "localhost"
