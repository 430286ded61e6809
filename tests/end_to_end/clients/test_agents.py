"""Requests of the shape that coding agents send, Claude Code and Codex: all are answered."""

import gzip
import json

import pytest
import requests

from app.gateway.body.encoding import zstd
from tests.end_to_end.clients.conftest import FUNCTION, HERE, KEY
from tests.end_to_end.conftest import PATIENCE

CLAUDE_CODE = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Anthropic-Beta": "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "context-management-2025-06-27,prompt-caching-scope-2026-01-05",
    "Anthropic-Dangerous-Direct-Browser-Access": "true",
    "Anthropic-Version": "2023-06-01",
    "User-Agent": "claude-cli/2.1.101 (external, cli)",
    "X-App": "cli",
    "X-Claude-Code-Session-Id": "9b8c7d6e-0000-4000-8000-1234567890ab",
    "X-Stainless-Lang": "js",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Timeout": "600",
}
CODEX = {
    "Accept": "text/event-stream",
    "Originator": "codex_cli_rs",
    "Session_id": "0199a213-81c0-7800-8aa1-bbab2a035a53",
    "Conversation_id": "0199a213-81c0-7800-8aa1-bbab2a035a53",
    "OpenAI-Beta": "responses=experimental",
    "User-Agent": "codex_cli_rs/0.101.0 (Debian 12.0.0; x86_64) xterm",
    "X-Codex-Beta-Features": "multi_agent",
    "X-Codex-Turn-Metadata": '{"sandbox":"seccomp"}',
}
LONG = {"max_output_tokens": 70}
BEARER = {"Authorization": f"Bearer {KEY}"}


def body_of(name):
    return json.loads((HERE / f"{name}.json").read_text())


def post(app, path, body, headers):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    answer = requests.post(app.url + path, body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer


def events(answer):
    """The stream's events, each with the name that its `event:` line gives it."""
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    told = []
    for event in answer.text.strip().split("\n\n"):
        name, data = event.strip().split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert told[-1]["type"] == name.removeprefix("event: ")
    return told


@pytest.mark.parametrize("key", [{"X-Api-Key": KEY}, BEARER, {"X-Api-Key": "none", **BEARER}])
def test_claude_code_is_answered(app, key):
    answer = post(app, "/v1/messages?beta=true", body_of("claude_code"), {**CLAUDE_CODE, **key})
    first, *_, delta, last = events(answer)
    assert (first["type"], last["type"]) == ("message_start", "message_stop")
    assert first["message"]["model"] == "tiny"
    assert delta["usage"]["output_tokens"] == 16


def test_claude_code_counts_tokens(app):
    asked = body_of("claude_code")
    body = {name: asked[name] for name in ("model", "system", "messages", "tools", "thinking")}
    headers = {**CLAUDE_CODE, "X-Api-Key": KEY}
    counted = post(app, "/v1/messages/count_tokens?beta=true", body, headers).json()
    answer = post(app, "/v1/messages?beta=true", {**asked, "stream": False}, headers).json()
    usage = answer["usage"]
    read = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
    assert counted["input_tokens"] == read > 500


def test_claude_code_looks_at_its_quota(app):
    """A small request beside the main one."""
    message = {"role": "user", "content": "quota"}
    body = {"model": "tiny", "max_tokens": 1, "messages": [message]}
    answer = post(app, "/v1/messages?beta=true", body, {**CLAUDE_CODE, "X-Api-Key": KEY})
    assert answer.json()["usage"]["output_tokens"] == 1


CODINGS = {None: bytes, "gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("path", ["/v1/responses", "/tiny/v1/responses"])
def test_codex_is_answered(app, coding, path):
    body = CODINGS[coding](json.dumps(body_of("codex")).encode())
    coded = {"Content-Encoding": coding} if coding else {}
    first, *between, last = events(post(app, path, body, {**CODEX, **BEARER, **coded}))
    assert (first["type"], last["type"]) == ("response.created", "response.incomplete")
    assert "response.output_text.delta" in {event["type"] for event in between}
    assert last["response"]["usage"]["output_tokens"] == 16


def test_codex_calls_a_tool_and_goes_on(app):
    """1. The answer calls a tool. 2. The call is sent back as it came, with the tool's output."""
    asked, headers = body_of("codex"), {**CODEX, **BEARER}
    tools = {"model": "caller", "tools": [{"type": "function", **FUNCTION}]}
    *_, last = events(post(app, "/v1/responses", {**asked, **tools, **LONG}, headers))
    call = next(item for item in last["response"]["output"] if item["type"] == "function_call")
    assert json.loads(call["arguments"]) == {"city": "Oslo"}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    asked["input"] += [call, output]
    *_, last = events(post(app, "/v1/responses", asked, headers))
    assert last["type"] == "response.incomplete"  # at the limit of the form
