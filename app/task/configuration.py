"""How fast the SDK reads its configuration files."""

from __future__ import annotations

import re
from typing import Any

COMMENT = re.compile(r"^([ \t]*)(?:#|//)[^\r\n]*", re.MULTILINE)
LINES_OF_TEXT = '"""'  # between two of these a line that looks like a comment is text


def without_comments(content: str) -> str:
    """The same, of which lines of comments are empty ones."""
    return content if LINES_OF_TEXT in content else COMMENT.sub(r"\1#", content)


def skip_comments() -> None:
    """The SDK's parser looks for the end of a comment letter by letter: of each start it took a
    fifth of a second for the SDK's own defaults, which are comments for the most part, and as much
    for a clearml.conf. Empty comments are left, so that its errors name the same lines, and a line
    that goes on behind a backslash goes on no further. An SDK that reads by other means is left as
    it is."""
    try:
        from clearml.utilities.pyhocon.config_parser import ConfigParser
    except ImportError:
        return
    parse = getattr(ConfigParser, "parse", None)
    if parse is None or getattr(parse, "skips_comments", False):
        return

    def quickly(content: str, *arguments: Any, **named: Any) -> Any:
        return parse(without_comments(content), *arguments, **named)

    quickly.skips_comments = True  # type: ignore[attr-defined]
    ConfigParser.parse = staticmethod(quickly)
