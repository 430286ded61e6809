"""What an instance tells once it serves: its models, where callers reach them, and how."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import quote

from app import console
from app.page import examples
from app.page.examples import Target
from app.planning.report import aligned
from app.telemetry.overview import Overview

logger = logging.getLogger(__name__)


def announce(overview: Overview, placeholder: str) -> None:
    """Print `ready`, a table of the models, and a command line that works."""
    console.plain(logger, "ready")
    rows = [("model", "state", "context", "slots", "memory", "endpoint")]
    for view in overview.view():
        details = overview.models[view.name]
        size = f"{overview.memory(view).total / 1e6:,.0f} MB"
        context, slots = str(details.context or ""), str(details.slots or "")
        rows.append((view.name, view.state.value, context, slots, size, details.endpoint))
    for line in aligned(rows):
        console.plain(logger, line)
    console.plain(logger, examples.curl_line(targets(overview, placeholder)[0]))


def tell_token(token: str, file: Path, page: str, *, under_agent: bool) -> None:
    """How a caller may change models without a key. A program reads the token from the file, and a
    person opens the page with the token as the fragment of its address: a browser sends that to
    nobody, so it comes into no log. Under an agent no person sees the terminal, and ClearML records
    it."""
    logger.info("no API key of its own: who loads or unloads models needs the token in %s", file)
    if not under_agent:
        console.confide(f"the page, to load and unload models as well: {page}/#token={token}")


def targets(overview: Overview, placeholder: str) -> list[Target]:
    """The models as callers reach them; `placeholder` stands for the key that they send."""
    return [
        Target(name, details.endpoint, details.embedding, placeholder)
        for name, details in overview.models.items()
    ]


def endpoint(base: str, name: str) -> str:
    """A model's own OpenAI base URL."""
    return f"{base}/{quote(name)}/v1"
