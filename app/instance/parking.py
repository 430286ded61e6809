"""Find out whether this machine can park idle models: move them to CPU RAM by CUDA checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from app.machine import gpu, host
from app.memory.checkpoint import Checkpoints, Helper, probe
from app.planning.plan import Plan

logger = logging.getLogger(__name__)


async def find_checkpoints(plan: Plan, environment: Mapping[str, str]) -> Checkpoints | None:
    """None if it cannot, or has no GPU. The log says which it is, and why."""
    if not plan.capabilities.devices:
        return None
    most = max((len(model.footprint.devices) for model in plan.allotted), default=1)
    for gpus in sorted({1, most}, reverse=True):  # some machines can do it for one GPU only
        why_not = await probe(environment, gpus)
        if not why_not:
            logger.info("idle models are moved to CPU RAM by CUDA checkpoints")
            helper = Helper(environment)
            return Checkpoints(helper, host.memory_free, gpu.free, plan.reserve, gpus)
        logger.info(
            "idle models on %s are stopped, their weights stay in the page cache: %s",
            f"{gpus} GPUs" if gpus > 1 else "a GPU",
            why_not,
        )
    return None
