"""How large a body may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from app.errors import RequestError

MIB = 1 << 20
BYTES_PER_TOKEN = 32  # English has 4, a CJK character that is escaped for JSON 6 to 12
FALLBACK_CONTEXT = 1 << 17  # tokens, of a model that has not been read yet
LEAST = MIB  # so that llama-server itself can say how much too long a prompt is
BATCH = 8 * MIB  # many texts that are embedded at once need not fit into one context
MEDIA = 64 * MIB  # six pictures or sounds as large as llama-server would fetch, in base64
MOST = 100 * MIB  # llama-server's own limit
WHY = "which follows from the model's context unless General/body_limit of the instance is set"


@dataclass(frozen=True)
class Allowance:
    """Bytes of a body for one model: `media` are those of pictures, sounds and films, `text` is all
    the rest."""

    text: int
    media: int = 0

    @property
    def whole(self) -> int:
        return self.text + self.media

    def check_whole(self, size: int) -> None:
        """Raises RequestError 413."""
        if size > self.whole:
            raise RequestError(413, f"the body is larger than {self.whole} bytes, {WHY}")

    def check(self, size: int, media: int) -> None:
        """Raises RequestError 413. A body of `size` bytes has `media` of them in it."""
        self.check_whole(size)
        if size - media > self.text:
            problem = f"the body has more than {self.text} bytes besides its media"
            raise RequestError(413, f"{problem}, {WHY}")


@lru_cache
def allowance(
    context: int | None,
    *,
    embedding: bool = False,
    multimodal: bool = False,
    limit: int | None = None,
) -> Allowance:
    """What a model takes: `context` in tokens, `limit` what the form says, in bytes."""
    if limit is not None:
        return Allowance(limit)
    text = max(LEAST, BYTES_PER_TOKEN * (context or FALLBACK_CONTEXT))
    if embedding:
        text = max(text, BATCH)
    text = min(text, MOST)
    return Allowance(text, min(MEDIA, MOST - text) if multimodal else 0)
