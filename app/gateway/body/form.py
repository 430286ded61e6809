"""The model that a form in parts (multipart/form-data, RFC 7578) names."""

from __future__ import annotations

import logging

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import RequestError

KIND = b"multipart/form-data"
DISPOSITION = b"content-disposition"
# Bytes of a header. What parses its options takes time that grows with the square.
LONGEST_TYPE = 256
LONGEST_DISPOSITION = 128  # of the field `model`
LONGEST_NAME = 4096  # bytes of a model's name that are kept
HEADS = 256 << 10  # bytes of all parts' heads: they are parsed byte by byte
OF_A_PART = 64  # bytes that a part counts as, besides its head

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a client's faults are not ours


def boundary_of(kind: bytes | None) -> bytes:
    """What stands between the parts, by the body's content type. Raises RequestError 400."""
    if kind is not None and len(kind) > LONGEST_TYPE:
        raise RequestError(400, f"the Content-Type is longer than {LONGEST_TYPE} bytes")
    media_type, options = parse_options_header(kind)
    boundary = options.get(b"boundary", b"")
    if media_type != KIND or not boundary:
        raise RequestError(400, "the body is not multipart/form-data with a boundary")
    return boundary


class ModelField:
    """Reads a form piece by piece, and keeps the value of its field `model`."""

    def __init__(self, boundary: bytes) -> None:
        """Raises RequestError 400."""
        self._models: set[bytes] = set()
        self._name = self._head = self._value = b""
        self._disposition = b""
        self._is_model = False  # the part under way
        self._heads = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._add_name,
                    "on_header_value": self._add_head,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_head,
                    "on_part_data": self._add_value,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _broken(error) from None

    def feed(self, piece: bytes) -> None:
        """Raises RequestError 400."""
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise _broken(error) from None

    def fields(self) -> dict[str, object]:
        """`model`, if the form has it. Raises RequestError 400."""
        if not self._ended:
            raise RequestError(400, "the form has no end")
        if len(self._models) > 1:
            raise RequestError(400, "the form names more than one model")
        if not self._models:
            return {}
        return {"model": self._models.pop().decode(errors="replace")}

    def _begin(self) -> None:
        self._disposition = self._value = b""
        self._count(OF_A_PART)

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._count(end - start)

    def _add_head(self, data: bytes, start: int, end: int) -> None:
        self._head += data[start:end]
        self._count(end - start)

    def _count(self, size: int) -> None:
        self._heads += size
        if self._heads > HEADS:
            raise RequestError(400, "the form has too many parts, or their heads are too large")

    def _end_header(self) -> None:
        if self._name.lower() == DISPOSITION:
            self._disposition = self._head
        self._name = self._head = b""

    def _end_head(self) -> None:
        self._is_model = False
        if len(self._disposition) <= LONGEST_DISPOSITION:  # a longer one is a file's
            kind, options = parse_options_header(self._disposition)
            named = kind == b"form-data" and options.get(b"name") == b"model"
            # Not among the options is `filename*`, a file's name in another spelling (RFC 5987).
            self._is_model = named and b"filename" not in self._disposition.lower()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        if self._is_model:
            self._value += data[start : min(end, start + LONGEST_NAME - len(self._value))]

    def _end_part(self) -> None:
        if self._is_model:
            self._models.add(self._value)

    def _end(self) -> None:
        self._ended = True


def _broken(error: FormParserError) -> RequestError:
    return RequestError(400, f"the form is not valid: {error}")
