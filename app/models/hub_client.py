"""What the hub's library takes from an answer: names in the cache, and no paths to anywhere.

The library makes files below the commit that an answer tells, even below that of an answer which
says that there is no such file. So each answer is looked at before the library has it.
"""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

# Commits and ETags.
NAME = re.compile(r"\w[\w.-]{0,199}", re.A)


def is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None


def install() -> None:
    """From now on the library's requests raise ValueError where an answer's commit is no name."""
    set_client_factory(_client)


def _client() -> Any:
    client = default_client_factory()
    client.event_hooks["response"].append(_check)
    return client


def _check(answer: Any) -> None:
    commit = answer.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
    if commit is not None and not is_name(commit):
        raise ValueError(f"{constants.ENDPOINT} tells of the commit {commit[:80]!r}")
