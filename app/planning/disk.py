"""Whether the disk has room for what is to be downloaded."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from app.errors import ConfigError
from app.machine import host
from app.models.parts import Remote
from app.models.store import ANOTHER, Store


def needed(remotes: Collection[Remote], store: Store) -> dict[Path, int]:
    """Bytes that are still to come to each disk, by one of its folders; a file that several use
    counts once."""
    found: dict[Path, dict[str, int]] = {}
    for remote in remotes:
        folder = store.folder(remote)
        disk = next((other for other in found if host.same_disk(other, folder)), folder)
        found.setdefault(disk, {}).update(remote.downloads)
    return {folder: sum(files.values()) for folder, files in found.items()}


def check_disk(remotes: Collection[Remote], store: Store) -> None:
    """Raises ConfigError if there is no room for them beside what other processes fetch, or no
    folder that can be used."""
    with store.usable():
        _check_disk(remotes, store)


def _check_disk(remotes: Collection[Remote], store: Store) -> None:
    for folder in {store.folder(remote) for remote in remotes if remote.missing}:
        if not host.writable(folder):
            raise ConfigError(f"{folder} cannot be written: {ANOTHER}")
    wanted = {path for remote in remotes for path in remote.partials}
    for folder, missing in needed(remotes, store).items():
        if not missing:
            continue
        free, coming = host.disk_free(folder), store.coming(folder, wanted)
        if missing > free - coming + store.spare(folder):
            others = f", and other instances fetch {coming / 1e9:,.1f} GB" if coming else ""
            raise ConfigError(
                f"{folder}: {missing / 1e9:,.1f} GB are to be downloaded, but only "
                f"{free / 1e9:,.1f} GB are free{others}: {ANOTHER}, or "
                "make room with `python -m app cache`"
            )
