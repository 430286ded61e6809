"""Runs checks side by side: one that fails or hangs costs no other its answer."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.doctor.finding import Finding, Report, Verdict, not_checked
from app.errors import AppError
from app.machine.deadline import within

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Check:
    """`ask` finds something, or raises AppError: that, and no answer within `deadline` seconds, is
    as bad as `failure` says. `hanging` is what to do then."""

    name: str
    ask: Callable[[], Awaitable[Finding]]
    deadline: float = 20.0
    failure: Verdict = Verdict.PROBLEM
    hanging: str = ""


async def examine(checks: Sequence[Check]) -> Report:
    found = await asyncio.gather(*map(_ask, checks))
    return dict(zip((check.name for check in checks), found, strict=True))


async def _ask(check: Check) -> Finding:
    try:
        return await within(check.deadline, check.ask())
    except asyncio.TimeoutError:
        return Finding(check.failure, f"no answer in {check.deadline:g} s", check.hanging)
    except AppError as error:
        return Finding(check.failure, str(error))
    except Exception as error:  # noqa: BLE001 a fault in one check must not cost the others theirs
        logger.debug("a check failed", exc_info=error)
        # Not its words: they may be a variable's, with a password.
        file, line, *_ = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {Path(file).name}, line {line}"
        return not_checked(f"a fault in this check: {where}")
