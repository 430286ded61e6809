"""What is known of llama.cpp's releases: when they were made, and what was wrong with them. Pure.

Builds of llama.cpp are numbered one after the other (b8146). A build from a shallow checkout or an
archive counts from 1, and tells nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

VERSION = re.compile(r"^version: (?:(?P<name>\S+) \(build )?(?P<build>\d+)[ ,(]+(?:commit )?", re.M)
LEAST = 1000  # a lower number is none of llama.cpp's own count

# Builds, and days on which programs that bundle them took them over: the build is not younger.
RELEASES = (
    (8651, date(2026, 4, 3)),  # github.com/gominimal/pkgs/pull/40
    (8864, date(2026, 4, 21)),  # github.com/wimpysworld/nix-config/pull/773
    (8941, date(2026, 4, 26)),  # github.com/gominimal/pkgs/pull/121
    (9592, date(2026, 6, 11)),  # github.com/ollama/ollama/pull/16671
    (9701, date(2026, 6, 18)),  # github.com/containers/ramalama/pull/2805
    (9986, date(2026, 7, 14)),  # github.com/containers/ramalama/pull/2842
    (10252, date(2026, 8, 3)),  # github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2289
    (10760, date(2026, 9, 2)),  # github.com/ollama/ollama/pull/18199
    (10864, date(2026, 9, 8)),  # github.com/ollama/ollama/pull/18317
)


@dataclass(frozen=True)
class Fault:
    """Something that a build before `fixed` has, or may have: it is the first known to be mended.
    `source` says where that is told."""

    fixed: int
    what: str
    source: str


FAULTS = (
    Fault(
        8146,
        "a crafted GGUF file overflows the loader's buffer (CVE-2026-27940)",
        "github.com/ggml-org/llama.cpp/security/advisories/GHSA-3p4r-fq3f-q74v",
    ),
    Fault(
        8941,
        "a negative n_discard in a request overwrites memory, with --context-shift "
        "(CVE-2026-21869)",
        "github.com/ggml-org/llama.cpp/pull/22267, merged on 23 April 2026",
    ),
    Fault(
        10760,
        "crafted GGUF files and projectors corrupt memory when they are loaded",
        "github.com/lmstudio-ai/lmstudio-bug-tracker/issues/2289, mended by 14 August 2026",
    ),
)


@dataclass(frozen=True)
class Version:
    """`text`: what the program says of itself; `build`: llama.cpp's number, where it is known."""

    text: str
    build: int | None = None

    @property
    def faults(self) -> Sequence[Fault]:
        return [] if self.build is None else [f for f in FAULTS if self.build < f.fixed]

    def made(self) -> date | None:
        """About when; None where that is not known, or before the first or after the last of
        RELEASES."""
        if self.build is None:
            return None
        for (build, day), (later, last) in zip(RELEASES, RELEASES[1:], strict=False):
            if build <= self.build <= later:
                share = (self.build - build) / (later - build)
                return day + timedelta(days=round(share * (last - day).days))
        return None


def version_of(text: str) -> Version:
    """From the output of `llama-server --version`."""
    found = VERSION.search(text)
    if found is None:
        return Version("of no known version")
    line = text[found.start() :].splitlines()[0].removeprefix("version: ")
    build = int(found["build"])
    return Version(line, build if build >= LEAST else None)


def age(version: Version) -> str:
    """For people."""
    if version.build is None:
        return "its build number tells no age"
    if version.build < RELEASES[0][0]:
        return f"made before {_day(RELEASES[0][1])}"
    made = version.made()
    return f"made about {made:%B %Y}" if made else f"made about {_day(RELEASES[-1][1])} or later"


def _day(day: date) -> str:
    return f"{day.day} {day:%B %Y}"
