"""The CLI field: llama-server arguments pasted by a person. Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from app.errors import FormError
from app.form.fields import MODEL

KEY = f"{MODEL}/cli"

# What would give a caller the shell, files, other hosts, or take the child out of our hands.
REFUSED = re.compile(
    r"--(tools.*|agent|mcp.*|ui-mcp.*|webui-mcp.*|path|media-path|log-file|log-prompts-dir"
    r"|slot-save-path|models-.*|api-key.*|api-prefix|ssl-.*|hf-token|props|rpc|reuse-port"
    r"|sleep-idle-seconds)|-hft|-ag"
)
DROPPED_WITH_VALUE = {"--host", "--port"}
DROPPED = {"--metrics", "--slots", "--no-slots", "--no-ui", "--no-webui", "--ui", "--webui"}
MODEL_FLAGS = {"-m", "--model"}
ALIAS_FLAGS = {"-a", "--alias"}
MMPROJ_FLAGS = {"-mm", "--mmproj", "-mmu", "--mmproj-url"}
NUMBER = re.compile(r"-\.?\d")


@dataclass(frozen=True)
class Option:
    flag: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class CommandLine:
    """What a pasted command says: `model`, `endpoint_name` and `mmproj` are "" where it does
    not."""

    model: str = ""
    endpoint_name: str = ""
    mmproj: str = ""
    options: tuple[Option, ...] = ()
    notes: tuple[str, ...] = ()

    def last(self, *flags: str) -> str | None:
        """The value of the last of these flags that is given: llama-server lets the last win."""
        found = [o.values[0] for o in self.options if o.flag in flags and o.values]
        return found[-1] if found else None

    def has(self, *flags: str) -> bool:
        return any(option.flag in flags for option in self.options)

    def argv(self) -> tuple[str, ...]:
        return tuple(text for option in self.options for text in (option.flag, *option.values))


def read(text: str, key: str = KEY) -> CommandLine:
    """`key` is the field that holds the text. Raises FormError where that is no command line, or
    holds what we never pass on."""
    model = name = mmproj = ""
    kept, notes = [], []
    for option in _options(text, key):
        if REFUSED.fullmatch(option.flag):
            raise FormError(key, f"{option.flag} is not allowed here")
        if option.flag in MODEL_FLAGS:
            model = _value(option, key)
        elif option.flag in ALIAS_FLAGS:
            name = _value(option, key)
        elif option.flag in MMPROJ_FLAGS:
            mmproj = _value(option, key)
        elif option.flag in DROPPED or option.flag in DROPPED_WITH_VALUE:
            notes.append(f"{key}: {option.flag} is ours to set, dropped")
        else:
            kept.append(option)
    return CommandLine(model, name, mmproj, tuple(kept), tuple(notes))


def _options(text: str, key: str) -> list[Option]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise FormError(key, f"cannot be split into arguments: {error}") from None
    if words and words[0].rsplit("/", 1)[-1] == "llama-server":
        words = words[1:]
    options: list[Option] = []
    for word in words:
        if word.startswith("-") and not NUMBER.match(word):
            # llama.cpp reads --foo_bar as --foo-bar, so the refusals must as well.
            flag = word.replace("_", "-") if word.startswith("--") else word
            options.append(Option(flag, ()))
        elif not options:
            raise FormError(key, f"{word!r} belongs to no option")
        else:
            last = options.pop()
            options.append(Option(last.flag, (*last.values, word)))
    return options


def _value(option: Option, key: str) -> str:
    if len(option.values) != 1:
        raise FormError(key, f"{option.flag} takes one value")
    return option.values[0]
