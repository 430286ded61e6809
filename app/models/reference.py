"""Read the form's Model: a reference to a file on this machine, on the hub, or in ClearML. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from app.errors import FormError
from app.form.fields import MODEL

KEY = f"{MODEL}/model"
SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
DEFAULT_REVISION = "main"
CLEARML_ID = re.compile(r"[0-9a-f]{32}")
SEGMENT = re.compile(r"[\w.-]+")
PATH_SEGMENT = re.compile(r"[\w.*?\[\] +-]+")
URL = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+)"
    r"/(?:resolve|blob|raw)/(?P<revision>[\w.-]+)/(?P<path>[^?#]+)(?:\?[^#]*)?"
)
REPOSITORY = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<revision>[\w.-]+))?")


@dataclass(frozen=True)
class Tiny:
    """Nothing is named, for a trial: the model that the app writes itself."""


@dataclass(frozen=True)
class LocalFile:
    path: str


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository; `path`, below its root, may be a glob."""

    repo: str
    path: str
    revision: str | None = None

    def meanings(self) -> list[tuple[str, str]]:
        """Revisions and paths that may be meant, the likeliest first: where no revision is given,
        the first part of the path may be one."""
        if self.revision is not None:
            return [(self.revision, self.path)]
        first, slash, rest = self.path.partition("/")
        others = [(first, rest)] if slash and not is_glob(first) else []
        return [(DEFAULT_REVISION, self.path), *others]


@dataclass(frozen=True)
class ClearMLModel:
    """A model of ClearML's registry, by its ID: one file, or a package of several."""

    id: str


Reference = Tiny | LocalFile | HubFile | ClearMLModel


def parse(text: str, *, trial: bool) -> Reference:
    """Raises FormError for what is no reference to a GGUF file; an empty one is, for a trial."""
    if not text:
        if trial:
            return Tiny()
        raise FormError(KEY, "is empty: name a GGUF file, as provider/repo/path/to/model.gguf")
    if is_path(text):
        return LocalFile(text)
    if CLEARML_ID.fullmatch(text):
        return ClearMLModel(text)
    if "://" in text:
        return _url(text)
    if not text.endswith(".gguf"):
        raise FormError(KEY, f"{text!r} does not end in .gguf")
    return _hub_path(text)


def is_path(text: str) -> bool:
    """Whether a file on this machine is meant: by its beginning, or because a path of the hub has
    more parts."""
    if text.startswith(("/", "./", "../", "~")):
        return True
    return text.endswith(".gguf") and text.count("/") < 2


def title(text: str) -> str:
    """What to call the model if it has no other name: a file on this machine by its own name,
    without the folder, ".gguf" and the number of its part; another one by its reference."""
    if not is_path(text):
        return text
    name = text.rpartition("/")[2]
    split = SHARD.fullmatch(name)
    return split["prefix"] if split else name.removesuffix(".gguf")


def _hub_path(text: str) -> HubFile:
    segments = text.split("/")
    provider, repository, *path = segments
    named = REPOSITORY.fullmatch(repository)
    legal = all(PATH_SEGMENT.fullmatch(s) and s not in (".", "..") for s in path)
    if not SEGMENT.fullmatch(provider) or provider in (".", "..") or not named or not legal:
        raise FormError(KEY, f"{text!r} is neither a path on this machine nor a Hugging Face path")
    return HubFile(f"{provider}/{named['name']}", "/".join(path), named["revision"])


def _url(text: str) -> HubFile:
    """The address of a file on huggingface.co, as its page shows it."""
    url = URL.fullmatch(text)
    if not url or not url["path"].endswith(".gguf"):
        problem = "is no address of a GGUF file on huggingface.co; other files: download them, and"
        raise FormError(KEY, f"{text!r} {problem} name their path on the machine")
    return HubFile(url["repo"], url["path"], url["revision"])


def is_glob(path: str) -> bool:
    return any(character in path for character in "*?[")


def choose(pattern: str, paths: Iterable[str]) -> str:
    """The one file that the glob matches, or the first part of the one whole set.

    Raises FormError.
    """
    return choose_of(pattern, [path for path in paths if matches(pattern, path)])


def choose_of(pattern: str, paths: Iterable[str]) -> str:
    """The same for paths that all match `pattern`."""
    matched = sorted(paths)
    whole = {path for path in matched if not SHARD.fullmatch(path)}
    sets = {tuple(_set_of(path)) for path in matched if SHARD.fullmatch(path)}
    if len(whole) + len(sets) != 1:
        what = f"matches {', '.join(matched)}" if matched else "matches no file"
        raise FormError(KEY, f"{pattern!r} {what}; it must match one file, or the parts of one set")
    if whole:
        return matched[0]
    (parts,) = sets
    missing = [part for part in parts if part not in matched]
    if missing:
        raise FormError(KEY, f"{pattern!r} matches a set without {missing[0]}")
    return parts[0]


def matches(pattern: str, path: str) -> bool:
    """As in a shell: no star matches a slash."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _set_of(path: str) -> list[str]:
    split = SHARD.fullmatch(path)
    assert split is not None
    count = int(split["count"])
    return [f"{split['prefix']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]


def shards(path: str) -> list[str]:
    """All parts of the set that `path` is the first part of, or just `path`."""
    split = SHARD.fullmatch(path)
    if not split:
        return [path]
    count = int(split["count"])
    if int(split["number"]) != 1:
        first = f"{split['prefix']}-00001-of-{count:05}.gguf"
        raise FormError(KEY, f"{path} is not the first part of its set; name {first}")
    return _set_of(path)
