"""What everything in one HL7 v2 message shares: rules, sender, time, the names of records."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache

from fedtwin_client.records.hl7.text import Message, Segment
from fedtwin_client.records.hl7.times import offset_of, read_timestamp
from fedtwin_client.records.moments import Moment
from fedtwin_client.records.reading import Reading, Times, UnusableError
from fedtwin_client.records.report import Tally

_LONGEST = 200
_CORRECTIONS = {"C", "A", "B"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """One message's circumstances.

    Attributes:
        reading: the import's rules and account.
        kind: type of the message (MSH-9), such as `ORU`.
        application: that sent it (MSH-3), for codes of its own.
        sender: application and facility, for its records' names.
        zone: of times that name no offset.
        sent: when (MSH-7); none if that cannot be read.
    """

    reading: Reading
    kind: str
    application: str
    sender: str
    zone: tzinfo
    sent: datetime | None

    @property
    def tally(self) -> Tally:
        """The account."""
        return self.reading.tally

    def origin(self, *parts: str) -> str:
        """The name of a record: the source, what, and what it is known by."""
        return f"{self.reading.source}:{'/'.join([_quoted(part) for part in parts])}"

    def unusable(self, error: UnusableError, segment: Segment) -> None:
        """Account for a segment that makes no event; wrong ones set their message aside."""
        if error.wrong:
            self.tally.wrong(error.reason, segment.place)
        else:
            self.tally.skip(error.reason, segment.place)

    def moment(self, text: str) -> Moment:
        """Read one date or time.

        Raises:
            UnusableError: it is none, lies after now, or too long ago to be true.
        """
        return self._checked(read_timestamp(text, self.zone))

    def day(self, text: str) -> Moment:
        """Read a date of life, which is one of the hospital's days wherever it was written.

        Raises:
            UnusableError: it is none, lies after now, or too long ago to be true.
        """
        return self._checked(read_timestamp(text, self.reading.zone))

    def _checked(self, moment: Moment | None) -> Moment:
        return self.reading.past(moment)

    def known(self, text: str, segment: Segment) -> datetime | None:
        """When something was reported; none, with a note, if that cannot be read."""
        if not text:
            return None
        try:
            return self.told(self.moment(text))
        except UnusableError:
            self.tally.note("a time of report that cannot be used", segment.place)
            return None

    def reported(
        self, obx: Segment, ordered: datetime | None, status: str
    ) -> tuple[datetime | None, ...]:
        """When a result was told: by its order (OBR-22), or else when it was sent.

        It was analysed (OBX-19) before anybody was told. A correction often repeats the times of
        what it corrects, so that only the message says when it came.
        """
        analysed = self.known(obx.text(19), obx)
        if ordered is None or status in _CORRECTIONS:
            return analysed, ordered, self.sent
        return analysed, ordered

    def told(self, moment: Moment) -> datetime:
        """When something of that moment was known: what a message tells, before it was sent."""
        sent = self.sent
        return moment.known if sent is None or sent < moment.start else min(moment.known, sent)

    def times(self, happened: Moment, *reported: datetime | None) -> Times:
        """When something happened and became known.

        Args:
            happened: as written.
            reported: when it was reported; the latest counts. Nothing is known before it happens.
        """
        said = [time for time in reported if time is not None]
        return Times(happened.start, max(happened.start, *said) if said else self.told(happened))


def context_of(message: Message, reading: Reading) -> Context:
    """The circumstances of a message, from MSH."""
    header = message.header
    written = header.text(7)
    zone = _zone(written, reading)
    sent = _sent(written, zone, reading, header)
    application, facility = header.text(3), header.text(4)
    return Context(
        reading=reading,
        kind=message.kind[:3],
        application=_quoted(application),
        sender=f"{application}@{facility}" if facility else application,
        zone=zone,
        sent=sent,
    )


def _zone(written: str, reading: Reading) -> tzinfo:
    """The zone that MSH-7 names; the hospital's own, with its summer times, if they agree."""
    offset = offset_of(written)
    moment = None if offset is None else read_timestamp(written, reading.zone)
    if offset is None or moment is None:
        return reading.zone
    agree = moment.start.astimezone(reading.zone).utcoffset() == offset.utcoffset(None)
    return reading.zone if agree else offset


def _sent(text: str, zone: tzinfo, reading: Reading, header: Segment) -> datetime | None:
    """What is here was sent: a clock that runs ahead says no later than now."""
    moment = read_timestamp(text, zone) if text else None
    if moment is None or moment.start.year < 1980:
        reading.tally.note("a message without a time (MSH-7) that can be used", header.place)
        return None
    if moment.start > reading.now:
        reading.tally.note("a message from the future (MSH-7): is a clock wrong?", header.place)
        return None
    return moment.known


@lru_cache(maxsize=4_096)
def _quoted(text: str) -> str:
    """Text that may stand in a record's name."""
    if len(text) > _LONGEST:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16)
        text = f"{text[:_LONGEST]}~{digest.hexdigest()}"
    if text.isalnum():
        return text
    for mark, code in (("%", "%25"), ("/", "%2F"), ("#", "%23")):
        if mark in text:
            text = text.replace(mark, code)
    return " ".join(text.split())
