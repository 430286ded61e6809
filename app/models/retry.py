"""What may go better next time, and when to try again."""

from __future__ import annotations

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0  # seconds before another try


class CutError(Exception):
    """It may go better next time. `wait`: seconds that the server wants us to wait."""

    def __init__(self, problem: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.wait = wait

    def pause(self, futile: int) -> float:
        """Seconds to wait, after so many tries in a row that have brought nothing."""
        if self.wait is not None:
            return self.wait
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**futile)
