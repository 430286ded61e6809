"""Whether the API server lets us in: one request of ours, before the SDK is let loose.

The SDK asks a server that is away 240 times, names no address, and prints tracebacks of whatever
else is wrong. So one `auth.login` goes first, with the configuration that the SDK itself uses:
address, credentials, method, proxies and certificates. Everything but `enter` runs in the SDK's
thread.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from app.machine import clock
from app.models import surroundings
from app.task import api
from app.task.api import RefusedError
from app.task.sdk import (
    CREDENTIALS,
    ClearMLError,
    Complaints,
    NoAnswerError,
    SdkThread,
    one_line,
)

READING = 60.0  # seconds, to import the SDK and to read its configuration
ATTEMPT = 10.0  # seconds, for one request
PAUSE = 2.0  # seconds between two
MISSING = "run clearml-init, or set CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY"
AWAY = (429, 502, 503, 504)  # what a proxy answers for a server that is away or too busy
WHICH = "it is the API server's (port 8008, or api.…), not the web page's (port 8080, or app.…)"


class UnreachableError(ClearMLError):
    """No ClearML server has answered; it may later."""


async def enter(sdk: SdkThread, patience: float) -> str:
    """Log in, once. Returns the server's address, for people. Raises ClearMLError that names it and
    says what to do: at once where a ClearML server refuses us, else after `patience` seconds."""
    address = await sdk.call("reading clearml.conf", shown_address, READING)
    last, complaints = clock.now() + patience, Complaints()
    while True:
        try:
            await _attempt(sdk, address)
            return address
        except UnreachableError as error:
            if clock.now() >= last:
                raise
            complaints.failed("", f"{error}; trying again")
        await asyncio.sleep(min(PAUSE, max(last - clock.now(), 0.0)))


async def _attempt(sdk: SdkThread, address: str) -> None:
    try:
        await sdk.call("auth.login", lambda: log_in(ATTEMPT), ATTEMPT)
    except NoAnswerError:  # names that do not resolve, and bytes that trickle, know no timeout
        raise UnreachableError(unanswered(address)) from None


def shown_address() -> str:
    """The API server's address as the SDK finds it, without credentials."""
    return CREDENTIALS.sub("", _host()).partition("?")[0]


def without_credentials() -> str:
    """What is wrong where only the server is named."""
    return f"there are no credentials for {shown_address()}: {MISSING}"


@dataclass(frozen=True)
class Entry:
    """What lets us in: a token, and the server's `Date` with it."""

    token: str = field(repr=False)
    date: str = ""


def log_in(timeout: float) -> Entry:
    """Ask for a token. Raises UnreachableError, RefusedError, or ClearMLError where there are no
    credentials."""
    try:
        response = _send(timeout)
    except (OSError, ValueError, HTTPException) as error:  # those of requests are OSErrors
        raise UnreachableError(f"ClearML: {shown_address()} {_why(error)}") from None
    return Entry(check(response), response.headers.get("Date") or "")


def check(response: Any) -> str:
    """The token. Raises UnreachableError or RefusedError where the answer holds none."""
    address, status = shown_address(), response.status_code
    try:
        answered = api.data("auth.login", response)
    except RefusedError as error:
        said = str(error).removeprefix("ClearML: auth.login: ")
        if status >= 500 or status in AWAY:
            raise UnreachableError(f"ClearML: {address} is not ready: {said}") from None
        what = "the credentials" if status in (401, 403) else "auth.login"
        problem = f"ClearML: {address} refuses {what}: {said}: check {_credentials()[1]}"
        raise RefusedError(problem, status) from None
    except ClearMLError:
        raise UnreachableError(_not_ours(address, response)) from None
    token = answered.get("token")
    if not _is_token(token):
        raise UnreachableError(_not_ours(address, response))
    return str(token)


