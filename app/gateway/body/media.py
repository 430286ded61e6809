"""Whether llama-server would fetch something that a body names. Pure.

llama-server fetches what a content part names (`image_url`, `input_audio`, `input_video`,
`video_url`, Anthropic's `source`), in every API and at several depths, and its versions differ. So
this is a rule on the whole body, and no list of places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from app.errors import RequestError

NAMES = ("url", "data", "multimodal_data")  # and all that end with _url or begin with file
SCHEMES = ("http:", "https:", "file:", "ftp:")
# JSON that clients send along and that is never media: an agent's history has URLs in it. No path
# to a content part leads through these keys, in any API of llama-server.
NEVER_MEDIA = frozenset(
    {
        "action",
        "annotations",
        "arguments",
        "chat_template_kwargs",
        "citations",
        "input_schema",
        "json_schema",
        "mcp_servers",
        "metadata",
        "parameters",
        "response_format",
        "schema",
        "tools",
    }
)
# Their `input` is what the model called the tool with.
TOOL_USES = ("tool_use", "server_tool_use", "mcp_tool_use")
# What a server's tool found. Their own `url` is no content part's: llama-server looks for that one
# below `image_url` and the like, never in `content` itself.
WEB_RESULTS = ("web_search_result", "web_fetch_result")


def media_in(fields: Mapping[str, object]) -> list[str]:
    """Every string under a key that names media, at any depth."""
    found: list[str] = []
    left: list[object] = []
    _look(fields, found, left, outermost=True)
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            _look(item, found, left)
    return found


def _look(
    item: Mapping[str, object], found: list[str], left: list[object], *, outermost: bool = False
) -> None:
    """One object: what is `found` in it, and what is `left` to be looked at."""
    # The body itself may claim to be a tool_use, and its `input` is what is asked: so only below.
    used = not outermost and item.get("type") in TOOL_USES
    for key, value in item.items():
        if key in NAMES or key.endswith("_url") or key.startswith("file"):
            listed = value if isinstance(value, list) else [value]
            found += [text for text in listed if isinstance(text, str)]
        if isinstance(value, list | dict) and not (key in NEVER_MEDIA or (used and key == "input")):
            if key == "content" and not outermost:
                left += _but_for_results(value)
            else:
                left.append(value)


def _but_for_results(content: list[object] | dict[str, object]) -> list[object]:
    """What stands in `content`, without the addresses of what a server's tool found."""
    listed = content if isinstance(content, list) else [content]
    return [
        {key: value for key, value in each.items() if key != "url"}
        if isinstance(each, dict) and each.get("type") in WEB_RESULTS
        else each
        for each in listed
    ]


def refuse_remote(media: Iterable[str]) -> None:
    """Raises RequestError 400 if llama-server would fetch one of these."""
    if any(_remote(text) for text in media):
        raise RequestError(
            400,
            "this instance does not fetch media by URL: send them inside the request as data: "
            "URLs, or start the instance with General/allow_remote_media",
        )


def _remote(text: str) -> bool:
    return text.lstrip()[:8].lower().startswith(SCHEMES)


def media_size(media: Iterable[str], ascii_lengths: Mapping[str, int]) -> int:
    """Bytes of all these strings; in base64 a character is a byte. `ascii_lengths`: of those that
    have stand-ins."""
    return sum(
        ascii_lengths[text] if text in ascii_lengths else len(text) if text.isascii() else 0
        for text in media
    )
