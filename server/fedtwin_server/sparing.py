"""What a peer can make us write is bounded: refusals in the log, and notes in the journal.

Whoever is refused can come again, thousands of times a second, and each refusal is a line. A
bucket of tokens (one a line, refilled slowly) keeps the first ones and counts the rest, so that
nobody fills the coordinator's disk.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

BURST: Final = 300.0
PER_SECOND: Final = 5.0
# Loggers whose warnings a peer can cause at will.
REFUSING: Final = ("fedtwin.handshake", "fedtwin.guard", "fedtwin.link")


class Allowance:
    """A bucket of tokens.

    Args:
        seconds: the time, in seconds from any moment; may jump, also back.
        burst: tokens it holds.
        per_second: tokens that come back in a second.
    """

    def __init__(
        self, seconds: Callable[[], float], burst: float = BURST, per_second: float = PER_SECOND
    ) -> None:
        self._seconds = seconds
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._last = seconds()

    def take(self) -> bool:
        """Take a token; false if there is none."""
        now = self._seconds()
        gained = max(0.0, now - self._last) * self._per_second
        self._last = now
        self._tokens = min(self._burst, self._tokens + gained)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class SparingLog(logging.Filter):
    """Lets warnings through as the allowance lasts, and says how many it kept back.

    Faults of the program itself, which carry a traceback, always pass.

    Args:
        allowance: of lines.
    """

    def __init__(self, allowance: Allowance) -> None:
        super().__init__()
        self._allowance = allowance
        self._kept_back = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        if record.levelno != logging.WARNING or record.exc_info:
            return True
        if not self._allowance.take():
            self._kept_back += 1
            return False
        if self._kept_back:
            more, self._kept_back = self._kept_back, 0
            text = record.getMessage()
            record.msg, record.args = f"{text} (before it, {more} refusals were not written)", ()
        return True


def refuse_sparingly() -> None:
    """Put a sparing filter on every logger of refusals."""
    for name in REFUSING:
        logging.getLogger(name).addFilter(SparingLog(Allowance(time.monotonic)))
