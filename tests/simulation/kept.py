"""Seeds that have found something, and what."""

KEPT = {}
