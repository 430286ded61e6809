"""A large body's outline: the same JSON with short stand-ins for its long strings. Pure.

Nearly all bytes of a large body are in few long strings: texts, pictures in base64. All that the
app has to know is in the rest, in the strings' first characters and in their lengths. So the
outline is made while the body arrives, at 1 to 3 ns for each byte, and examined on the loop.

There is no outline of a body that has many strings, or that is not wholly understood (no UTF-8,
half a surrogate pair, a control character, a long key, …): such a body is examined as a whole.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from json.encoder import encode_basestring

LONG = 256  # characters; a longer string gets a stand-in
BEGINNING = 128  # characters of a string that its stand-in begins with
SCHEME = 8  # characters after the blanks at a string's beginning: they tell whether it is a URL
STRINGS = 2_000  # at most: each takes up to 2 µs
SIZE = 1 << 17  # characters of an outline, at most
SLICE = 1 << 15  # bytes that are taken at once: they stay in the processor's cache
ESCAPE = 6  # characters of the longest escape
MARK = "\x7f"  # ends a stand-in; clients may send it, too
KEY = re.compile(MARK + '"[ \t\n\r]*:')
FIRST_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")  # of a surrogate pair
UTF_8 = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True)
class Outlined:
    """`raw`: the JSON; `ascii_lengths`: characters of the strings that have stand-ins, by these; 0
    for a string that is not ASCII."""

    raw: bytes
    ascii_lengths: Mapping[str, int]


class _String:
    """A string whose end has not arrived."""

    __slots__ = ("beginning", "is_ascii", "length")

    def __init__(self) -> None:
        self.beginning = ""  # all of it, unless it is long
        self.length = 0
        self.is_ascii = True

    def add(self, value: str) -> None:
        if self.length <= LONG:
            self.beginning += value[: LONG + 1]
        self.length += len(value)
        self.is_ascii = self.is_ascii and value.isascii()


class Outline:
    """Made from a body's pieces, one after the other."""

    def __init__(self) -> None:
        self._decoder = UTF_8()
        self._parts: list[str] = []
        self._size = self._strings = 0
        self._ascii_lengths: dict[str, int] = {}
        self._escape = ""  # the beginning of one whose end has not arrived
        self._string: _String | None = None
        self._failed = False

    def feed(self, piece: bytes) -> None:
        for begin in range(0, len(piece), SLICE):
            if self._failed:
                return
            try:
                decoded = self._decoder.decode(piece[begin : begin + SLICE])
                self._take(self._escape + decoded)
            except ValueError:  # UnicodeError is one
                self._failed = True
                self._parts.clear()

    def end(self) -> Outlined | None:
        """None if there is no outline of this body."""
        arrived = self._string is None and not self._escape and not self._decoder.getstate()[0]
        if self._failed or not arrived:
            return None
        text = "".join(self._parts)
        # Two long keys may be the same one, and a key's end counts as well.
        return None if KEY.search(text) else Outlined(text.encode(), self._ascii_lengths)

    def _take(self, text: str) -> None:
        """Raises ValueError if there is no outline."""
        end = _whole_escapes(text)
        text, self._escape = text[:end] + '"', text[end:]  # that quote ends what has no end yet
        at = 0
        while at < end or self._string is not None:
            if self._string is None:
                quote = text.index('"', at)
                self._add(text[at:quote])
                if quote == end:
                    return
                self._string, at = self._begun(), quote + 1
            value, after = scanstring(text, at)
            if len(value) != after - 1 - at:  # it has escapes
                value.encode()  # no half of a surrogate pair
            self._string.add(value)
            if after > end:
                return
            self._close(self._string)
            self._string, at = None, after

    def _begun(self) -> _String:
        self._strings += 1
        if self._strings > STRINGS:
            raise ValueError("too many strings")
        return _String()

    def _close(self, string: _String) -> None:
        shown = string.beginning
        if string.length > LONG:
            shown = self._stand_in(shown[:BEGINNING])
            self._ascii_lengths[shown] = string.length if string.is_ascii else 0
        self._add(encode_basestring(shown))

    def _stand_in(self, beginning: str) -> str:
        """One that no other string is equal to: it is longer than those without stand-ins."""
        if len(beginning.lstrip()) < SCHEME:
            raise ValueError("it begins with many blanks")
        return f"{beginning}{self._strings:0{LONG - BEGINNING}d}{MARK}"

    def _add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > SIZE:
            raise ValueError("too large")


def _whole_escapes(text: str) -> int:
    """Where to cut a text so that no escape is cut, and no pair of surrogates."""
    end = len(text)
    last = text.rfind("\\", max(0, end - ESCAPE))
    if last >= 0 and (last + 1 - len(text[: last + 1].rstrip("\\"))) % 2:
        if last + (ESCAPE if text[last + 1 : last + 2] == "u" else 2) > end:
            end = last
    before = FIRST_HALF.search(text, max(0, end - ESCAPE), end)
    return before.start() if before else end
