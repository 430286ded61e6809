"""What the kernel grants us besides memory: open files, processes, and to look into others."""

from __future__ import annotations

import resource
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
PTRACE = Path("/proc/sys/kernel/yama/ptrace_scope")
UNLIMITED = resource.RLIM_INFINITY


def open_files() -> int | None:
    """The most descriptors that a process of ours may raise its limit to; None: no limit."""
    return _limit(resource.RLIMIT_NOFILE)


def processes(cgroup: Path = CGROUP) -> int | None:
    """The most processes and threads, by our user's limit and the cgroup's; None: no limit."""
    limits = [_limit(resource.RLIMIT_NPROC), _number(cgroup / "pids.max")]
    return min((limit for limit in limits if limit is not None), default=None)


def ptrace_scope(path: Path = PTRACE) -> int | None:
    """Whom we may trace, as Yama says: 0 all processes of our user, 1 our descendants, 2 only with
    CAP_SYS_PTRACE, 3 none; None without Yama."""
    return _number(path)


def _limit(which: int) -> int | None:
    hard = resource.getrlimit(which)[1]
    return None if hard == UNLIMITED else hard


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or the word "max"
        return None
