"""A mover takes one model from the GPU to a tier, and back. `memory.tiers` has the movers."""

from __future__ import annotations

from typing import Protocol

from app.planning.amounts import Need


class MoveError(Exception):
    """A move has failed, and the model's process is of no use any more."""


class NoRoomError(MoveError):
    """Found before anything was moved: the process is as it was."""


class Mover(Protocol):
    async def leave(self, usage: Need) -> None:
        """Take the model to the tier; it uses so many bytes of each GPU. Raises MoveError."""

    async def back(self, usage: Need) -> None:
        """Make it serve again; it used so much when it left. Raises MoveError, LoadError."""

    async def end(self) -> None:
        """End its process, wherever a move has left it, and keep nothing. Never raises."""
