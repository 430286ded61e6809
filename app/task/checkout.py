"""The checkout that the app runs from, as an agent would fetch it: repository, branch, commit."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ConfigError
from app.machine import children

GIT_DEADLINE = 30.0
ENTRY_POINT = "-m app"  # in the checkout's folder
# To the last "@": git accepts an unescaped one in a password.
USER_OF_HTTP = re.compile(r"(?<=^http://)[^/]+@|(?<=^https://)[^/]+@")
PASSWORD = re.compile(r"(?<=://)([^/@:]+):[^/]*@")  # an ssh address keeps its user


@dataclass(frozen=True)
class Script:
    """The code that the agent fetches. `requirements` are lines for pip; "" means the repository's
    own requirements.txt."""

    repository: str
    branch: str = ""
    commit: str = ""
    requirements: str = ""


def origin(folder: Path) -> str:
    """The repository that `folder` is a checkout of, without credentials.

    Raises ConfigError where it is none; a folder inside another checkout, as that of an installed
    package may be, is none.
    """
    repository = _git(folder, "config", "--get", "remote.origin.url")
    top = _git(folder, "rev-parse", "--show-toplevel")
    if not repository or Path(top).resolve() != folder.resolve():
        problem = f"{folder} is not the checkout of a repository with an origin"
        raise ConfigError(f"{problem}: name the repository with --repo URL")
    return without_credentials(repository)


def checkout(folder: Path) -> tuple[Script, list[str]]:
    """The repository, branch and commit of a checkout, and what an agent would not find of it.

    Raises ConfigError where `folder` is none.
    """
    repository = origin(folder)
    commit, branch = _git(folder, "rev-parse", "HEAD"), _git(folder, "branch", "--show-current")
    warnings = []
    if _git(folder, "status", "--porcelain", "--untracked-files=no"):
        warnings.append("uncommitted changes are not launched")
    warnings += _unpushed(folder, commit)
    file = folder / "requirements.txt"
    requirements = file.read_text() if file.is_file() else ""
    return Script(repository, branch, commit, requirements), warnings


def lost(folder: Path, recorded: Mapping[str, Any]) -> list[str]:
    """What is in a checkout, but not in the script that a task has `recorded` of it: there the
    uncommitted changes are a diff, and agents apply that."""
    found = _unpushed(folder, str(recorded.get("version_num") or _git(folder, "rev-parse", "HEAD")))
    if not recorded.get("diff") and _git(folder, "status", "--porcelain", "-uno"):
        found.append("uncommitted changes are not recorded")
    others = ["ls-files", "--others", "--exclude-standard", "--exclude=__pycache__", "app"]
    if new := _git(folder, *others).split("\n")[0]:
        found.append(f"{new} is not in the repository: git add it")
    return found


def _unpushed(folder: Path, commit: str) -> list[str]:
    if _git(folder, "branch", "--remotes", "--contains", commit):
        return []
    return [f"commit {commit[:10]} is not pushed: an agent cannot fetch it"]


def without_credentials(repository: str) -> str:
    """The address without user and password: everybody who may read the project can read a task,
    and the agent has credentials of its own."""
    return PASSWORD.sub(r"\1@", USER_OF_HTTP.sub("", repository))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = children.run(["git", "-C", str(folder), *arguments], os.environ, GIT_DEADLINE)
    except (OSError, children.TimeoutExpired):
        return ""
    return done.output.strip() if done.status == 0 else ""
