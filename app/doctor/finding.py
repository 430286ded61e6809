"""What one check has found: a verdict, what was seen, and what to do. Pure."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass

from app.console import escape

Report = Mapping[str, "Finding"]  # by the name of the check


class Verdict(enum.Enum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    """`advice` says what to do; "" where there is nothing."""

    verdict: Verdict
    seen: str
    advice: str = ""


def ok(seen: str, advice: str = "") -> Finding:
    return Finding(Verdict.OK, seen, advice)


def warning(seen: str, advice: str) -> Finding:
    return Finding(Verdict.WARNING, seen, advice)


def problem(seen: str, advice: str = "") -> Finding:
    return Finding(Verdict.PROBLEM, seen, advice)


def not_checked(why: str, advice: str = "") -> Finding:
    return Finding(Verdict.NOT_CHECKED, why, advice)


def lines(report: Report) -> list[str]:
    """For a person, one for each check. What was seen may come from others."""
    verdicts = max(len(finding.verdict.value) for finding in report.values())
    names = max(map(len, report))
    return [
        f"{finding.verdict.value:{verdicts}}  {name:{names}}  {_text(finding)}"
        for name, finding in report.items()
    ]


def _text(finding: Finding) -> str:
    seen = escape(finding.seen)
    return f"{seen} -> {escape(finding.advice)}" if finding.advice else seen


def as_json(report: Report) -> str:
    rows = [
        {"check": name, "verdict": f.verdict.value, "seen": f.seen, "advice": f.advice}
        for name, f in report.items()
    ]
    return json.dumps(rows, indent=2)


def has_problem(report: Report) -> bool:
    return any(finding.verdict is Verdict.PROBLEM for finding in report.values())
