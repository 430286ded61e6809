"""What the app has to know of a JSON body, found in its bytes. Pure.

It costs up to a microsecond for each value. So a large body is examined by its outline, or, where
it has none, in another process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.errors import RequestError
from app.gateway.body.asked import Asked, asked
from app.gateway.body.media import media_in, media_size, refuse_remote
from app.gateway.body.outline import Outlined
from app.gateway.body.strict import SURROGATE, parse, repair
from app.telemetry.samples import Several

SMALL = 1 << 20  # bytes
FEW = 8_000  # units of `_work`: 7 ms
CHEAP = 16  # escapes cost as much as a value, where `repair` need not look at each
MOST = 4 << 20  # values; each takes 60 bytes and more of memory here, and in llama-server
OTHERS = bytes(set(range(256)) - set(b",[{\\"))  # bytes that cost next to nothing
MOST_SURROGATES = 1 << 20  # that are escaped: they are looked at one by one


@dataclass(slots=True)  # not frozen: one is made for each request
class Examined:
    """`repaired`: the body that is to be passed on in the place of what came, if there is one;
    `media`: bytes of the pictures, sounds and films in it."""

    repaired: bytes | None
    model: object
    streams: bool
    several: Several
    media: int
    asked: Asked


def quick(pieces: Sequence[bytes]) -> bool:
    """A body that may be examined between two turns of the loop."""
    return len(pieces) == 1 and len(pieces[0]) <= SMALL and _work(pieces[0]) <= FEW


def _work(piece: bytes) -> int:
    """What costs time: values and escapes; an object is made, walked and freed."""
    signs = piece.translate(None, OTHERS)
    escapes = signs.count(b"\\")
    if escapes and SURROGATE.search(piece) is None:
        escapes //= CHEAP
    return _values(signs) + signs.count(b"{") + escapes


def _values(raw: bytes) -> int:
    """No fewer than there are: those in strings count as well. Base64 has none of them."""
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _check_number(raw: bytes) -> None:
    if _values(raw.translate(None, OTHERS)) > MOST:
        raise RequestError(413, f"the body has more than {MOST} values")
    if raw.count(b"\\ud") + raw.count(b"\\uD") > MOST_SURROGATES:
        raise RequestError(413, f"the body has more than {MOST_SURROGATES} escaped surrogates")


def examine(raw: bytes, *, allow_remote: bool) -> Examined:
    """Raises RequestError 400, 413."""
    if len(raw) > MOST:
        _check_number(raw)
    whole = repair(raw)
    fields = parse(whole)
    media = media_in(fields)
    if not allow_remote:
        refuse_remote(media)
    return _examined(fields, None if whole is raw else whole, media_size(media, {}))


def examine_outline(outlined: Outlined, size: int, *, allow_remote: bool) -> Examined | None:
    """What `examine` says of the body of `size` bytes that has this outline. None where that is not
    certain, and where the body is to be refused: then `examine` says why."""
    if _work(outlined.raw) > FEW:
        return None
    try:
        fields = parse(outlined.raw)
        media = media_in(fields)
        if not allow_remote:
            refuse_remote(media)
    except RequestError:
        return None
    lengths = outlined.ascii_lengths
    model = fields.get("model")
    if not (model is None or isinstance(model, str)) or model in lengths:
        return None
    try:
        return _examined(fields, None, media_size(media, lengths))
    except RequestError:
        return None


def _examined(fields: Mapping[str, object], repaired: bytes | None, media: int) -> Examined:
    """Raises RequestError 400."""
    found = asked(fields)
    return Examined(
        repaired=repaired,
        model=fields.get("model"),
        streams=fields.get("stream") is True,
        several=found.several,
        media=media,
        asked=found,
    )
