"""The Hugging Face hub."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from app.doctor.finding import Finding, not_checked, ok, warning
from app.errors import TransferError
from app.machine import threads
from app.models import surroundings

if TYPE_CHECKING:
    from app.models.greeting import Greeting

PUBLIC = "public models can be fetched, gated and private ones need HF_TOKEN"
WITHOUT = (
    "check the network, proxies and HF_TOKEN; models that are in the cache, and those of ClearML "
    "and the web, are served all the same"
)


async def hub() -> Finding:
    try:
        found = await threads.run(_greeting)
    except TransferError as error:
        return warning(str(error), WITHOUT)
    if found is None:
        return not_checked("HF_HUB_OFFLINE is set: only models in the cache can be served")
    if found.user:
        return ok(f"{found.endpoint} knows the token, as {found.user}'s")
    return ok(f"{found.endpoint} answers; no token: {PUBLIC}")


def _greeting() -> Greeting | None:
    """None where the hub is not to be asked. Raises TransferError, ConfigError."""
    surroundings.check(os.environ)
    from app.models import greeting  # takes half a second to import: the others need not wait

    return None if greeting.offline() else greeting.greet()
