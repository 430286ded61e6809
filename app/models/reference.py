"""What the form's Model means. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.errors import FormError
from app.form.fields import MODEL

KEY = f"{MODEL}/model"
SHARD = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
CLEARML_ID = re.compile(r"[0-9a-f]{32}")
SEGMENT = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Tiny:
    """No model named, offline: the one that we write ourselves."""


@dataclass(frozen=True)
class LocalFile:
    path: str


@dataclass(frozen=True)
class HubFile:
    """A file of a Hugging Face repository; `path` is below its root."""

    repo: str
    path: str


Reference = Tiny | LocalFile | HubFile


def parse(text: str, *, offline: bool) -> Reference:
    """Raises FormError for what is no reference to a GGUF file."""
    if not text:
        if offline:
            return Tiny()
        raise FormError(KEY, "is empty: name a GGUF file, as provider/repo/path/to/model.gguf")
    if text.startswith(("/", "./", "../", "~")):
        return LocalFile(text)
    if CLEARML_ID.fullmatch(text):
        raise FormError(KEY, f"{text}: this version does not fetch ClearML models")
    if not text.endswith(".gguf"):
        raise FormError(KEY, f"{text!r} does not end in .gguf")
    segments = text.split("/")
    if len(segments) < 3:
        return LocalFile(text)
    if not all(SEGMENT.fullmatch(s) and s not in (".", "..") for s in segments):
        raise FormError(KEY, f"{text!r} is neither a path on this machine nor a Hugging Face path")
    return HubFile("/".join(segments[:2]), "/".join(segments[2:]))


def shards(path: str) -> list[str]:
    """All parts of the set that `path` is the first part of, or just `path`."""
    split = SHARD.fullmatch(path)
    if not split:
        return [path]
    count = int(split["count"])
    if int(split["number"]) != 1:
        first = f"{split['prefix']}-00001-of-{count:05}.gguf"
        raise FormError(KEY, f"{path} is not the first part of its set; name {first}")
    return [f"{split['prefix']}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1)]
