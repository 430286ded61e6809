"""`check`: say what would be served, and whether it can be."""

from __future__ import annotations

import os
from collections.abc import Mapping

from app.console import say
from app.form.fields import HF_TOKEN_KEY
from app.form.merge import merge, parse
from app.instance.life import Request
from app.machine import private
from app.models.store import Store
from app.planning import report
from app.planning.plan import Surroundings, check_memory, plan
from app.task.clearml_task import ClearMLTask
from app.task.weights import Weights


async def check(request: Request, environment: Mapping[str, str], *, json: bool) -> int:
    """Print what would be served, and whether it can be. Raises AppError."""
    form = merge(request.config, request.overrides)
    if token := form.values[HF_TOKEN_KEY].strip():
        os.environ.setdefault("HF_TOKEN", token)
    settings = parse(form.without(HF_TOKEN_KEY))
    task = ClearMLTask(offline=request.offline, environment=environment)
    await task.attach()
    store = Store(request.cache_dir, environment, Weights(task))
    folder = private.create()
    try:
        around = Surroundings(store, environment, folder.path, task.offline)
        found = await plan(settings, around)
    finally:
        folder.remove()
    say(report.as_json(found) if json else "\n".join(report.table(found)))
    check_memory(found)
    return 0
