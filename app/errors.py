"""Everything that can end the app or one request, with whose fault it is and what to answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

LONGEST_CHAIN = 10  # causes of one error
# From the first slash of an absolute path to its last one; not in an address.
FOLDERS = re.compile(
    r"(?:(?<![\w./~-])|(?<=file://))(?:~|\.\.?)?/(?=[^\s/])(?:[^/\n:'\"]*/)*(?=[^/\s])"
)


def for_callers(text: str) -> str:
    """What callers are told of an error: files by their names, whatever folders they are in."""
    return FOLDERS.sub("", text)


def words(error: BaseException) -> str:
    """An error for a person: the system's words where it has some, without number and file."""
    return str(getattr(error, "strerror", None) or error)


class AppError(Exception):
    """Ends the app: `main` alone turns it into one line and an exit status."""

    exit_status = 1


class ConfigError(AppError):
    """What was asked cannot be done; found before any bytes move."""

    exit_status = 2


class FormError(ConfigError):
    """One field of the form was refused."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class TransferError(AppError):
    """Weights did not arrive whole, or are not what they should be."""

    exit_status = 3


class LoadError(AppError):
    """llama-server cannot load the model."""

    exit_status = 4


class LostError(AppError):
    """A part of ourselves was lost while serving."""

    exit_status = 5


class UpstreamError(Exception):
    """The child ended or broke its connection before the answer was whole."""


class OverflowedError(UpstreamError):
    """The child failed every request at work together: its KV cache was full, or a batch of them
    was at fault. Nothing of the answer was told: the request may be sent again."""


class EndedError(UpstreamError):
    """The child closed the connection in the middle of an exchange: as a rule it has ended. A
    request of whose answer nothing was told may be sent again, once, for it may be at fault."""


class StuckError(EndedError):
    """The child made no progress with what it owes, and was ended by us."""


class NotConnectedError(UpstreamError):
    """The child took no connection, so it has not seen the request: it may be sent again."""


class EndingError(NotConnectedError):
    """The child closed the connection soon and before its answer began, after it had closed another
    one in an exchange: it was about to end, and has hardly seen the request."""


class DeclinedError(UpstreamError):
    """An instance takes no requests now, or not this one: another instance may."""


# OpenAI's error types by status: platform.openai.com/docs/guides/error-codes
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}


class RequestError(Exception):
    """One request is refused; says with which status, when to come back (seconds), and which
    further headers the answer has. `code` is OpenAI's word for the cause, if there is one."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        retry_after: float | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.headers = tuple(headers)
        self.code = code or status

    @property
    def type(self) -> str:
        fallback = "server_error" if self.status >= 500 else "invalid_request_error"
        return ERROR_TYPES.get(self.status, fallback)

    def body(self) -> dict[str, dict[str, object]]:
        """The answer in OpenAI's error shape."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": None,
                "code": self.code,
            }
        }


def forget_frames(error: BaseException | None) -> None:
    """An exception refers to the frames that it has passed, which refer to it again, and to a
    request's body: without this they stay until Python's collector comes."""
    for _ in range(LONGEST_CHAIN):
        if error is None:
            return
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
