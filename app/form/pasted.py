"""llama-server arguments that a person has pasted into the form (Model/cli). Pure."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from app.errors import FormError
from app.form.fields import MODEL

KEY = f"{MODEL}/cli"

# Options that would give callers a shell, files or other hosts, that fetch from addresses which
# nobody has looked at, that this app depends on, or that print something in place of serving.
REFUSED = re.compile(
    r"--(tools.*|agent|mcp.*|ui-mcp.*|webui-mcp.*|path|media-path|log-file|log-prompts-dir"
    r"|slot-save-path|models-.*|api-key.*|api-prefix|ssl-.*|hf-token|props|rpc|reuse-port"
    r"|sleep-idle-seconds|model-url|video-ffmpeg-dir|docker-repo|help|usage|version|license"
    r"|cache-list|list-devices|completion-bash|hf-repo-draft|spec-draft-hf|hf-repo-v|hf-file-v"
    r"|(?!spec-).*-default)"  # presets of llama.cpp: a model of the hub and its options
    r"|-hft|-hfd|-hfrd|-hfv|-hfrv|-hffv|-ag|-mu|-dr|-h|-cl"
)
DROPPED_WITH_VALUE = {"--host", "--port"}
DROPPED = {"--metrics", "--slots", "--no-slots", "--no-ui", "--no-webui", "--ui", "--webui"}
# Options that name a file or the model, and what each does.
NAMING = {
    **dict.fromkeys(("-m", "--model"), "model"),
    **dict.fromkeys(("-hf", "-hfr", "--hf-repo"), "repository"),
    **dict.fromkeys(("-hff", "--hf-file"), "file"),
    **dict.fromkeys(("-mm", "--mmproj", "-mmu", "--mmproj-url"), "mmproj"),
    **dict.fromkeys(("-a", "--alias"), "names"),
}
NUMBER = re.compile(r"-\.?\d")
CONTINUED = re.compile(r"\\\r?\n")  # the end of a line of a command that goes on


@dataclass(frozen=True)
class Option:
    flag: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class CommandLine:
    """What the arguments say. `model`, `endpoint_name` and `mmproj` are "" where they do not say
    it; `aliases` are the further names of `--alias`, separated by commas; `options` are the others;
    `notes` tell what was dropped."""

    model: str = ""
    endpoint_name: str = ""
    aliases: str = ""
    mmproj: str = ""
    options: tuple[Option, ...] = ()
    notes: tuple[str, ...] = ()

    def last(self, *flags: str, key: str = KEY) -> str | None:
        """The value of the last of these flags, which is the one that llama-server uses. Raises
        FormError unless each has one value."""
        found = [_value(option, key) for option in self.options if option.flag in flags]
        return found[-1] if found else None

    def has(self, *flags: str) -> bool:
        return any(option.flag in flags for option in self.options)

    def argv(self) -> tuple[str, ...]:
        return tuple(text for option in self.options for text in (option.flag, *option.values))


def read(text: str, key: str = KEY) -> CommandLine:
    """`key` is the field that holds the text. Raises FormError where the text is not a list of
    arguments, or contains one that is refused."""
    named = dict.fromkeys(NAMING.values(), "")
    kept, notes = [], []
    for option in _options(text, key):
        if REFUSED.fullmatch(option.flag):
            raise FormError(key, f"{option.flag} is not allowed here")
        if option.flag in NAMING:
            named[NAMING[option.flag]] = _value(option, key)
        elif option.flag in DROPPED or option.flag in DROPPED_WITH_VALUE:
            notes.append(f"{key}: {option.flag} is set by this app, dropped")
        else:
            kept.append(option)
    on_hub = _on_hub(named["repository"], named["file"], key)
    if named["model"] and on_hub:
        raise FormError(key, "-m and -hf name the model: keep one of them")
    name, _, aliases = named["names"].partition(",")
    model = named["model"] or on_hub
    return CommandLine(model, name, aliases, named["mmproj"], tuple(kept), tuple(notes))


def _on_hub(repository: str, file: str, key: str) -> str:
    """The reference for `-hf provider/repo[:quantisation]`, and for `-hff` beside it, which
    replaces the quantisation; "" without them."""
    if file and not repository:
        raise FormError(key, "-hff names a file, but -hf no repository")
    return f"{repository.partition(':')[0]}/{file}" if file else repository


def _options(text: str, key: str) -> list[Option]:
    try:
        words = shlex.split(CONTINUED.sub(" ", text))
    except ValueError as error:
        raise FormError(key, f"cannot be split into arguments: {error}") from None
    if words and words[0].rsplit("/", 1)[-1] == "llama-server":
        words = words[1:]
    options: list[Option] = []
    for word in words:
        if word.startswith("-") and not NUMBER.match(word):
            # llama.cpp reads --foo_bar as --foo-bar, so REFUSED must match that too.
            flag = word.replace("_", "-") if word.startswith("--") else word
            options.append(Option(flag, ()))
        elif not options:
            raise FormError(key, f"{word!r} follows no option")
        else:
            last = options.pop()
            options.append(Option(last.flag, (*last.values, word)))
    return options


def _value(option: Option, key: str) -> str:
    if not option.values:
        raise FormError(key, f"{option.flag} has no value")
    if len(option.values) > 1:
        raise FormError(key, f"{option.flag} takes one value, and {option.values[1]!r} follows it")
    return option.values[0]
