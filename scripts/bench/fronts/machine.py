"""What was measured with what: the machine, the versions, the day."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path

PACKAGES = ("uvloop", "httptools", "clearml", "aiohttp")


def said(command: str, *arguments: str) -> str:
    program = shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return ""
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    found = re.search(r"\d+[\w.+~-]*", (done.stdout + done.stderr).replace("nginx/", ""))
    return found[0] if found else "?"


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"^model name\s*: (.*)$", text, re.M)
    return found[1] if found else platform.machine()


def describe() -> str:
    versions = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    peers = {"nginx": "-v", "haproxy": "-v", "llama-swap": "-version"}
    versions |= {name: text for name, flag in peers.items() if (text := said(name, flag))}
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    day = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    load = os.getloadavg()[0]
    kernel = platform.release().split("-")[0]
    return (
        f"{day}, {os.cpu_count()} cores of {processor()}, load {load:.1f} at the start, Linux "
        f"{kernel}; {listed}."
    )
