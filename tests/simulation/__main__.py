"""python -m tests.simulation: what `make simulate` runs. docs/architecture.md has its options."""

import argparse
import sys
import time
from collections import Counter

from tests.simulation import scene, world
from tests.simulation.fleet import scene as fleet_scene
from tests.simulation.fleet import world as fleet_world


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--long", action="store_true", help="hours, and up to 32 callers, each")
    parser.add_argument("--fleet", action="store_true", help="doors and their instances instead")
    given = parser.parse_args(argv)
    simulate = (fleet_world if given.fleet else world).simulate
    scales = fleet_scene if given.fleet else scene
    scale = scales.LONG if given.long else scales.QUICK
    seeds = (
        [given.seed] if given.seed is not None else range(given.first, given.first + given.seeds)
    )
    counts, faults, failed, seconds = Counter(), Counter(), [], 0.0
    begun = time.process_time()
    for seed in seeds:
        outcome = simulate(seed, scale, keeps_trace=given.trace)
        counts += outcome.counts
        faults += outcome.faults
        seconds += outcome.seconds
        if given.trace:
            sys.stdout.write("".join(f"{line}\n" for line in outcome.lines))
        for violation in outcome.violations:
            sys.stdout.write(f"seed {seed}: {violation}\n")
        if given.long:
            hours, requests = outcome.seconds / 3600, sum(outcome.counts.values())
            sys.stdout.write(f"seed {seed}: {hours:.1f} hours, {requests} requests\n")
        sys.stdout.flush()
        failed += [seed] if outcome.violations else []
    sys.stdout.write(
        f"{len(seeds)} worlds, {seconds / 3600:.2f} virtual hours in "
        f"{time.process_time() - begun:.1f} s of CPU, {sum(counts.values())} requests\n"
        f"requests: {dict(sorted(counts.items()))}\nfaults: {dict(sorted(faults.items()))}\n"
        f"failed: {failed}\n"
    )
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
