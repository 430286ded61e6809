"""Who sends a request, and which models it may know of. Pure."""

from __future__ import annotations

from app.gateway.http.heads import Headers
from app.gateway.http.households import household
from app.gateway.keys_file import Holder
from app.gateway.labels import SESSION, label
from app.gateway.routes import ModelNames
from app.memory.caller import Caller


def caller_of(holder: Holder, headers: Headers, address: str, *, routed: bool) -> Caller:
    """By the name of its key, or else by the label `session`, which tells callers behind ClearML's
    gateway apart, or else by the address that the request came from, IPv6 by its /64. `routed`: the
    request came through that gateway; of others nobody checks the label, and who sent a new one
    each time would be as many callers."""
    if holder.name:
        return Caller("key", holder.name, batch=holder.batch, weight=holder.weight)
    session = label(headers, SESSION) if routed else ""
    return Caller("session", session) if session else Caller("address", household(address))


def own(holder: Holder, names: ModelNames) -> ModelNames:
    """Those names by which it may choose models: all names of a model of which the keys file has
    one."""
    if holder.models is None:
        return names
    models = {model for name, model in names.items() if name in holder.models}
    return {name: model for name, model in names.items() if model in models}
