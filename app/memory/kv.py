"""The KV caches of a llama-server's slots, in files while the process is away."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.console import ModelLogger
from app.engine.exchange import Waits
from app.engine.http import Client, Reply
from app.errors import LoadError, UpstreamError
from app.machine import host
from app.memory.seat import MARK, SlotState
from app.models.header import Header

ASK = 5.0  # seconds
MOVE = 120.0  # seconds for one slot's KV cache
LEAST_TOKENS = 8  # to process fewer again takes less time than to restore them
LEAST_FREE = 1 << 30  # bytes that stay free in the folder
# Its folder, its connection, the disk, or an answer that is none.
UNSAVED = LoadError, UpstreamError, OSError, ValueError, TypeError, KeyError, AttributeError
USELESS = 5  # times in a row that a restored cache went unused
LONG_PROMPT = 64  # tokens: a shorter prompt does not show whether the cache was of use
# llama-server restores such a cache, and then makes no use of it: llama.cpp's issue 28194.
NOT_RESTORED = (
    "if it leaves for disk, it processes its prompts again when it is back: llama-server cannot "
    "restore the KV cache of a model with sliding-window attention"
)


def of_use(header: Header, *, embedding: bool, log: ModelLogger) -> bool:
    """Whether a restored KV cache helps such a model. Says so where that is a loss: nothing is lost
    of an embedding, which llama-server makes anew each time."""
    if embedding or not header.causal:
        return False
    if header.sliding_window:
        log.info(NOT_RESTORED)
    return not header.sliding_window


@dataclass
class Slots:
    """The slots of one llama-server; `folder` has their files, `room` reads how many bytes can
    still be written there. `weights`: the files that decide what it computes; what is none there
    does not count. `restore_folder` makes the folder where it is gone; it may raise LoadError."""

    client: Client
    folder: Path
    log: ModelLogger
    room: Callable[[Path], int] = host.disk_free
    weights: Sequence[Path] = ()
    restore_folder: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._per_token = 0.0  # bytes, by the last file
        self._saved: dict[int, int] = {}  # slot → tokens
        self._loaded: object = None  # which weights the process has; None: that is not certain
        self._unproven = False
        self._useless = 0

    @property
    def useful(self) -> bool:
        return self._useless < USELESS

    def which(self) -> object:
        """Which weights lie in the files now."""
        return [_identity(path) for path in self.weights]

    def loaded(self, before: object) -> None:
        """A process has loaded the weights, which were these before. What was saved with others is
        dropped: a file may have been replaced by that of another model."""
        weights = before if before == self.which() else None
        if self._saved and (weights is None or weights != self._loaded):
            self.log.info("its KV cache is not restored: one of its files has changed since")
            self.drop()
        self._loaded = weights

    def drop(self) -> None:
        """What was saved is not to be restored."""
        for slot in self._saved:
            with contextlib.suppress(OSError):
                (self.folder / f"{slot}.bin").unlink()
        self._saved = {}

    async def save(self) -> None:
        """Save every slot's KV cache. Never raises: without it, prompts are processed again."""
        self._saved = {}
        if not self.useful:
            return
        try:
            self.restore_folder()
            slots = (await self.client.get("/slots", ASK)).json()
            for slot in slots:
                tokens = slot.get("n_prompt_tokens", 0) + slot.get("n_decoded", 0)
                if tokens >= LEAST_TOKENS:
                    await self._save(slot["id"], tokens)
        except UNSAVED as error:
            self.log.warning("its KV cache could not be kept: %s", error)

    async def _save(self, slot: int, tokens: int) -> None:
        free, file = self.room(self.folder), self.folder / f"{slot}.bin"
        if free < LEAST_FREE + tokens * self._per_token:
            gib = free / (1 << 30)
            self.log.info("the KV cache of slot %d is not kept: %.1f GiB are free", slot, gib)
            return
        answer = await self._move(slot, "save", file.name)
        if answer.status != 200:  # an unfinished file only takes room
            file.unlink(missing_ok=True)
            return
        self._saved[slot] = answer.json()["n_saved"]
        with contextlib.suppress(OSError):
            self._per_token = file.stat().st_size / max(1, self._saved[slot])

    async def _move(self, slot: int, action: str, file: str) -> Reply:
        """Other models wait for it: a llama-server that does not go on with it is ended."""
        body = {"filename": file}
        return await self.client.post(f"/slots/{slot}?action={action}", body, MOVE, Waits.CLIENT)

    async def restore(self) -> None:
        """Restore what was saved, into the same slots. Never raises."""
        for slot, tokens in self._saved.items():
            try:
                answer = await self._move(slot, "restore", f"{slot}.bin")
                if answer.status != 200 or answer.json().get("n_restored") != tokens:
                    self.log.warning("the KV cache of slot %d did not come back whole", slot)
                else:
                    self._unproven = True
            except (UpstreamError, ValueError) as error:
                self.log.warning("its KV cache could not be restored: %s", error)
        self.drop()

    def seen(self, prompt: int, cached: int) -> None:
        """Learn from a request whether its slot's restored cache was of use: the tokens of its
        prompt, and how many of them were in the cache."""
        if not self._unproven or prompt < LONG_PROMPT:
            return
        self._unproven = False
        self._useless = 0 if cached else self._useless + 1
        if not self.useful:
            self.log.info("its KV cache is no longer kept: it did not help %d times", USELESS)


def _identity(path: Path) -> object:
    try:
        found = path.stat()
    except (OSError, ValueError):  # the load will say so
        return None
    if not stat.S_ISREG(found.st_mode):  # its socket and its folders change at every start
        return None
    # What is written into a file may be dated back, but for the time of the change (st_ctime).
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def state_of(slot: Mapping[str, Any]) -> SlotState:
    """What one of /slots shows of its request, or of its last one where it rests. The number of a
    seat is in `n_discard`, which llama-server reads only where it shifts contexts."""
    parameters, tokens = slot.get("params") or {}, slot.get("next_token") or {}
    told = tokens[0] if isinstance(tokens, list) else tokens
    working = bool(slot.get("is_processing"))
    return SlotState(parameters.get(MARK, 0), working, working and bool(told.get("n_decoded")))
