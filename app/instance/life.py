"""One instance's life: its phases (`instance.phases`), one after the other."""

from __future__ import annotations

from app.errors import ConfigError
from app.form.settings import Settings
from app.instance import opening, phases
from app.instance.ending import Reason
from app.instance.lifetime import Lifetime
from app.planning.settle import check_form
from app.task import requeue
from app.task.outcome import Outcome


class Instance(Lifetime):
    async def _live(self) -> Reason:
        given = self._given
        opened = await opening.open_task(given.task, given.invocation, given.environment)
        if opened.elsewhere:
            try:
                return await self._move(opened.settings)
            except ConfigError:
                await opening.drop(given.task, opened.tokens)
                raise
        opening.write_back(given.task, opened)
        given.task.on_taken(self._taken)
        given.task.on_abort(self._aborted, opened.settings.general.drain_timeout)
        listening = await phases.listen(given, opened.settings)
        planned = await phases.prepare(given, opened.settings)
        serving = await phases.open_door(given, planned, listening)
        await phases.bring_up(serving)
        return await phases.serve(serving)

    async def _move(self, settings: Settings) -> Reason:
        """This machine has no GPU: the task goes on elsewhere, as it is."""
        check_form(settings)
        self._task.foresee(Outcome.MOVED, "")  # nobody may say its end once it is elsewhere
        await requeue.move(self._task, settings.general, self._given.environment["CLEARML_TASK_ID"])
        return Reason(f"moved to the queue {settings.general.queue}", 0, Outcome.MOVED)
