"""Randomness: keys and names that nobody can guess. Variables, as the clock's are."""

from __future__ import annotations

import secrets
from collections.abc import Callable

key: Callable[[int], str] = secrets.token_urlsafe  # of so many random bytes, for people to send
name: Callable[[int], str] = secrets.token_hex  # of so many random bytes, for a file or a child
