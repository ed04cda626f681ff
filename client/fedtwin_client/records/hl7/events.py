"""HL7 v2 messages into events: results (ORU, OUL, ADT), patients, diagnoses and medications.

Chapter 7: a result is known by its order (the filler's number, or else the placer's), the panel
(OBR-4), what was observed (OBX-3) and the sub-id (OBX-4); a corrected, deleted or wrong one
replaces what was sent before. OBX-1 is only its line in the message, and names nothing.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from fedtwin_client.records.codes.analytes import analyte
from fedtwin_client.records.events import Event
from fedtwin_client.records.hl7.codes import is_local, read_coded
from fedtwin_client.records.hl7.context import Context, context_of
from fedtwin_client.records.hl7.merges import is_merge, merge
from fedtwin_client.records.hl7.orders import READ, Order, diagnosis, medication, number_of
from fedtwin_client.records.hl7.patients import Said, Whose, patient_of, traits
from fedtwin_client.records.hl7.text import Message, Segment, plain
from fedtwin_client.records.hl7.values import Value, read_values
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms
from fedtwin_client.records.reading import Reading, UnusableError
from fedtwin_client.records.source import Version
from fedtwin_client.records.whole import Whole

RESULTS = {"ORU", "OUL", "ADT"}
TYPES = RESULTS | set(READ)
REMOVAL = "asks to delete a patient"
"""How the reason begins that waits for a person, and is no fault of a message."""
_KIND = re.compile(r"[A-Z0-9]{2,4}(\^[A-Z0-9]{1,4})?\Z")
# HL7 table 0085: what FHIR calls it (HL7 v2-to-FHIR, concept map of table 0085).
_STATUS = {
    "": None, "F": "final", "C": "corrected", "P": "preliminary", "R": "preliminary",
    "S": "preliminary", "A": "amended", "B": "appended", "U": "final", "V": "final",
}  # fmt: skip
_WITHDRAWN = {"D": "deleted", "W": "wrong", "X": "no result can be had"}
_NOTHING_YET = {
    "I": "no result yet (specimen in the laboratory)", "O": "describes the order, no result",
    "N": "was not asked for",
}  # fmt: skip
_REMOVALS = {"A23", "A29"}
_ORDERS = {"ORC", "RXO", "RXE"}
_TOLD_ELSEWHERE = {"MSH", "EVN", "PID", "ORC", "OBR", "SPM", "MRG"}


@dataclass(slots=True)
class _Order:
    """What an OBR, with its ORC and SPM, says of the results after it."""

    number: str
    panel: str
    observed: str
    reported: datetime | None
    status: str
    place: Segment | None
    results: int = 0


class Hl7Reader:
    """Reads the messages of one feed."""

    def __init__(self, reading: Reading, pseudonyms: Pseudonyms, whose: Whose) -> None:
        """Start a reader.

        Args:
            reading: the import's rules and account.
            pseudonyms: gives out subject_ids.
            whose: which of a patient's numbers counts.
        """
        self._reading = reading
        self._pseudonyms = pseudonyms
        self._whose = whose
        self._said = Said()

    def read(self, message: Message) -> list[Version]:
        """The new versions of the records that a message speaks of.

        A message of which anything is wrong is set aside as a whole, with all that is.
        """
        tally = Whole(self._reading.tally)
        versions = self._versions(message, self._reading.at(self._reading.now, tally))
        tally.end(message.place, message.written)
        return versions

    def _versions(self, message: Message, reading: Reading) -> list[Version]:
        kind = message.kind
        kind = kind if _KIND.match(kind) else "of no known type"
        tally = reading.tally
        tally.read[kind] += 1
        if message.continued:
            tally.note("a line without a segment's name, read with the one before", message.place)
        if kind[:3] not in TYPES:
            tally.skip(f"messages {kind} are not read", message.place)
            return []
        if message.header.text(11).upper() == "T":
            tally.note("a message marked as training (MSH-11)", message.place)
        context = context_of(message, reading)
        return list(
            _Walk(message, kind, context, self._pseudonyms, self._whose, self._said).versions()
        )


class _Walk:
    """One way through a message's segments."""

    def __init__(
        self,
        message: Message,
        kind: str,
        context: Context,
        pseudonyms: Pseudonyms,
        whose: Whose,
        said: Said,
    ) -> None:
        self._message = message
        self._said = said
        self._type, _, self._event = kind.partition("^")
        self._context = context
        self._pseudonyms = pseudonyms
        self._whose = whose
        self._identity: Identity | None = None
        self._subject: int | None = None
        self._traits: list[str] = []
        self._common: Segment | None = None
        self._specimen: Segment | None = None
        self._specimens = _following(message, "SPM", {"OBR"}, {"OBR", "ORC", "PID"})
        self._timings = _following(message, "TQ1", _ORDERS, {*_ORDERS, "PID"})
        self._lines: dict[str, list[str]] = {}
        self._visit = ""
        self._orders = [_Order("", "", "", None, "", None)]
        self._found: dict[str, list[Event]] = {}
        self._doors: dict[str, Callable[[Segment], None]] = {
            "ORC": self._order_control,
            "OBR": self._order,
            "SPM": self._take_specimen,
            "MRG": self._merge,
            "PV1": self._visited,
        }
        if self._type in RESULTS:
            self._doors["OBX"] = self._result
        if self._type == "ADT":
            self._doors["DG1"] = self._diagnosis
        if self._type in READ:
            self._doors[READ[self._type][0]] = self._medication

    def versions(self) -> Iterator[Version]:
        context = self._context
        if self._event in _REMOVALS and self._type == "ADT":
            header = self._message.header
            reason = f"{REMOVAL}; 'client records erase' does that for a person"
            context.tally.wrong(reason, header.place)
            return
        for segment in self._message.segments[1:]:
            if segment.name == "PID":
                yield from self._patient(segment)
                continue
            door = self._doors.get(segment.name)
            if door is not None:
                door(segment)
            elif segment.name not in _TOLD_ELSEWHERE:
                context.tally.skip(f"segment {segment.name} is not read", segment.place)
        for order in self._orders:
            if order.place is not None and not order.results:
                context.tally.skip("an order without results", order.place.place)
        for origin, found in self._found.items():
            events = [self._with_lines(event) for event in found]
            yield Version(origin=origin, updated=context.sent, events=events)

    def _patient(self, pid: Segment) -> Iterator[Version]:
        self._identity, self._subject, self._visit = None, None, pid.text(18)
        self._traits = []
        self._common = self._specimen = None
        self._orders.append(_Order("", "", "", None, "", None))
        try:
            self._identity = patient_of(pid, self._context, self._whose)
        except UnusableError as error:
            self._context.tally.wrong(error.reason, pid.place)
            return
        self._subject = self._pseudonyms.of(self._identity)
        for version in traits(pid, self._subject, self._context):
            self._traits.append(version.origin.rpartition("/")[2])
            if self._said.is_news(version):
                yield version

    def _merge(self, segment: Segment) -> None:
        """Two patients who are one: of the former nothing stays that PID has said of the other."""
        context = self._context
        if self._type != "ADT" or not is_merge(self._event):
            context.tally.skip("segment MRG is not read", segment.place)
            return
        if self._identity is None:
            context.tally.skip("of a patient who cannot be told", segment.place)
            return
        former = merge(segment, self._event, self._identity, self._whose, context, self._pseudonyms)
        if former is not None:
            for code in self._traits:
                self._found.setdefault(context.origin("patient", str(former), code), [])

    def _visited(self, segment: Segment) -> None:
        self._visit = segment.text(19) or self._visit
        self._context.tally.skip("segment PV1 is not read", segment.place)

    def _order_control(self, segment: Segment) -> None:
        self._common = segment

    def _take_specimen(self, segment: Segment) -> None:
        """In OUL a specimen comes before its orders, in ORU after an order's results."""
        self._specimen = segment
        if self._type == "OUL":
            self._orders.append(_Order("", "", segment.text(17), None, "", None))

    def _order(self, segment: Segment) -> None:
        if self._type not in RESULTS:
            self._context.tally.skip("orders of examinations are not read", segment.place)
            return
        context = self._context
        specimen = self._specimen if self._type == "OUL" else self._specimens.get(id(segment))
        observed = segment.text(7) or ("" if specimen is None else specimen.text(17))
        self._orders.append(
            _Order(
                number=number_of(segment, (3, 2)) or number_of(self._common, (3, 2)),
                panel=segment.text(4) or segment.text(4, 2),
                observed=observed,
                reported=context.known(segment.text(22), segment),
                status=segment.text(25).upper(),
                place=segment,
            )
        )
        self._common = None

    def _result(self, obx: Segment) -> None:
        """One OBX; what it makes, perhaps nothing, replaces what was sent of it before."""
        order, context = self._orders[-1], self._context
        order.results += 1
        if self._subject is None:
            context.tally.skip("of a patient who cannot be told", obx.place)
            return
        status = obx.text(11).upper() or _of_order(order.status)
        try:
            _refuse_silent(obx, status)
            origin = self._origin(obx, order, self._subject)
        except UnusableError as error:
            context.unusable(error, obx)
            return
        events = self._found.setdefault(origin, [])
        try:
            self._observe(obx, order, status, (origin, events))
        except UnusableError as error:
            context.unusable(error, obx)

    def _origin(self, obx: Segment, order: _Order, subject: int) -> str:
        what = obx.text(3) or obx.text(3, 4)
        if not what:
            raise UnusableError("no code")
        context = self._context
        if order.number:
            known_by = [order.number, order.panel, what, obx.text(4)]
        else:
            time = obx.text(14) or order.observed
            known_by = ["patient", str(subject), what, obx.text(4), time]
        return context.origin("result", context.sender, *known_by)

    def _observe(
        self, obx: Segment, order: _Order, status: str, record: tuple[str, list[Event]]
    ) -> None:
        """Add the events of one OBX to its record.

        Raises:
            UnusableError: it makes none.
        """
        context, (origin, events) = self._context, record
        if status in _WITHDRAWN:
            raise UnusableError(f"withdrawn ({_WITHDRAWN[status]})", wrong=False)
        if status not in _STATUS:
            raise UnusableError("a result status (OBX-11) that is none of HL7 table 0085")
        code = _observed_code(obx, context)
        written = obx.text(14) or order.observed
        if not written:
            raise UnusableError("no time")
        times = context.times(
            context.moment(written), *context.reported(obx, order.reported, status)
        )
        assert self._subject is not None
        lines = obx.text(2).upper() in {"TX", "FT"} and analyte(code) is None
        values = [Value()] if lines else list(read_values(obx, code, context))
        made = [
            Event(
                subject_id=self._subject,
                time=times.time,
                code=code,
                source=f"{origin}#{number}",
                numeric_value=value.numeric_value,
                text_value=value.text_value,
                available_time=times.available_time,
                unit=value.unit,
                src_unit=value.src_unit,
                comparator=value.comparator,
                status=_STATUS[status],
            )
            for number, value in enumerate(values, start=len(events))
        ]
        if lines:
            self._add_lines(obx, made[0], events)
            return
        events += made
        if not status:
            context.tally.note("a result without its status (OBX-11)", obx.place)

    def _add_lines(self, obx: Segment, made: Event, events: list[Event]) -> None:
        """A report's lines of text, one OBX each, are one answer."""
        lines = [plain(text, obx.marks).rstrip() for text in obx.repetitions(5)]
        if not any(lines):
            raise UnusableError("no value was recorded", wrong=False)
        last = events[-1] if events else None
        if last is None or last.time != made.time or last.source not in self._lines:
            last = made
            events.append(last)
        self._lines.setdefault(last.source, []).extend(lines)

    def _with_lines(self, event: Event) -> Event:
        lines = self._lines.get(event.source)
        return event if lines is None else replace(event, text_value="\n".join(lines))

    def _diagnosis(self, segment: Segment) -> None:
        if self._subject is None:
            self._context.tally.skip("of a patient who cannot be told", segment.place)
            return
        for origin, events in diagnosis(segment, self._visit, self._subject, self._context):
            self._found.setdefault(origin, []).extend(_renumbered(events, self._found[origin]))

    def _medication(self, segment: Segment) -> None:
        coding = READ[self._type][1]
        if self._subject is None:
            self._context.tally.skip("of a patient who cannot be told", segment.place)
            return
        order = Order(
            self._common, self._timings.get(id(segment)) or self._timings.get(id(self._common))
        )
        try:
            origin, events = medication(segment, coding, order, self._subject, self._context)
        except UnusableError as error:
            self._context.unusable(error, segment)
            return
        self._found.setdefault(origin, []).extend(_renumbered(events, self._found[origin]))


