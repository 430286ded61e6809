"""Read a GGUF file's header, and check by it that the file is whole.

Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md. The reader is ours because it must
bound what a hostile header claims, and because headers of remote files are read by range.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.errors import TransferError
from app.models.header import MOST_LAYERS, Header, HeaderError, Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SWAPPED = tuple(version << 24 for version in VERSIONS)  # as a big-endian file has them
MAX_KEYS = 65_536
MAX_TENSORS = 1_000_000
MAX_DIMENSIONS = 4  # GGML_MAX_DIMS
MOST_ELEMENTS = (1 << 63) - 1  # of a tensor
MAX_STRING = 16 << 20
MAX_KEPT_ARRAY = MOST_LAYERS  # longer arrays (vocabularies) are walked over, not kept
WINDOW = 1 << 20
LENGTH = struct.Struct("<Q")  # of a string, before it

STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}

Read = Callable[[int, int], bytes]  # offset, size → at most that many bytes


@dataclass
class _Cursor:
    """Reads forward through a window, so that a header costs few reads."""

    read: Read
    position: int = 0
    _window: bytes = b""
    _start: int = 0
    _unpackers: dict[str, struct.Struct] = field(default_factory=dict)

    def take(self, size: int) -> bytes:
        begin = self.position - self._start
        if begin + size > len(self._window):
            self._start, begin = self.position, 0
            self._window = self.read(self.position, max(size, WINDOW))
            if len(self._window) < size:
                raise HeaderError("the header is cut off")
        self.position += size
        return self._window[begin : begin + size]

    def number(self, code: str) -> Any:
        unpacker = self._unpackers.get(code)
        if unpacker is None:
            unpacker = self._unpackers[code] = struct.Struct("<" + code)
        return unpacker.unpack(self.take(unpacker.size))[0]

    def string(self) -> str:
        return self.take(_sane(self.number("Q"))).decode(errors="replace")

    def skip_strings(self, count: int) -> None:
        """In one loop without calls: a vocabulary has hundreds of thousands. Whether the last one
        is whole shows where something is read behind it."""
        length_at = LENGTH.unpack_from
        while count:
            self.take(LENGTH.size)
            self.position -= LENGTH.size
            window, at = self._window, self.position - self._start
            last = len(window) - LENGTH.size
            while count and at <= last:
                (length,) = length_at(window, at)
                if length > MAX_STRING:
                    _sane(length)
                at += LENGTH.size + length
                count -= 1
            self.position = self._start + at


def _sane(length: int) -> int:
    if length > MAX_STRING:
        raise HeaderError(f"a string of {length} bytes")
    return length


def read_header(read: Read, size: int) -> Header:
    """`size` is the file's, in bytes. Raises HeaderError."""
    cursor = _Cursor(read)
    if cursor.take(4) != MAGIC:
        raise HeaderError("not a GGUF file (it does not begin with GGUF)")
    version = cursor.number("I")
    if version in SWAPPED:
        raise HeaderError("a big-endian GGUF file: llama.cpp reads it on big-endian machines only")
    if version not in VERSIONS:
        raise HeaderError(f"GGUF version {version}; known are 2 and 3")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
        raise HeaderError(f"{key_count} keys and {tensor_count} tensors cannot be")
    metadata = {}
    for _ in range(key_count):
        key = cursor.string()
        metadata[key] = _value(cursor, cursor.number("I"), size)
    tensors = tuple(_tensor(cursor) for _ in range(tensor_count))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20:
        raise HeaderError(f"an alignment of {alignment}")
    header = Header(metadata, tensors, -(-cursor.position // alignment) * alignment)
    header.check()
    return header


def _value(cursor: _Cursor, kind: int, size: int, depth: int = 0) -> Any:
    if kind in SCALARS:
        return cursor.number(SCALARS[kind])
    if kind == STRING:
        return cursor.string()
    if kind != ARRAY or depth > 2:
        raise HeaderError(f"a value of unknown type {kind}")
    item, length = cursor.number("I"), cursor.number("Q")
    if length > size:
        raise HeaderError(f"an array of {length} items")
    if item in SCALARS:
        return _scalars(cursor, SCALARS[item], length)
    kept = [_value(cursor, item, size, depth + 1) for _ in range(min(length, MAX_KEPT_ARRAY))]
    left = length - len(kept)
    if item == STRING and left:
        cursor.skip_strings(left - 1)
        left = 1
    for _ in range(left):
        _value(cursor, item, size, depth + 1)
    return kept


def _scalars(cursor: _Cursor, code: str, length: int) -> list[Any]:
    width = struct.calcsize("<" + code)
    kept = min(length, MAX_KEPT_ARRAY)
    values = list(struct.unpack(f"<{kept}{code}", cursor.take(kept * width)))
    cursor.position += (length - kept) * width
    return values


def _tensor(cursor: _Cursor) -> Tensor:
    name = cursor.string()
    dimensions = cursor.number("I")
    if dimensions > MAX_DIMENSIONS:
        raise HeaderError(f"tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))
    if math.prod(shape) > MOST_ELEMENTS:
        raise HeaderError(f"tensor {name!r} has {math.prod(shape)} elements")
    return Tensor(name, shape, cursor.number("I"), cursor.number("Q"))


def check_bounds(header: Header, size: int) -> None:
    """Raises HeaderError where a tensor's data would lie outside the file of `size` bytes."""
    for tensor in header.tensors:
        end = header.data_offset + tensor.offset + (tensor.size or 0)
        if end > size:
            missing = end - size
            raise HeaderError(
                f"cut off: tensor {tensor.name!r} ends {missing} bytes after the file's end"
            )


def verify(paths: Sequence[Path]) -> Header:
    """The first file's header, with the tensors of all parts, once all are verified.

    Raises TransferError that names the file.
    """
    headers = [verify_file(path) for path in paths]
    for index, (path, header) in enumerate(zip(paths, headers, strict=True)):
        number = header.metadata.get("split.no", 0)
        if header.shard_count != len(paths) or number != index:
            raise TransferError(
                f"{path}: says it is part {number} (from 0) of {header.shard_count}, "
                f"but stands as part {index} of {len(paths)}"
            )
    if not headers[0].architecture:
        raise TransferError(f"{paths[0]}: names no model architecture")
    return replace(headers[0], tensors=tuple(t for header in headers for t in header.tensors))


def verify_file(path: Path) -> Header:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(lambda offset, n: os.pread(file.fileno(), n, offset), size)
            check_bounds(header, size)
            return header
    except HeaderError as error:
        raise TransferError(f"{path}: corrupt or incomplete: {error}") from None
    except OSError as error:
        raise TransferError(f"{path}: cannot be read: {error.strerror}") from None
