"""Whether the Hugging Face hub answers, and whether it knows our token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    get_session,
    get_token,
    hf_raise_for_status,
)

from app.errors import TransferError
from app.models import hub_client
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
    address, token, endpoint = constants.ENDPOINT, get_token(), hub_client.endpoint()
    try:
        if token:
            return Greeting(endpoint, _name(HfApi().whoami(token)))
        answer = get_session().get(f"{address}/api/models?limit=1", timeout=LISTED_IN)
        hf_raise_for_status(answer)
        answer.json()
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise TransferError(f"{endpoint} does not accept the token (HTTP {status})") from None
        raise TransferError(f"{endpoint} answers HTTP {status}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TransferError(f"{endpoint} does not answer as a hub does") from None
    except UNREACHABLE as error:
        raise TransferError(f"{endpoint} cannot be reached ({type(error).__name__})") from None
    return Greeting(endpoint)


def _name(told: Mapping[str, object]) -> str:
    """Raises KeyError."""
    return str(told["name"])
