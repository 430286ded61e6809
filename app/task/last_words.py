"""The end of a run: what is said of it last, by us or, if we are killed, by our last will."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from app.machine import clock
from app.task.direct import Direct
from app.task.last_will import LastWill, access
from app.task.mode import Mode
from app.task.outcome import Outcome, Run, Said, Word, last_words, say_of
from app.task.sdk import Complaints, NoAnswerError, SdkThread

logger = logging.getLogger(__name__)

AWAY = "ClearML does not answer"
KILLED = "the process was killed"  # as far as anybody can tell afterwards
TRY = 3.0  # seconds of silence after which a last word is said anew
PAUSE, LONGEST_PAUSE = 1.0, 8.0  # seconds between two tries


class LastWords:
    def __init__(self, run: Run, mode: Mode, direct: Direct) -> None:
        self._run, self._mode, self._direct = run, mode, direct
        self._thread = SdkThread()  # of its own: the SDK may be waiting for its server
        self._will = LastWill()
        self._rows: list[Word] = []  # which take ours out of Model Endpoints
        self._complaints = Complaints()

    def begin(self, session: Any) -> None:
        """From here on there is a will. `session`: the SDK's."""
        self._will.begin(access(session, self._direct.verify), self._run)
        self.foresee(Outcome.STOPPED, KILLED)

    def foresee(self, outcome: Outcome, reason: str) -> None:
        """What the will says from here on."""
        if outcome is Outcome.MOVED:
            self._will.dismiss()
        else:
            self._will.leave([*self._words(outcome, reason), *self._rows])

    def has_rows(self, containers: Sequence[str]) -> None:
        ids = [{"container_id": container} for container in containers]
        self._rows = [Word("unregister_container", fields, "serving") for fields in ids]
        self.foresee(Outcome.STOPPED, KILLED)

    async def say(self, outcome: Outcome, reason: str, until: float) -> bool:
        """Try again with longer and longer pauses; at `until` it is given up. Returns whether the
        server has confirmed the status."""
        pause, said = PAUSE, Said(self._words(outcome, reason), "", confirmed=False)
        self._thread.start()
        while said.left:
            trying = partial(say_of, self._run, self._direct.ask, said.left, TRY)
            try:
                said = await self._thread.call("the last words", trying, until - clock.now())
            except NoAnswerError:
                break
            if not said.left or clock.now() + pause > until:
                break
            self._complaints.failed("", f"{AWAY}: {said.problem}; trying again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if said.left:
            logger.warning("%s: its record of the end may be incomplete", AWAY)
            return False
        if said.problem:
            logger.warning("%s", said.problem)
        self._leave_nothing(outcome, reason)
        return said.confirmed

    def _leave_nothing(self, outcome: Outcome, reason: str) -> None:
        """All is said. An agent writes "completed" over ours, with a message of its own: ours is
        written once more after that."""
        if outcome is not Outcome.COMPLETED:
            self._will.dismiss()
            return
        *_, status = self._words(outcome, reason)
        self._will.leave([status], over={"status": outcome.value, "status_message": reason})

    def _words(self, outcome: Outcome, reason: str) -> list[Word]:
        return last_words(self._run.task, self._mode, outcome, reason)
