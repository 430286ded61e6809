"""Whose turn it is, in virtual time: the policy beside first come, first served (as llama-swap and
llama-server's router mode), and beside the best in hindsight, on random callers.

Two or three callers, twelve requests, three models, room for one; deciles over the seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.hindsight import compare  # noqa: E402

TITLES = "total, of the best in hindsight", "mean wait, of what a switch costs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    options = parser.parse_args()
    seeds = 20 if options.small else options.seeds
    for title, rows in zip(TITLES, compare(range(seeds)), strict=True):
        print(f"| {title}, {seeds} seeds | {' | '.join(f'p{n}0' for n in range(1, 10))} |")
        print("| --- |" + " --- |" * 9)
        for name, deciles in rows.items():
            print(f"| {name} | {' | '.join(f'{value:.2f}' for value in deciles)} |")
        print()


if __name__ == "__main__":
    main()
