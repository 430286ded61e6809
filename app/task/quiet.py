"""What the SDK would write on our console of its own accord. Runs in the SDK's thread."""

from __future__ import annotations

import functools
import logging
from typing import Any

LEGACY = "Legacy cache size configuration"  # an agent writes it for every task
RETRY = "Retrying ("  # of a request of the SDK, again and again while its server is away
MONITOR = "ClearML Monitor:"  # all texts of the SDK's machine monitor begin so


def hush() -> None:
    """Before the task is opened: the SDK neither draws nor logs the progress of a download, which
    our own lines and the task's page tell, nor what becomes of its machine monitor, nor what it
    misses of a checkout, which `task.checkout` tells where it matters, nor the tries of a
    request."""
    from clearml import Logger
    from clearml.storage import callbacks

    callbacks.tqdm = None
    storage = logging.getLogger("clearml.storage")
    storage.setLevel(logging.WARNING)
    storage.addFilter(is_news)
    logging.getLogger("urllib3.connectionpool").addFilter(is_no_retry)
    logging.getLogger("clearml.resource_monitor").setLevel(logging.ERROR)
    logging.getLogger("clearml.Repository Detection").setLevel(logging.ERROR)
    without_monitor(Logger)


def is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the SDK's storage tells something that somebody can act on."""
    return not record.getMessage().startswith(LEGACY)


def is_no_retry(record: logging.LogRecord) -> bool:
    """Whether a line of urllib3 tells more than that a request is tried again: what that means for
    the instance, its own lines tell once."""
    return not record.getMessage().startswith(RETRY)


def without_monitor(logger_class: Any) -> None:
    """Make `logger_class.report_text` drop the monitor's texts."""
    report_text = logger_class.report_text

    @functools.wraps(report_text)
    def report(self: Any, msg: str, *given: Any, **named: Any) -> Any:
        if not str(msg).startswith(MONITOR):
            return report_text(self, msg, *given, **named)
        return None

    logger_class.report_text = report
