import pytest

from app.task.quiet import without_monitor


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
