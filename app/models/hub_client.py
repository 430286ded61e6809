"""What the hub's library takes from an answer: names in the cache, and no paths to anywhere.

The library makes files below the commit that an answer tells, even below that of an answer which
says that there is no such file. So each answer is looked at before the library has it.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import default_client_factory, parse_ratelimit_headers

from app.errors import ConfigError
from app.models.reference import censored

LONGEST_WAIT = 300  # seconds that a hub may ask us to wait for

# Commits and ETags.
NAME = re.compile(r"\w[\w.-]{0,199}", re.A)


class LongWaitError(HfHubHTTPError):  # the library looks into its cache then
    """A hub that asks to be left alone for longer than `LONGEST_WAIT`."""


def is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def endpoint() -> str:
    """The hub's address, as it may be shown."""
    return censored(constants.ENDPOINT)


def install() -> None:
    """From now on the library's requests raise ValueError where an answer's commit is no name, and
    LongWaitError where it asks to wait for longer than `LONGEST_WAIT`: the library would wait for a
    day. And its log shows no user and no query of an address."""
    set_client_factory(_client)
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_censor)


def _censor(record: logging.LogRecord) -> bool:
    record.msg, record.args = censored(record.getMessage()), ()
    return True


def _client() -> Any:
    try:
        client = default_client_factory()
    except Exception as error:  # noqa: BLE001 the environment's, whose values it would show
        kind = type(error).__name__
        raise ConfigError(f"the environment's proxies cannot be used ({kind})") from None
    client.event_hooks["response"].append(_check)
    return client


def _check(answer: Any) -> None:
    commit = answer.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    if commit is not None and not is_name(commit):
        raise ValueError(f"{endpoint()} tells of the commit {commit[:80]!r}")
    wait = _asks_to_wait(answer)
    if wait > LONGEST_WAIT:
        told = f"it answers with status {answer.status_code}, and asks to wait for {wait} s"
        raise LongWaitError(told, response=answer)


def _asks_to_wait(answer: Any) -> int:
    """Seconds."""
    if answer.status_code < 400:
        return 0
    limit = parse_ratelimit_headers(answer.headers)
    after = answer.headers.get("retry-after", "").strip()[:9]
    reset = limit.reset_in_seconds if limit is not None and limit.remaining == 0 else 0
    return max(reset, int(after) if after.isdecimal() else 0)
