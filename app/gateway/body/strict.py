"""JSON as llama-server reads it: what it would answer with 500 is repaired, or refused. Pure."""

from __future__ import annotations

import json
import math
import re

from app.errors import RequestError

BOM = b"\xef\xbb\xbf"
DEEPEST = 256  # arrays and objects in each other
TOO_DEEP = f"the body is nested more than {DEEPEST} deep"
LONE = b"\\ufffd"
# Escaped backslashes are matched, too, so that no `u` behind one is taken for an escape.
ESCAPES = re.compile(
    rb"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
FINITE_DIGITS = 308  # an integer of no more digits is a finite floating-point number


def repair(raw: bytes) -> bytes:
    """The body without a byte order mark, and with U+FFFD for every lone surrogate: a client that
    cuts a text within an emoji sends one."""
    raw = raw.removeprefix(BOM)
    if SURROGATE.search(raw) is None:
        return raw
    return ESCAPES.sub(lambda found: LONE if found["lone"] else found[0], raw)


def parse(raw: bytes) -> dict[str, object]:
    """Raises RequestError 400."""
    try:
        fields = DECODER.decode(raw.decode())
    except RecursionError:
        raise RequestError(400, TOO_DEEP) from None
    except ValueError as error:  # UnicodeDecodeError is one
        raise RequestError(400, f"the body is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, "the body is not a JSON object")
    brackets = raw.count(b"[") + raw.count(b"{")  # in strings, too: no fewer than it is deep
    if brackets > DEEPEST and _deeper(fields, DEEPEST):
        raise RequestError(400, TOO_DEEP)
    return fields


def _deeper(outermost: dict[str, object], most: int) -> bool:
    level: list[list[object] | dict[str, object]] = [outermost]
    for _ in range(most):
        if not level:
            return False
        inside = (item.values() if isinstance(item, dict) else item for item in level)
        level = [value for values in inside for value in values if isinstance(value, list | dict)]
    return bool(level)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > FINITE_DIGITS:
        _float(text)
    return int(text)


def _constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


DECODER = json.JSONDecoder(parse_float=_float, parse_int=_integer, parse_constant=_constant)
