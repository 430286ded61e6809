import logging

import pytest

from app.task.quiet import is_news, is_no_retry, without_monitor


@pytest.mark.parametrize(
    "text, heard",
    [
        ("ClearML Monitor: GPU monitoring failed getting GPU reading", False),
        ("ClearML results page: http://web", True),
    ],
)
def test_the_monitor_alone_is_not_heard(text, heard):
    class Logger:
        told = ()

        def report_text(self, msg, level=20, *, print_console=True):
            self.told = (msg, level, print_console)

    without_monitor(Logger)
    logger = Logger()
    logger.report_text(text, 30, print_console=False)
    assert logger.told == ((text, 30, False) if heard else ())


@pytest.mark.parametrize(
    "text, heard",
    [
        ("Legacy cache size configuration detected (sdk.storage.cache.size/secondary), x", False),
        ("Could not download s3://bucket/x", True),
    ],
)
def test_of_storage_the_legacy_line_alone_is_not_heard(text, heard):
    said = logging.LogRecord("clearml.storage", logging.WARNING, "", 0, text, (), None)
    assert is_news(said) is heard


@pytest.mark.parametrize(
    "text, heard",
    [
        ("Retrying (%r) after connection broken by '%r': %s", False),
        ("Connection pool is full, discarding connection: %s", True),
    ],
)
def test_tries_of_a_request_are_not_heard(text, heard):
    said = logging.LogRecord("urllib3.connectionpool", logging.WARNING, "", 0, text, (), None)
    assert is_no_retry(said) is heard
