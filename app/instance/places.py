"""What each llama-server has to itself: its address, its key, its folder for KV caches."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.engine.http import Address
from app.errors import LoadError, words
from app.machine import chance, network

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """`kv` is where the KV caches of its slots lie while it is away, if they are saved: without
    such a folder, llama-server lets nobody clear them."""

    address: Address
    key: str
    kv: Path


class Folder(Protocol):
    """As `machine.private.PrivateFolder`."""

    path: Path

    def restore(self) -> bool: ...


class Places:
    """Hands out places; no two models get the same one."""

    def __init__(self, ours: Sequence[Folder], kv: Path, *, unix: bool) -> None:
        """`ours` are the instance's folders: the first one is also for Unix sockets; if not `unix`,
        a place has a TCP port. Below `kv`, in one of them, a place gets a folder for KV caches."""
        self._ours = ours
        self._sockets = ours[0].path if unix else None
        self._kv = kv
        self._numbers = itertools.count()
        self._ports: set[int] = set()

    def take(self) -> Place:
        number = str(next(self._numbers))
        return Place(self._address(number), chance.key(32), self._folder(number))

    def restore(self, place: Place) -> None:
        """Make anew what of its folders somebody has removed, as a cleaner of /tmp may. Raises
        LoadError."""
        for folder in self._ours:
            try:
                if folder.restore():
                    logger.warning("the folder %s was removed: it is made anew", folder.path)
            except OSError as error:
                raise LoadError(
                    f"{folder.path}, a folder of this instance, was removed, and cannot be made "
                    f"anew: {words(error)}"
                ) from None
        try:
            _make(place.kv)
        except OSError as error:
            raise LoadError(f"{place.kv} cannot be made: {words(error)}") from None

    def _address(self, number: str) -> Address:
        if self._sockets is not None:
            return Address(path=str(self._sockets / f"{number}.sock"))
        while (port := network.free_port()) in self._ports:
            pass  # it stays free until its llama-server listens, and may be found again until then
        self._ports.add(port)
        return Address(port=port)

    def _folder(self, number: str) -> Path:
        folder = self._kv / number
        _make(folder)
        return folder


def _make(folder: Path) -> None:
    """Of our own: llama-server makes none, and conversations are nobody else's to read."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
