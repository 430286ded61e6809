"""Whether the Hugging Face hub answers, and whether it knows our token."""

from __future__ import annotations

from dataclasses import dataclass

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    get_session,
    get_token,
)

from app.errors import TransferError
from app.models.hub import LISTED_IN, UNREACHABLE


@dataclass(frozen=True)
class Greeting:
    """The hub has answered: where it is, and who we are there ("" without a token)."""

    endpoint: str
    user: str = ""


def offline() -> bool:
    """Whether the hub is not to be asked (HF_HUB_OFFLINE)."""
    return bool(constants.HF_HUB_OFFLINE)


def greet() -> Greeting:
    """Ask once. Raises TransferError that says what is wrong, without the token."""
    endpoint, token = constants.ENDPOINT, get_token()
    try:
        if token:
            return Greeting(endpoint, str(HfApi().whoami(token).get("name") or "?"))
        get_session().get(f"{endpoint}/api/models?limit=1", timeout=LISTED_IN)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise TransferError(f"{endpoint} does not accept the token (HTTP {status})") from None
        raise TransferError(f"{endpoint} answers HTTP {status}") from None
    except UNREACHABLE as error:
        raise TransferError(f"{endpoint} cannot be reached ({type(error).__name__})") from None
    return Greeting(endpoint)
