"""Who may call an instance, and what callers send."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from app.errors import ConfigError
from app.form.settings import GeneralSettings
from app.gateway import trust
from app.gateway.admission import ALLOW_VARIABLE, Keys, allowed_networks
from app.gateway.body.sizes import MIB
from app.gateway.http.limits import Network
from app.gateway.origins import KEY_VARIABLE, named
from app.gateway.rules import Rules
from app.gateway.trust import SECRET_VARIABLE, SHORTEST, Membership
from app.instance.keys import KeysFile, keys_file_of
from app.machine import chance
from app.page import examples
from app.task.clearml_task import ClearMLTask

logger = logging.getLogger(__name__)

TOKEN = 32  # random bytes
SHORTEST_KEY = 16  # characters that may be all right


@dataclass(frozen=True)
class Callers:
    """Who may call, and how: `placeholder` stands for the key that they send, "" without one;
    `networks` are those that may connect, all where there is none. `token`: what a caller needs to
    change models where the instance has no key of its own. `membership`: in the route of a
    door."""

    rules: Rules
    placeholder: str
    networks: Sequence[Network] = ()
    token: str = ""
    keys_file: KeysFile | None = None
    membership: Membership | None = None


def secret_of(environment: Mapping[str, str]) -> str:
    """The secret that doors and their instances share; "" without one. Raises ConfigError."""
    secret = environment.get(SECRET_VARIABLE, "").strip()
    if 0 < len(secret) < SHORTEST:
        raise ConfigError(f"{SECRET_VARIABLE}: fewer than {SHORTEST} characters can be guessed")
    return secret


def own_keys(environment: Mapping[str, str]) -> list[str]:
    """The keys that LLAMACPP_API_KEY lists between commas. Raises ConfigError."""
    keys = [key.strip() for key in environment.get(KEY_VARIABLE, "").split(",")]
    if not all(key.isprintable() for key in keys):
        raise ConfigError(
            f"{KEY_VARIABLE}: has a line break, or another character that no header can carry; "
            "commas separate keys"
        )
    return keys


class Allowed(NamedTuple):
    """What the environment says of callers."""

    keys_file: KeysFile | None
    networks: Sequence[Network]
    keys: list[str]


async def allowed_by(environment: Mapping[str, str]) -> Allowed:
    """Raises ConfigError for what cannot be followed."""
    keys_file = await keys_file_of(environment)
    networks = allowed_networks(environment.get(ALLOW_VARIABLE, ""))
    return Allowed(keys_file, networks, own_keys(environment))


async def callers_of(
    task: ClearMLTask,
    general: GeneralSettings,
    environment: Mapping[str, str],
    *,
    routed: bool,
) -> Callers:
    """What callers must send; with a route the gateway looks after that. Raises ConfigError."""
    keys_file, networks, keys = await allowed_by(environment)
    secret = "" if routed or not general.gateway_route or task.offline else secret_of(environment)
    if secret:
        keys.append(trust.key(secret, task.task_id))
    if task.under_agent and not any(keys) and not routed:
        keys = [await task.run_key()]
        logger.info("callers need the task's key: python -m app key %s", task.task_id)
    elif task.under_agent:
        task.forget_key()
    token = "" if any(keys) else chance.key(TOKEN)
    if keys_file is not None and token:
        keys = [token]  # or nobody could see and do what callers of the file may not
    rules = Rules(
        Keys(keys, keys_file.roster if keys_file is not None else None),
        wait_timeout=general.wait_timeout,
        allow_remote_media=general.allow_remote_media,
        body_limit=round(general.body_limit * MIB) if general.body_limit else None,
        debug=general.debug,
        keep_prompts=general.keep_prompts,
        routed=routed,
        joined=bool(general.gateway_route) and not routed and not task.offline,
        allowed=named(general.allowed_hosts),
    )
    placeholder = examples.KEY if any(keys) else examples.TOKEN if routed else ""
    if any(0 < len(key) < SHORTEST_KEY for key in keys):
        logger.warning(
            "%s: a key of fewer than %d characters can be guessed", KEY_VARIABLE, SHORTEST_KEY
        )
    return Callers(rules, placeholder, networks, token, keys_file)
