"""The rules that every door applies: when something happened, and when it was known.

- What has no time, or lies after now, is put aside; no date is ever made up.
- A number is a finite number; booleans and text are not numbers.
- A value of a known code comes in a known unit, or it is put aside.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from fedtwin_client.records.codes.analytes import analyte, analyte_conversion
from fedtwin_client.records.codes.tables import in_use
from fedtwin_client.records.codes.units import SAME, Conversion, normal_unit
from fedtwin_client.records.moments import Moment, read_moment
from fedtwin_client.records.report import Place, Tally

OLDEST_YEAR = 1870
TOO_LARGE = "a number too large for the unit that its code is kept in"
"""What becomes infinite when it is converted."""
# A word of a few letters, or one with a unit's signs: what stands in the wrong field may be a
# patient's name or number.
_LIKE_A_UNIT = re.compile(r"(?!.*\d\D*\d\D*\d\D*\d)(?:\S{1,7}|(?=\S*[/%*^\[\](){}.°])\S{1,12})")


class UnusableError(Exception):
    """A resource, row or cell makes no event.

    Attributes:
        reason: in words; equal reasons are counted together.
        wrong: put it aside for a person to look at; otherwise it is only counted.
    """

    def __init__(self, reason: str, *, wrong: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wrong = wrong


class Number(NamedTuple):
    """A checked value in the unit its code is kept in, and the unit as it was written."""

    value: float
    unit: str | None
    src_unit: str | None


class UnitRule(NamedTuple):
    """What happens to every value of one code in one unit: both units, and the way between them."""

    unit: str | None
    src_unit: str | None
    convert: Conversion


class Times(NamedTuple):
    """When it happened, and when it became known."""

    time: datetime
    available_time: datetime


class Reading:
    """What one import, or one door, hands to everything it reads.

    Args:
        source: the name of the source; the start of every event's `source`.
        zone: of times that name none.
        now: nothing may lie after it; a clock where reading goes on.
        tally: the account.
    """

    def __init__(
        self, *, source: str, zone: ZoneInfo, now: datetime | Callable[[], datetime], tally: Tally
    ) -> None:
        self.source = source
        self.zone = zone
        self.tally = tally
        self._now = now

    @property
    def now(self) -> datetime:
        """The time, aware; nothing may lie after it."""
        return self._now() if callable(self._now) else self._now

    def at(self, now: datetime, tally: Tally | None = None) -> "Reading":
        """The same at one moment, for one message.

        Args:
            now: aware; nothing may lie after it.
            tally: another account; none: the same.
        """
        return Reading(source=self.source, zone=self.zone, now=now, tally=tally or self.tally)

    def unusable(self, error: UnusableError, place: Place, raw: object) -> None:
        """Account for something that makes no event."""
        if error.wrong:
            self.tally.put_aside(error.reason, place, raw)
        else:
            self.tally.skip(error.reason, place)

    def times(self, happened: Iterable[Any], known: Any = None) -> Times:
        """When something happened and became known.

        Args:
            happened: candidates as they were written, best first; the first present one counts.
            known: when it became known, as written; without it, when it happened.

        Raises:
            UnusableError: no time, an unreadable one, or one after now.
        """
        written = next((text for text in happened if text), None)
        if written is None:
            raise UnusableError("no time")
        moment = self.moment(written)
        if not known:
            return Times(moment.start, moment.known)
        return Times(moment.start, self.moment(known).known)

    def moment(self, written: Any) -> Moment:
        """Read one date or time; what is here by now has ended by now.

        Raises:
            UnusableError: it is no date, lies after now, or too long ago to be true.
        """
        return self.past(read_moment(written, self.zone) if isinstance(written, str) else None)

    def refuse_backwards(self, period: Any) -> None:
        """Refuse a FHIR Period that cannot be.

        Raises:
            UnusableError: it ends before it begins.
        """
        ends = (period.get("start"), period.get("end")) if isinstance(period, dict) else ()
        read = [read_moment(end, self.zone) for end in ends if isinstance(end, str)]
        if len(read) == 2 and read[0] and read[1] and read[1].end < read[0].start:
            raise UnusableError("a period that ends before it begins")

    def past(self, moment: Moment | None) -> Moment:
        """A moment that was read, as far as it lies before now.

        Raises:
            UnusableError: there is none, it lies after now, or too long ago to be true.
        """
        if moment is None:
            raise UnusableError("a time that cannot be read")
        self.check(moment.start)
        return replace(moment, end=self.now) if moment.end > self.now else moment

    def check(self, time: datetime) -> None:
        """Refuse a time that cannot be.

        Raises:
            UnusableError: it lies after now, or too long ago to be true.
        """
        if time > self.now:
            raise UnusableError("lies in the future")
        if time.year < OLDEST_YEAR:
            raise UnusableError(f"lies before {OLDEST_YEAR}")


def finite(value: Any) -> float:
    """A finite number.

    Raises:
        UnusableError: something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnusableError("expected a number, found text")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UnusableError("expected a finite number")
    return number


def checked_number(code: str, value: float, unit: str | None) -> Number:
    """Bring a number into the unit that its code is kept in.

    A code this node does not know keeps its unit, in UCUM spelling if the spelling is known.

    Raises:
        UnusableError: a known code with no unit, an unknown one, or one of another kind; or the
            number is too large for its code's unit.
    """
    rule = _remembered_rule(code, unit, in_use().version)
    number = rule.convert(value)
    if not math.isfinite(number):
        raise UnusableError(TOO_LARGE)
    return Number(number, rule.unit, rule.src_unit)


@lru_cache(maxsize=16_384)
def _remembered_rule(code: str, unit: str | None, tables: str) -> UnitRule:
    """Remembered by the version of the tables: few codes and units make nearly all values."""
    del tables
    return unit_rule(code, unit)


def unit_rule(code: str, unit: str | None) -> UnitRule:
    """What `checked_number` does to every value of a code in a unit.

    Raises:
        UnusableError: a known code with no unit, an unknown one, or one of another kind.
    """
    written = unit.strip() if unit and unit.strip() else None
    normal = normal_unit(written)
    known = analyte(code)
    if known is None:
        return UnitRule(normal or written, written, SAME)
    if written is None:
        normal = in_use().assumed.get(code)
        if normal is None and known.bare:
            return UnitRule(known.unit, None, SAME)
        if normal is None:
            raise UnusableError(f"no unit for {known.name}, which is kept in {known.unit}")
    elif normal is None:
        raise UnusableError(f"{_shown(written)} is not known for {known.name}")
    convert = analyte_conversion(code, normal, known.unit)
    if convert is None:
        raise UnusableError(
            f"{_shown(written or normal)} does not fit {known.name}, kept in {known.unit}"
        )
    return UnitRule(known.unit, written, convert)


def _shown(unit: str) -> str:
    """A unit as the report may show it: quoted only if it looks like one."""
    if normal_unit(unit) is not None or _LIKE_A_UNIT.fullmatch(unit):
        return f"unit '{unit}'"
    return "a unit of many letters or several words"
