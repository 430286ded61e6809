"""Which of a repository's files is meant, and what to offer if none is. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

from app.errors import FormError
from app.models.reference import KEY, SHARD

QUANTIZATION = re.compile(r"(?:UD-)?(?:I?Q\d|TQ\d|BF\d|F\d|MXFP\d)\w*", re.I)
SHOWN = 12  # files that an error lists at most


def of_repository(repo: str, kind: str, paths: Iterable[str]) -> str:
    """The first file of a repository's only model, or of its only one of this quantization. Raises
    FormError that offers what there is."""
    files = [path for path in sorted(paths) if path.endswith(".gguf")]
    firsts = [path for path in files if not is_projector(path) and _is_first(path)]
    if not firsts:
        raise FormError(KEY, f"{repo} has no GGUF file")
    found = [path for path in firsts if _is_of(kind, path)] if kind else firsts
    plain = [path for path in found if not _is_of(f"UD-{kind}", path)]  # of two makers' kinds
    found = plain if len(plain) == 1 else found
    if len(found) == 1:
        return found[0]
    if kind:
        what = f"has {len(found)} files of the quantization {kind}" if found else f"has no {kind}"
    else:
        what = "has several models"
    raise FormError(KEY, f"{repo} {what}: {_offer(repo, kind, found or firsts)}")


def _is_first(path: str) -> bool:
    split = SHARD.fullmatch(path)
    return split is None or int(split["number"]) == 1


def is_projector(path: str) -> bool:
    return "mmproj" in path.rpartition("/")[2].lower()


def _is_of(kind: str, path: str) -> bool:
    """As llama.cpp: between dots, dashes and slashes, whatever the case."""
    return re.search(rf"(?:^|[-./]){re.escape(kind)}(?=[-./])", path, re.I) is not None


def _offer(repo: str, kind: str, firsts: list[str]) -> str:
    kinds: dict[str, str] = {}
    for path in firsts:
        named = QUANTIZATION.findall(path.rpartition("/")[2])
        kinds.setdefault(named[-1] if named else path, path)
    if len(kinds) < len(firsts):  # a kind does not tell them apart
        return f"name a file: {', '.join(f'{repo}/{path}' for path in nearest(kind, firsts))}"
    names = [f"{repo}/{path}" if name == path else f"{repo}:{name}" for name, path in kinds.items()]
    return f"name one of {', '.join(nearest(f'{repo}:{kind}', names))}"


def nearest(wanted: str, names: Iterable[str]) -> list[str]:
    """The names that are most like `wanted` first; at most so many as an error lists."""

    def unlike(name: str) -> float:
        return -SequenceMatcher(None, wanted.lower(), name.lower()).ratio()

    every = sorted(names, key=unlike)
    return every[:SHOWN] + ([f"and {len(every) - SHOWN} more"] if len(every) > SHOWN else [])
