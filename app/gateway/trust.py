"""How a door and the instances of its routes know each other: by a secret in the environment of
both, which ClearML's server never sees. Pure.

Every user of an open-source ClearML server can read and rewrite the runtime properties of every
task. With the secret the key of an instance is in none of them, and an instance proves that it has
the secret, and that it is at the address that the task tells, before it is sent a key or a prompt.
And a door signs the tasks that it orders, so that nobody else's keep it from ordering one.
The three uses are told apart by their first word (HMAC, RFC 2104).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

SECRET_VARIABLE = "LLAMACPP_ROUTE_SECRET"  # noqa: S105 the name of a variable
SHORTEST = 16  # characters of a secret
NONCE = re.compile(r"[0-9a-f]{32,128}")


@dataclass(frozen=True)
class Membership:
    """An instance of a route: what its task tells doors. `secret`: "" without one."""

    route: str
    task: str
    address: str
    secret: str = field(default="", repr=False)


def key(secret: str, task: str) -> str:
    """The API key of the instance that this task runs, in hex."""
    return _sign(secret, "key", task)


def proof(secret: str, nonce: str, task: str, address: str) -> str:
    """What the instance answers to a nonce, in hex. Who passes the question on to another instance
    has an answer with that one's address."""
    return _sign(secret, "proof", nonce, task, address)


def order(secret: str, task: str, route: str) -> str:
    """What shows that a door has ordered this task for its route, in hex; "" without a secret."""
    return _sign(secret, "order", task, route) if secret else ""


def same(given: object, wanted: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(_bytes(given), wanted.encode())


def _sign(secret: str, *words: str) -> str:
    return hmac.new(secret.encode(), _bytes("\n".join(words)), hashlib.sha256).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON may hold a lone surrogate
