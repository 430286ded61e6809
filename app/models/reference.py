"""Read the form's Model: a reference to a file on this machine, on the hub, on the web, in a
bucket, or in ClearML. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote, urlsplit

from app.errors import FormError
from app.form.fields import MODEL

KEY = f"{MODEL}/model"
SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MOST_PARTS = 1000  # of a set
DEFAULT_REVISION = "main"
CLEARML_ID = re.compile(r"[0-9a-f]{32}")
CLEARML = "clearml://"  # project/name
HUB = "hf://"
BUCKETS = ("s3://", "gs://", "azure://")
SEGMENT = re.compile(r"[\w.-]+")
PATH_SEGMENT = re.compile(r"[\w.*?\[\] +-]+")
HUB_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/")
URL = re.compile(
    HUB_PAGE.pattern + r"(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/?|/(?:resolve|blob|raw)/(?P<revision>[\w.-]+)/(?P<path>[^?#]+\.gguf)(?:\?[^#]*)?)"
)
REPOSITORY = re.compile(r"(?P<name>[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?::(?P<kind>[\w.-]+))?")
SHA256 = re.compile(r"(?:sha256=([0-9a-fA-F]{64}))?")
ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][\w+.-]*)://(?:[^/?#]*@)?(?P<host>[^/?#]*)(?P<path>[^?#]*)", re.S
)
# No scheme is longer; and without a bound, to look through a long word would take for ever.
INSIDE = re.compile(r"[A-Za-z][\w+.-]{0,30}://[^\s'\"<>]+")


@dataclass(frozen=True)
class Tiny:
    """Nothing is named, for a trial: the model that the app writes itself."""


@dataclass(frozen=True)
class LocalFile:
    path: str


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository; `path`, below its root, may be a glob. Without one, the
    repository's only model, or its only one with the quantization `kind`."""

    repo: str
    path: str = ""
    revision: str | None = None
    kind: str = ""

    def meanings(self) -> list[tuple[str, str]]:
        """Revisions and paths that may be meant, the likeliest first: where no revision is given,
        the first part of the path may be one."""
        if self.revision is not None or not self.path:
            return [(self.revision or DEFAULT_REVISION, self.path)]
        first, slash, rest = self.path.partition("/")
        others = [(first, rest)] if slash and not is_glob(first) else []
        return [(DEFAULT_REVISION, self.path), *others]


@dataclass(frozen=True)
class ClearMLModel:
    """A model of ClearML's registry, by its ID: one file, or a package of several."""

    id: str


@dataclass(frozen=True)
class NamedModel:
    """The newest model of this name in a project of ClearML's registry."""

    project: str
    name: str


@dataclass(frozen=True)
class WebFile:
    """A file at an HTTP address; `sha256` in hexadecimal, or ""."""

    url: str
    sha256: str = ""


@dataclass(frozen=True)
class BucketFile:
    """A file in S3, Google Cloud Storage or Azure, which ClearML's SDK brings."""

    url: str


Reference = Tiny | LocalFile | HubFile | ClearMLModel | NamedModel | WebFile | BucketFile


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
        return _address(text)
    return _hub_path(text)


def is_path(text: str) -> bool:
    """Whether a file on this machine is meant: by its beginning, or because a path of the hub has
    more parts."""
    if text.startswith(("/", "./", "../", "~")):
        return True
    return text.endswith(".gguf") and text.count("/") < 2


def title(text: str) -> str:
    """What to call the model if it has no other name: a file by its own name, without the folder,
    ".gguf" and the number of its part; one of the hub or of ClearML by its reference."""
    found = ADDRESS.match(text)
    if found and (text.startswith((CLEARML, HUB)) or HUB_PAGE.match(text)):
        return f"{found['host']}{found['path']}"
    if found:
        text = found["path"] or found["host"]
    elif not is_path(text):
        return text
    name = unquote(text).rstrip("/").rpartition("/")[2]
    split = SHARD.fullmatch(name)
    return split["prefix"] if split else name.removesuffix(".gguf")


def shown(text: str) -> str:
    """The reference without what may be a secret: an address's user, password and query."""
    found = ADDRESS.match(text)
    return f"{found['scheme']}://{found['host']}{found['path']}" if found else text


def without_folder(text: str) -> str:
    """The reference as callers are told: of a file on this machine, its name alone."""
    return text.rstrip("/").rpartition("/")[2] if is_path(text) else text


def censored(text: str) -> str:
    """A text of somebody else, with every address in it as `shown`."""
    return INSIDE.sub(lambda found: shown(found[0]), text)


def _hub_path(text: str) -> HubFile:
    provider, slash, rest = text.partition("/")
    repository, *path = rest.split("/")
    if slash and path and not text.endswith(".gguf"):
        raise FormError(KEY, f"{text!r} does not end in .gguf")
    named = REPOSITORY.fullmatch(repository)
    legal = all(PATH_SEGMENT.fullmatch(s) and s not in (".", "..") for s in path)
    if not SEGMENT.fullmatch(provider) or provider in (".", "..") or not named or not legal:
        here, there = "on this machine (./…, /…, ~/…)", "Hugging Face path (provider/repo/…)"
        raise FormError(KEY, f"{text!r} is neither a path {here} nor a {there}")
    if path and named["kind"]:
        raise FormError(KEY, f"{text!r} names a quantization and a file: name one of them")
    repo = f"{provider}/{named['name']}"
    return HubFile(repo, "/".join(path), named["revision"], named["kind"] or "")


def _address(text: str) -> Reference:
    if text.startswith(HUB):
        return _hub_path(text.removeprefix(HUB))
    if text.startswith(CLEARML):
        project, slash, name = text.removeprefix(CLEARML).rpartition("/")
        if not (project and slash and name):
            raise FormError(KEY, f"{shown(text)!r} is not clearml://project/name")
        return NamedModel(project, name)
    if text.startswith(BUCKETS):
        if not text.endswith(".gguf"):
            raise FormError(KEY, f"{shown(text)!r} does not end in .gguf")
        if "@" in text.partition("://")[2].partition("/")[0]:
            problem = "credentials belong into clearml.conf, not into an address"
            raise FormError(KEY, f"{shown(text)!r}: {problem}")
        return BucketFile(text)
    if HUB_PAGE.match(text):
        return _page(text)
    return _web(text)


def _page(text: str) -> HubFile:
    """The address of a file or a repository on huggingface.co, as its page shows it."""
    url = URL.fullmatch(text)
    if not url:
        raise FormError(KEY, f"{shown(text)!r} is no address of a GGUF file on huggingface.co")
    return HubFile(url["repo"], url["path"] or "", url["revision"])


def _web(text: str) -> WebFile:
    url, _, fragment = text.partition("#")
    told = SHA256.fullmatch(fragment)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 it raises
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "is no address: https://…, hf://…, s3://…, gs://…, azure://… or clearml://…"
        scheme = text.partition("://")[0]  # where a password ends, nobody can say
        raise FormError(KEY, f"'{scheme}://…' {problem}")
    if told is None:
        raise FormError(KEY, f"{shown(text)!r}: after # only sha256=<64 hexadecimal digits>")
    return WebFile(url, (told[1] or "").lower())


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
    if not 1 <= count <= MOST_PARTS:
        raise FormError(KEY, f"{path}: a set of {count} parts; known are 1 to {MOST_PARTS}")
    if int(split["number"]) != 1:
        first = f"{split['prefix']}-00001-of-{count:05}.gguf"
        raise FormError(KEY, f"{path} is not the first part of its set; name {first}")
    return _set_of(path)
