"""What each llama-server has to itself: its address, its key, its folder for KV caches."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from app.engine.http import Address
from app.machine import chance, network


@dataclass(frozen=True)
class Place:
    """`kv` is where the KV caches of its slots lie while it is away, if they are saved: without
    such a folder, llama-server lets nobody clear them."""

    address: Address
    key: str
    kv: Path


class Places:
    """Hands out places; no two models get the same one."""

    def __init__(self, sockets: Path | None, kv: Path) -> None:
        """`sockets` is the folder for Unix sockets; without it a place has a TCP port. Below `kv`
        a place gets a folder for KV caches."""
        self._sockets = sockets
        self._kv = kv
        self._numbers = itertools.count()
        self._ports: set[int] = set()

    def take(self) -> Place:
        number = str(next(self._numbers))
        return Place(self._address(number), chance.key(32), self._folder(number))

    def _address(self, number: str) -> Address:
        if self._sockets is not None:
            return Address(path=str(self._sockets / f"{number}.sock"))
        while (port := network.free_port()) in self._ports:
            pass  # it stays free until its llama-server listens, and may be found again until then
        self._ports.add(port)
        return Address(port=port)

    def _folder(self, number: str) -> Path:
        folder = self._kv / number
        folder.mkdir(parents=True, exist_ok=True)  # llama-server does not create it
        return folder
