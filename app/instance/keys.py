"""The keys file of an instance: read at the start, at SIGHUP, and when it has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from app.errors import ConfigError
from app.gateway import keys_file
from app.gateway.callers import own
from app.gateway.keys_file import VARIABLE, Holder
from app.gateway.roster import Roster
from app.gateway.routes import ModelNames
from app.machine import clock, threads
from app.machine.deadline import within
from app.machine.small_file import content

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at the file
LARGEST = 1 << 20  # bytes


class KeysFile:
    def __init__(self, path: Path) -> None:
        self.roster = Roster()
        self._path = path
        self._seen: bytes | str = b""  # at the last look: the content, or why there is none
        self._taken: bytes | str = (
            b""  # the content, or what is wrong with it, that has been heeded
        )
        self._names: ModelNames = {}
        self._tell: Callable[[Sequence[str]], None] = _nobody
        self._watching: asyncio.Task[None] | None = None

    async def read(self) -> None:
        """The first time. Raises ConfigError."""
        self._seen = self._taken = await threads.run(content, self._path, LARGEST)
        self.roster.replace(self._holders(self._taken), clock.now())

    def start(
        self, due: asyncio.Event, names: ModelNames, tell: Callable[[Sequence[str]], None]
    ) -> None:
        """Watch the file; `due` asks for it to be read at once. `names` are the models that are
        served here; `tell` is told the callers' names, now and whenever the file was read."""
        self._names, self._tell = names, tell
        self._say()
        self._watching = asyncio.create_task(self._watch(due))

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, due: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(LOOK, due.wait())
            asked = due.is_set()
            due.clear()
            await self.look(asked=asked)

    async def look(self, *, asked: bool) -> None:
        """Heed what has changed. Unless it was `asked` for, only once it is the same in two looks:
        whoever writes the file may be in the middle of it."""
        found = await threads.run(content, self._path, LARGEST)
        settled, self._seen = found == self._seen, found
        if asked or (settled and found != self._taken):
            self._take(found)

    def _take(self, found: bytes | str) -> None:
        self._taken = found
        try:
            holders = self._holders(found)
        except ConfigError as error:
            logger.error("%s; the callers of before stay", error)
            return
        self.roster.replace(holders, clock.now())
        self._say()

    def _holders(self, found: bytes | str) -> Sequence[Holder]:
        """Raises ConfigError."""
        try:
            if isinstance(found, str):
                raise ConfigError(found)
            return keys_file.parse(found.decode())
        except UnicodeDecodeError:
            raise ConfigError(f"{VARIABLE}: {self._path}: is not UTF-8") from None
        except ConfigError as error:
            raise ConfigError(f"{VARIABLE}: {self._path}: {error}") from None

    def _say(self) -> None:
        names = self.roster.names
        logger.info("%s: callers: %s", VARIABLE, ", ".join(names) or "none")
        for _, holder in self.roster.keys:
            if self._names and not own(holder, self._names):
                logger.warning("%s: %s may use none of the models here", VARIABLE, holder.name)
        self._tell(names)


def is_named(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a keys file."""
    return bool(environment.get(VARIABLE, "").strip())


async def keys_file_of(environment: Mapping[str, str]) -> KeysFile | None:
    """The one that the environment names, as it is now. Raises ConfigError."""
    if not is_named(environment):
        return None
    found = KeysFile(Path(environment[VARIABLE].strip()))
    await found.read()
    return found


def _nobody(names: Sequence[str]) -> None: ...
