"""A client's request for a model, as it becomes known: its head, then its body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.engine.http import Client
from app.errors import RequestError
from app.gateway import counting
from app.gateway.body.reading import Body
from app.gateway.demand import Kind, demand
from app.gateway.headers import request_headers
from app.gateway.http.heads import Headers
from app.gateway.http.request import JSON, Request
from app.gateway.keys_file import Holder
from app.gateway.quota import Quota
from app.gateway.routes import ModelNames, ToModel
from app.memory.caller import Caller
from app.memory.lease import Ask
from app.telemetry.samples import Tokens

LEFT = 499  # nginx's status for a client that left before the end
BYTES_PER_TOKEN = 4  # of a prompt in English, roughly
NOTHING = "there is no model here that this key may use"


@dataclass(slots=True)  # not frozen: one is made for each request
class Incoming:
    """A client's request for a model, before its body has arrived. `names` are those by which the
    client may choose models."""

    request: Request
    destination: ToModel
    names: ModelNames
    holder: Holder
    quota: Quota

    def models(self) -> Sequence[str]:
        """Those that it may be for. Raises RequestError 404 if there is none."""
        if self.destination.model is not None:
            return (self.destination.model,)
        if not self.names:
            raise RequestError(404, NOTHING)
        return tuple(dict.fromkeys(self.names.values()))


@dataclass(slots=True)  # not frozen: one is made for each request
class Call:
    """A client's request for a model, read as far as is needed to pass it on."""

    request: Request
    path: str  # of llama-server, with the query
    model: str
    body: Body
    caller: Caller
    quota: Quota

    def head(self) -> tuple[str, str, Headers]:
        """Method, target and headers, as llama-server gets them."""
        headers = request_headers(self.request.headers)
        if self.body.is_json:
            # `curl -d` calls it a form, and llama-server takes no form over 1 MiB.
            headers = [header for header in headers if header[0] != JSON[0]] + [JSON]
        return self.request.method, self.path, headers


def estimated(call: Call, pieces: int, told: Tokens) -> Tokens:
    """The tokens of a request whose client has left its model, and was told so many `pieces` of a
    stream. llama-server tells of them at the end of an answer, which has not come, so they are
    estimated: or who leaves early would use none."""
    words = max(0, call.request.size - call.body.media)
    prompt = told.prompt or words // BYTES_PER_TOKEN
    return replace(told, prompt=prompt, generated=max(told.generated, pieces), estimated=True)


def asking(kind: Kind | None, call: Call) -> Ask[Client]:
    async def count(upstream: Client, prompts: int) -> int | None:
        assert kind is not None
        return await counting.count(upstream, kind, call.body.pieces or (), prompts)

    return Ask(demand(kind, call.body), call.caller, count)
