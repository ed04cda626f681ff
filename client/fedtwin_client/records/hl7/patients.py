"""Whose message it is (PID), and what it says of the patient: birth, sex, death.

Each of the three is a record of its own, which a later message replaces. As chapter 2 has it, an
absent field says nothing, and a null (`""`) empties what was said before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fedtwin_client.records.events import BIRTH, DEATH, SEX, Event
from fedtwin_client.records.hl7.context import Context
from fedtwin_client.records.hl7.text import NULL, Segment, part, subparts
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.source import Version

_SEXES = {
    "M": "male", "F": "female", "O": "other", "A": "other",
    "MALE": "male", "FEMALE": "female", "OTHER": "other",
}  # fmt: skip
_UNKNOWN = {"U", "UNKNOWN"}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Whose:
    """Which of a patient's numbers is the one.

    Attributes:
        authority: assigning authority (CX-4: its name or universal id); none: any.
        kind: type of number (CX-5, HL7 table 0203); numbers without a type count where none has it.
        system: the identifier system that stands for the numbers of `authority`, or, without one,
            for numbers that name none; none: the authority, or the source.
        merges: whether the feed is believed when it says that two numbers are one patient: it is
            the hospital's own master patient index, or what passes its messages on.
    """

    authority: str | None = None
    kind: str = "MR"
    system: str | None = None
    merges: bool = False


@dataclass(frozen=True, slots=True)
class _Number:
    value: str
    authority: tuple[str, ...]
    kind: str
    universal: str


def identity_of(
    segment: Segment, whose: Whose, source: str, fields: Sequence[int] = (3, 2, 4)
) -> Identity:
    """The patient's number: from PID-3, or else PID-2 and PID-4, where versions to 2.3 have it.

    Args:
        segment: PID, or MRG.
        whose: which number to take.
        source: stands for the authority where none is named.
        fields: where it may stand, best first.

    Raises:
        UnusableError: there is none, or there are several.
    """
    for field in fields:
        numbers = list(_numbers(segment, field))
        if numbers:
            return _identity(_chosen(numbers, whose), whose, source)
    raise UnusableError(f"no patient number in {segment.name}-{fields[0]}")


def _numbers(pid: Segment, field: int) -> Iterator[_Number]:
    for repetition in pid.repetitions(field):
        value = part(repetition, 1, pid.marks)
        if not value:
            continue
        name, *rest = subparts(repetition, 4, pid.marks)
        universal = rest[0] if rest else ""
        kind = part(repetition, 5, pid.marks).upper()
        authority = tuple(text.upper() for text in (name, universal) if text)
        oid = universal if len(rest) > 1 and rest[1].upper() == "ISO" else ""
        yield _Number(value, authority, kind, f"urn:oid:{oid}" if oid else name or universal)


def _chosen(numbers: list[_Number], whose: Whose) -> _Number:
    if whose.authority is not None:
        wanted = whose.authority.removeprefix("urn:oid:").upper()
        numbers = [number for number in numbers if wanted in number.authority]
        if not numbers:
            raise UnusableError(f"no patient number of the authority '{whose.authority}'")
    of_kind = [number for number in numbers if number.kind == whose.kind.upper()]
    of_kind = of_kind or [number for number in numbers if not number.kind]
    if not of_kind:
        raise UnusableError(
            f"no patient number of type {whose.kind}; say which type counts (--number-type)"
        )
    if len(set(of_kind)) > 1:
        raise UnusableError("several patient numbers; say whose counts (--authority)")
    return of_kind[0]


def _identity(number: _Number, whose: Whose, source: str) -> Identity:
    joined = whose.authority is not None or not number.authority
    if whose.system and joined:
        return Identity(whose.system, number.value)
    return Identity(number.universal or source, number.value)


def patient_of(pid: Segment, context: Context, whose: Whose) -> Identity:
    """Who the patient is.

    Raises:
        UnusableError: no number, or several.
    """
    source = context.reading.source
    identity = identity_of(pid, whose, source)
    if whose.system and whose.authority is None and identity.system != whose.system:
        context.tally.note(
            f"patient numbers of an authority of their own; --authority joins them "
            f"with {whose.system}",
            pid.place,
        )
    return identity


def traits(pid: Segment, subject: int, context: Context) -> Iterator[Version]:
    """Birth (PID-7), sex (PID-8) and death (PID-29, PID-30), each if the message speaks of it.

    That a patient lives is believed of ADT alone: other systems fill PID-30 with N from habit. And
    that somebody does not know the sex says nothing against those who do.
    """
    made = ((7, BIRTH, _birth), (8, SEX, _sex), (29, DEATH, _death))
    for field, code, make in made:
        if code == SEX and pid.text(8).upper() in _UNKNOWN:
            context.tally.skip("a sex that the sender does not know", pid.place)
            continue
        alive = code == DEATH and context.kind == "ADT" and pid.text(30).upper() == "N"
        if not pid.raw(field).strip() and not alive:
            if code == DEATH and pid.text(30).upper() == "Y":
                context.tally.note("a death without a date", pid.place)
            continue
        origin = context.origin("patient", str(subject), code)
        event = None
        if pid.raw(field).strip() != NULL and not (alive and not pid.text(29)):
            try:
                event = make(pid, subject, f"{origin}#0", context)
            except UnusableError as error:
                context.unusable(UnusableError(f"PID-{field}: {error.reason}"), pid)
        events = [] if event is None else [event]
        yield Version(origin=origin, updated=context.sent, events=events)


class Said:
    """What this feed's messages have said of patients: nearly all repeat it word for word."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[datetime, Event | None]] = {}

    def is_news(self, version: Version) -> bool:
        """Whether a version of a trait says something else than the newest one before it."""
        event = next(iter(version.events), None)
        time = version.updated or _LONG_AGO
        before = self._newest.get(version.origin)
        if before is not None and time < before[0]:
            return False
        self._newest[version.origin] = (time, event)
        return before is None or before[1] != event


def _birth(pid: Segment, subject: int, source: str, context: Context) -> Event:
    born = context.day(pid.text(7))
    if born.precision in {"year", "month"}:
        context.tally.note(f"birth known only to the {born.precision}", pid.place)
    time = born.start
    return Event(subject_id=subject, time=time, code=BIRTH, source=source, available_time=time)


def _sex(pid: Segment, subject: int, source: str, context: Context) -> Event | None:
    written = pid.text(8).upper()
    if written in {"N", ""}:
        return None
    if written not in _SEXES:
        raise UnusableError("a sex that is none of HL7 table 0001")
    text = _SEXES[written]
    return Event(subject_id=subject, time=None, code=SEX, source=source, text_value=text)


def _death(pid: Segment, subject: int, source: str, context: Context) -> Event:
    """A death known only by its date is put at the end of that day, but not after now."""
    died = context.day(pid.text(29))
    if pid.text(30).upper() == "N":
        raise UnusableError("a date of death of a patient who is not dead (PID-30)")
    time = min(died.end, context.reading.now)
    return Event(subject_id=subject, time=time, code=DEATH, source=source, available_time=time)