def _renumbered(events: list[Event], before: list[Event]) -> list[Event]:
    """Events of a record that a message names twice, each under a number of its own."""
    known = {(event.subject_id, event.time, event.code) for event in before}
    fresh = [event for event in events if (event.subject_id, event.time, event.code) not in known]
    return [
        replace(event, source=f"{event.source.partition('#')[0]}#{len(before) + number}")
        for number, event in enumerate(fresh)
    ]


def _following(message: Message, name: str, of: set[str], ends: set[str]) -> dict[int, Segment]:
    """The first segment of a name after each of some others, before their group ends."""
    found: dict[int, Segment] = {}
    following: Segment | None = None
    for segment in reversed(message.segments):
        if segment.name == name:
            following = segment
        if segment.name in of and following is not None:
            found[id(segment)] = following
        if segment.name in ends:
            following = None
    return found


def _of_order(status: str) -> str:
    """A result's status by that of its order (OBR-25, HL7 table 0123), where they mean the same."""
    return status if status in {"F", "C", "P", "R", "X"} else ""


def _refuse_silent(obx: Segment, status: str) -> None:
    """Refuse what says nothing of a result, so that an earlier one stays."""
    if status in _NOTHING_YET:
        raise UnusableError(_NOTHING_YET[status], wrong=False)
    if status == "U" and not obx.raw(5):
        raise UnusableError("has become final, without the value that was sent before", wrong=False)


def _observed_code(obx: Segment, context: Context) -> str:
    coded = read_coded(obx.repetitions(3)[0], obx.marks, context.application)
    if not coded.codes:
        raise UnusableError("no code")
    code = coded.codes[0]
    if is_local(code):
        context.tally.note("code of a local vocabulary", obx.place)
        if coded.unnamed:
            context.tally.note(
                "a code that looks like LOINC, but names no coding system (OBX-3)", obx.place
            )
    return code