def _is_token(text: object) -> bool:
    """Whether the SDK can read it, which it does without a word of whose it is."""
    from clearml.backend_api.session.token_manager import TokenManager

    try:
        TokenManager._get_token_exp(text)
    except Exception:  # noqa: BLE001 whatever else there is in its place
        return False
    return True


def _not_ours(address: str, response: Any) -> str:
    status = response.status_code
    if status in AWAY:
        return f"ClearML: {address} answers HTTP {status}: check that the server behind it runs"
    return (
        f"ClearML: what answers at {address} is no ClearML API server ({api.http(response)}): "
        f"check {_setting()}: {WHICH}"
    )


def unanswered(address: str) -> str:
    """What to say of a server that keeps us waiting."""
    return f"ClearML: {address} does not answer in {ATTEMPT:g} s: check {_setting()}"


def _why(error: Exception) -> str:
    """What kept a request from being answered, and what to do about it. Raises ConfigError for a
    proxy's address that cannot be read."""
    chain = list(_causes(error))
    by_proxy = any(type(each).__name__ == "ProxyError" for each in chain)
    proxy = " by the proxy that the environment names" if by_proxy else ""
    for each in reversed(chain):  # the first cause says most
        if isinstance(each, socket.gaierror):
            return f"cannot be reached{proxy}: the name does not resolve: check {_setting()}"
        if isinstance(each, ssl.SSLError):
            said = getattr(each, "reason", None) or one_line(each)
            return f"cannot be reached by TLS ({said}): check http or https in {_setting()}"
        if isinstance(each, TimeoutError):
            return f"does not answer{proxy} in {ATTEMPT:g} s: check {_setting()}"
        if isinstance(each, OSError) and each.strerror:
            said = f"{each.strerror}: check {_setting()}, and that the server runs"
            return f"cannot be reached{proxy}: {said}"
    if isinstance(error, ValueError):
        surroundings.check_proxies(os.environ)  # the SDK's library reads the proxies, too
        return f"is no address of a server, http://host:port: check {_setting()}"
    return f"does not answer by HTTP{proxy}: check http or https in {_setting()}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _host() -> str:
    from clearml.backend_api import Session

    return str(Session.get_api_server_host()).strip("/")


def _setting() -> str:
    """Where the address is set."""
    from clearml.backend_api.session.defs import ENV_HOST

    name, value = ENV_HOST.get_pair(default="")
    return str(name) if value else "api_server in clearml.conf"


def _credentials() -> tuple[dict[str, Any], str]:
    """As arguments of a request, and where they are set."""
    from clearml.backend_api.session.defs import ENV_ACCESS_KEY, ENV_AUTH_TOKEN, ENV_SECRET_KEY
    from clearml.config import config_obj

    if token := ENV_AUTH_TOKEN.get():
        return {"headers": {"Authorization": f"Bearer {token}"}}, ENV_AUTH_TOKEN.key
    pair, places = [], []
    for name, variable in (("access_key", ENV_ACCESS_KEY), ("secret_key", ENV_SECRET_KEY)):
        place, text = variable.get_pair(default="")
        pair.append(text or config_obj.get(f"api.credentials.{name}", None) or "")
        places.append(place if text else f"{name} in clearml.conf")
    return {"auth": tuple(pair)}, " and ".join(places)


def _send(timeout: float) -> Any:
    """The answer to `auth.login`. Raises what requests raises, and ClearMLError."""
    from clearml.backend_api.session.defs import ENV_API_DEFAULT_REQ_METHOD
    from clearml.backend_api.utils import get_http_session_with_retry
    from clearml.config import config_obj

    given, _ = _credentials()
    if not all(given.get("auth", ("token",))):
        raise ClearMLError(f"ClearML: {without_credentials()}")
    default = config_obj.get("api.http.default_method", None) or "get"
    method = str(ENV_API_DEFAULT_REQ_METHOD.get(default=default)).strip()
    with get_http_session_with_retry(total=0) as session:
        return session.request(method, f"{_host()}/auth.login", timeout=timeout, **given)
