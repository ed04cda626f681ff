"""Times of glucose sensors: local, often without their zone, and in the order of some country.

Where the clocks went back an hour stands twice in a file; it is told apart by the order of the
lines. Nothing else is guessed: whether 03-04-2024 is April or March must be plain from another line
of the file, or be said.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple
from zoneinfo import ZoneInfo

from fedtwin_client.records.reading import UnusableError
from fedtwin_protocol.errors import RecordError

_TIME = re.compile(
    r"(\d{1,4})([-/.])(\d{1,2})\2(\d{1,4})[T ]+(\d{1,2}):(\d\d)(?::(\d\d)(?:\.\d+)?)?"
    r"(?: ?([AaPp])\.?[Mm]\.?)?(Z|[+-]\d\d:?\d\d)?\Z"
)
TWICE = "a time that the clocks showed twice; taken as the first"


class FileOrder(NamedTuple):
    """How a file writes its times.

    Attributes:
        day_first: whether 03-04-2024 is 3 April; none where years come first.
        newest_first: whether later times stand above.
    """

    day_first: bool | None
    newest_first: bool


def find_order(texts: Iterable[str], day_first: bool | None, what: str) -> FileOrder:
    """Learn from all times of a file how it writes them.

    Args:
        texts: the times, in the file's order.
        day_first: what somebody has said of it; none: nobody has.
        what: the file, for messages.

    Raises:
        RecordError: both orders are possible, or neither.
    """
    day_proved = month_proved = needed = False
    steps = {True: 0, False: 0}
    before: dict[bool, tuple[int, ...]] = {}
    for text in texts:
        match = _TIME.match(text.strip())
        if match is None:
            continue
        if len(match[1]) <= 2:
            needed = True
            day_proved |= int(match[1]) > 12
            month_proved |= int(match[3]) > 12
        for guess in (True, False):
            now = _parts(match, guess)
            earlier = before.get(guess, now)
            steps[guess] += (now > earlier) - (now < earlier)
            before[guess] = now
    if needed and day_first is None:
        if day_proved == month_proved:
            found = "both" if day_proved else "no line that tells"
            raise RecordError(
                f"{what} writes dates such as 03-04-2024: expected all with the day first, or all "
                f"with the month first, found {found}; say --dates day-first or month-first"
            )
        day_first = day_proved
    return FileOrder(day_first if needed else None, steps[bool(day_first)] < 0)


class SensorClock:
    """Brings one patient's times, in the order of the file, to one scale."""

    def __init__(self, zone: ZoneInfo, order: FileOrder) -> None:
        self._zone = zone
        self._order = order
        self._previous: datetime | None = None
        self._second_turn = order.newest_first
        self._seen: set[datetime] = set()

    def read(self, text: str) -> tuple[datetime, str | None]:
        """An aware time, and what is worth a note about it.

        Raises:
            UnusableError: it cannot be read.
        """
        written = _parse(text, self._order.day_first)
        if written.tzinfo is not None:
            return written, None
        first, second = (written.replace(tzinfo=self._zone, fold=fold) for fold in (0, 1))
        difference = (first.utcoffset() or timedelta()) - (second.utcoffset() or timedelta())
        if not difference:
            self._previous, self._second_turn = None, self._order.newest_first
            self._seen.clear()
            return first, None
        if difference < timedelta():
            raise UnusableError("a time that the clocks of this zone skipped: is --zone right?")
        return self._ambiguous(written, first, second)

    def _ambiguous(
        self, written: datetime, first: datetime, second: datetime
    ) -> tuple[datetime, str | None]:
        """An hour that comes twice: a step against the file's direction begins its other turn."""
        back = self._previous is not None and written < self._previous
        ahead = self._previous is not None and written > self._previous
        if ahead if self._order.newest_first else back:
            self._second_turn = not self._order.newest_first
        again = written in self._seen
        self._previous = written
        self._seen.add(written)
        if self._order.newest_first:
            return (second if self._second_turn and not again else first), None
        if self._second_turn or again:
            return second, None
        return first, TWICE


def _parse(text: str, day_first: bool | None) -> datetime:
    match = _TIME.match(text.strip())
    if match is None:
        raise UnusableError("a time that cannot be read" if text.strip() else "no time")
    if match[8] and not 1 <= int(match[5]) <= 12:
        raise UnusableError("a time that cannot be read")
    try:
        plain = datetime(*_parts(match, bool(day_first)))
        return plain.replace(tzinfo=_offset(match[9])) if match[9] else plain
    except ValueError as error:
        raise UnusableError("a date or time that there is not") from error


def _parts(match: re.Match[str], day_first: bool) -> tuple[int, int, int, int, int, int]:
    """Year, month, day, hour, minute and second as they were written."""
    first, second, third = int(match[1]), int(match[3]), int(match[4])
    if len(match[1]) == 4:
        date = first, second, third
    else:
        date = (third, second, first) if day_first else (third, first, second)
    hour = int(match[5])
    if match[8]:
        hour = hour % 12 + (12 if match[8] in "Pp" else 0)
    return (*date, hour, int(match[6]), int(match[7] or 0))


def _offset(text: str) -> timezone:
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    away = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(away if text[0] == "+" else -away)
