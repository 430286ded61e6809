"""The command that calls a model, and the page of such commands that ClearML shows. Pure.

page/assets/commands.js makes the same commands in the browser, for the prompt that a person types.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from app.page.assemble import assemble

PROMPT = "Hello world!"
TOKEN = "YOUR_GENERATED_TOKEN"  # of the App Gateway
KEY = "YOUR_API_KEY"  # `python -m app key TASK` prints it; commands.js says so
SHORT = 64  # tokens
PART = re.compile(r"\$(targets|command)\b")


@dataclass(frozen=True)
class Target:
    """A model as a caller reaches it. `url` ends in /v1. `key` is a placeholder for the key that
    callers send, "" if they need none."""

    model: str
    url: str
    embedding: bool
    key: str


def request(target: Target, prompt: str) -> tuple[str, dict[str, object]]:
    """Path and body."""
    if target.embedding:
        return "/embeddings", {"model": target.model, "input": prompt}
    messages = [{"role": "user", "content": prompt}]
    return "/chat/completions", {"model": target.model, "messages": messages}


def curl(target: Target, prompt: str = PROMPT) -> str:
    """In several lines, for people to read."""
    return " \\\n  ".join(_curl(target, prompt, 2, {}))


def curl_line(target: Target, prompt: str = PROMPT) -> str:
    """In one line, for a short answer: to see that the model works."""
    limit = {} if target.embedding else {"max_tokens": SHORT}
    return " ".join(_curl(target, prompt, None, limit))


def _curl(target: Target, prompt: str, indent: int | None, more: Mapping[str, object]) -> list[str]:
    path, body = request(target, prompt)
    body = {**body, **more}
    words = [f"curl {quoted(target.url + path)}", "-H 'Content-Type: application/json'"]
    if target.key:
        words.append(f"-H {quoted(f'Authorization: Bearer {target.key}')}")
    words.append(f"-d {quoted(json.dumps(body, indent=indent, ensure_ascii=False))}")
    return words


def quoted(text: str) -> str:
    """The text as one word of a POSIX shell, which changes nothing between single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def page(targets: Sequence[Target]) -> str:
    """One HTML page that needs nothing else. A person chooses a model, types a prompt and copies
    the command. Without scripts the page shows the first model's command."""
    # "<" could end the script element that holds the data.
    told = json.dumps([asdict(target) for target in targets]).replace("<", "\\u003c")
    parts = {"targets": told, "command": html.escape(curl(targets[0]), quote=False)}
    return PART.sub(lambda found: parts[found[1]], assemble("example.html").decode())
