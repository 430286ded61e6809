"""Tokens by model and by the callers' project, for the usage statistics of a ClearML Enterprise
server (`routers.report_llm_usage`)."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from app.machine import clock
from app.task.clearml_task import ClearMLTask
from app.task.sdk import ClearMLError, Complaints
from app.telemetry.samples import Sample

INTERVAL = 60.0  # seconds of a window
DEADLINE = 15.0
MOST = 100  # projects of a window; callers name them as they like
PROVIDER = "llama.cpp"
WHAT = "token usage"


@dataclass
class Used:
    prompt: int = 0
    completion: int = 0


class Usage:
    def __init__(self, task: ClearMLTask) -> None:
        self._task = task
        self._used: dict[tuple[str, str], Used] = defaultdict(Used)  # by model and project
        self._complaints = Complaints()
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        if not self._task.offline:
            self._reporting = asyncio.create_task(self._report_on())

    async def stop(self, budget: float) -> None:
        """Report the last window, within `budget` seconds. Never raises."""
        if self._reporting is not None:
            self._reporting.cancel()
            await self._report(budget)

    def add(self, sample: Sample) -> None:
        tokens = sample.tokens
        if self._reporting is None or not tokens.prompt + tokens.generated:
            return
        known = (sample.model, sample.project) in self._used or len(self._used) < MOST
        used = self._used[sample.model, sample.project if known else ""]
        used.prompt += tokens.prompt
        used.completion += tokens.generated

    async def _report_on(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            await self._report(DEADLINE)

    async def _report(self, deadline: float) -> None:
        """What is not confirmed is not sent again: the server may have counted it."""
        used, self._used = self._used, defaultdict(Used)
        if not used:
            return
        events = [self._event(*whose, tokens) for whose, tokens in used.items()]
        try:
            await self._task.ask("routers", "report_llm_usage", {"usage": events}, deadline)
            self._complaints.worked(WHAT)
        except ClearMLError as error:
            self._complaints.failed(WHAT, f"{WHAT} is not reported: {error}")

    def _event(self, model: str, project: str, used: Used) -> Mapping[str, object]:
        return {
            "timestamp": round(clock.wall() * 1000),
            "source": "external",
            "model": model,
            "provider": PROVIDER,
            "prompt_tokens": used.prompt,
            "completion_tokens": used.completion,
            "task": self._task.task_id,
            **({"project": project} if project else {}),
        }
