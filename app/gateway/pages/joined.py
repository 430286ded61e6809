"""What an instance of a route answers its doors: a proof of who it is, and for how long it is kept.

`GET /api/proof?nonce=<hex>` needs no key, and gives away none: `app/gateway/trust.py`.
`POST /api/keep` with {"door": name, "seconds": 120} keeps the instance from ending for want of
requests, and with 0 seconds lets go of it.
"""

from __future__ import annotations

import json
import math
from urllib.parse import parse_qs

from app.errors import RequestError
from app.gateway.http.request import Request
from app.gateway.proxy import Page
from app.gateway.routes import KEEP, PROOF, split_target
from app.gateway.trust import NONCE, Membership, proof
from app.machine import clock
from app.telemetry.keeps import Keeps

LONGEST = 600.0  # seconds of one keep
LARGEST = 4096  # bytes of a body
NAME = 64  # characters of a door's
NOT_JOINED = "this instance is of no door's route: General/gateway_route names one"


def pages(membership: Membership | None, keeps: Keeps) -> dict[str, Page]:
    def prove(request: Request) -> None:
        if membership is None or not membership.secret:
            raise RequestError(404, NOT_JOINED)
        nonce = "".join(parse_qs(split_target(request.target)[1][1:]).get("nonce", []))
        if NONCE.fullmatch(nonce) is None:
            raise RequestError(400, "`nonce` must be 32 to 128 digits of hex")
        told = proof(membership.secret, nonce, membership.task, membership.address)
        request.reply(200, json.dumps({"proof": told}).encode())

    async def keep(request: Request) -> None:
        if membership is None:
            raise RequestError(404, NOT_JOINED)
        door, seconds = _asked(await _body(request))
        if seconds:
            keeps.renew(door, clock.now() + seconds)
        else:
            keeps.let_go(door)
        request.reply(200, json.dumps({"seconds": seconds}).encode())

    return {
        PROOF: lambda request, *_: prove(request),
        KEEP: lambda request, *_: keep(request),
    }


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.chunks():
        body += chunk
        if len(body) > LARGEST:
            raise RequestError(413, f"the body is larger than {LARGEST} bytes")
    return bytes(body)


def _asked(body: bytes) -> tuple[str, float]:
    """The door's name, and seconds. Raises RequestError 400."""
    try:
        told = json.loads(body)
        door, seconds = str(told["door"]), float(told["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        raise RequestError(400, 'the body must be {"door": name, "seconds": number}') from None
    if not door or len(door) > NAME or not door.isprintable():
        raise RequestError(400, f"`door` must be a name of at most {NAME} characters")
    if not (math.isfinite(seconds) and 0 <= seconds <= LONGEST):
        raise RequestError(400, f"`seconds` must be 0 to {LONGEST:.0f}")
    return door, seconds
