"""`python -m tests.chaos --seeds 20`: one instance a seed, each with faults of its own."""

import argparse
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from tests.chaos.faults import FAULTS
from tests.chaos.world import run, table


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=25.0, help="of faults, a seed")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT")
    parser.add_argument("--trace", action="store_true", help="tell what happens, and the console")
    options = parser.parse_args()
    say(datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    reports, begun = [], time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        report = run(seed, options.seconds, options.callers, only=options.only)
        reports.append(report)
        _tell(report, options.trace)
    for line in table(reports, time.monotonic() - begun):
        say(line)
    sys.exit(1 if any(report.problems for report in reports) else 0)


def _tell(report, trace):
    what = f"{report.ledger.requests} requests, {report.faults.total()} faults"
    longest = f", recovery {max(report.recovery):.1f} s" if report.recovery else ""
    say(f"seed {report.seed}: end: {report.phase}: {what}{longest}")
    for problem in report.problems[:20]:
        say(f"  seed {report.seed}: {problem}")
    if report.problems or trace:
        file = Path(f"/tmp/chaos-seed-{report.seed}.log")
        errors = [f"{count} × {told}" for told, count in report.ledger.errors.most_common()]
        file.write_text("\n".join([*report.story, "", *errors, "", report.output]))
        say(f"  what happened, and its console: {file}")


if __name__ == "__main__":
    main()
