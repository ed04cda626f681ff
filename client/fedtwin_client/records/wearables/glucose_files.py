"""Exports of continuous glucose monitors as a source: Clarity, LibreView, CareLink, plain tables.

A reading is known by patient, kind and time, so that exports may overlap. A sensor that says `Low`
or `High` has measured less or more than it can show: Dexcom G6 and G7 show 40 to 400 mg/dL (Dexcom
user guides), FreeStyle Libre 40 to 500 mg/dL (Abbott user manuals; some models 400, which can be
said). What no sensor shows (below 20 or above 600 mg/dL) is in another unit than was said.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from fedtwin_client.records.events import Event
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import Number, UnusableError, checked_number, finite
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_client.records.wearables.sensor_layouts import METER, SENSOR, Cell, Layout, find_layout
from fedtwin_client.records.wearables.sensor_times import FileOrder, SensorClock, find_order
from fedtwin_protocol.errors import RecordError

Progress = Callable[[int, int], None]
_NUMBER = re.compile(r"(<=|>=|<|>)?\s*(\d+(?:[.,]\d+)?)\Z")
_WORDS = {"low": "<", "lo": "<", "high": ">", "hi": ">"}
_PLAUSIBLE = (20.0, 600.0)
_PREAMBLE = 16
_TOTALS = "a day's total of automatic insulin, which is no dose"
_LONGEST_LINE = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class GlucoseOptions:
    """What the file itself does not say.

    Attributes:
        patient: whose readings they are; none where a column says so.
        system: whose number that is; none: of this source alone.
        unit: of glucose where the file names none: `mg/dL` or `mmol/L`.
        day_first: whether 03-04-2024 is 3 April; none: the file's other dates say so.
        highest: above it the sensor says `High`, mg/dL; none: as its maker says.
    """

    patient: str | None = None
    system: str | None = None
    unit: str | None = None
    day_first: bool | None = None
    highest: float | None = None


@dataclass(slots=True)
class _Person:
    subject: int
    clock: SensorClock
    seen: dict[tuple[str, datetime], str] = field(default_factory=dict)


class _Line(NamedTuple):
    place: Place
    cells: list[str]


def glucose_file(
    path: Path, options: GlucoseOptions, progress: Progress | None = None
) -> OpenSource:
    """One export of a glucose monitor.

    Args:
        path: CSV.
        options: what the file itself does not say.
        progress: told bytes read and bytes to read, now and then.

    Raises:
        RecordError: there is no such file.
    """
    if not path.is_file():
        raise RecordError(f"expected an export of a glucose monitor, found no file {path}")
    return lambda desk: GlucoseFile(path, options, desk, progress)


class GlucoseFile(ByNumber):
    """Reads one export, twice: first how it writes its times, then its readings.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(
        self, path: Path, options: GlucoseOptions, desk: Desk, progress: Progress | None
    ) -> None:
        self.title = "glucose readings"
        self._path = path
        self._options = options
        self._reading = desk.reading
        self._pseudonyms = desk.pseudonyms
        self._progress = progress
        self._people: dict[str, _Person] = {}

    def versions(self) -> Iterator[Version]:
        """Every reading.

        Raises:
            RecordError: the file is no known export, or holds nothing of use.
        """
        used = 0
        try:
            encoding = _encoding(self._path)
            with self._path.open(encoding=encoding, newline="") as file:
                skip, layout, delimiter = self._layout(file)
            self.title = f"glucose readings ({layout.name})"
            with self._path.open(encoding=encoding, newline="") as file:
                order = self._order(file, skip, layout, delimiter)
            with self._path.open(encoding=encoding, newline="") as file:
                for line in self._lines(file, skip, layout, delimiter):
                    for version in self._line(line, layout, order):
                        used += 1
                        yield version
        except OSError as error:
            raise RecordError(f"cannot read {self._path}: {error.strerror}") from error
        except UnicodeError as error:
            raise RecordError(
                f"{self._path} is not UTF-8 text; save it as 'CSV UTF-8'. Nothing was imported"
            ) from error
        if not used:
            raise RecordError(
                f"found no reading in {self._path} that can be used"
                f"{self._reading.tally.commonest()}; nothing was imported"
            )

    def _layout(self, file: TextIO) -> tuple[int, Layout, str]:
        first = list(islice(_short_lines(file, self._path), _PREAMBLE))
        for delimiter in ",;\t":
            try:
                rows = list(csv.reader(first, delimiter=delimiter))
                found = find_layout(rows, self._options.unit)
            except csv.Error:
                continue
            if found is not None:
                self._refuse_strangers(found[1])
                return found[0] + 1, found[1], delimiter
        raise RecordError(
            f"{self._path} is none of the exports that are read: Dexcom Clarity, LibreView, "
            "Medtronic CareLink (in English), or a table with the columns id, time and gl; for "
            "others write a mapping and use 'records table'"
        )

    def _refuse_strangers(self, layout: Layout) -> None:
        if layout.patient is None and self._options.patient is None:
            raise RecordError(
                f"{self._path} ({layout.name}) does not say whose readings they are: say --patient"
            )
        if layout.patient is not None and self._options.patient is not None:
            raise RecordError(
                f"{self._path} says in the column '{layout.names[layout.patient]}' whose readings "
                "they are: leave --patient out"
            )

    def _order(self, file: TextIO, skip: int, layout: Layout, delimiter: str) -> FileOrder:
        rows = _safely(csv.reader(_short_lines(file, self._path), delimiter=delimiter))
        times = (
            layout.written_time(row)
            for row in islice(rows, skip, None)
            if len(row) > max(layout.time, layout.clock or 0)
        )
        return find_order(times, self._options.day_first, str(self._path))

    def _lines(self, file: TextIO, skip: int, layout: Layout, delimiter: str) -> Iterator[_Line]:
        """Lines with the right number of cells; the others are put aside."""
        tally = self._reading.tally
        size = self._path.stat().st_size
        reader = csv.reader(_short_lines(file, self._path), delimiter=delimiter, strict=True)
        done = 0
        totals = False
        while True:
            before = reader.line_num
            place = Place(self._path.name, before + 1)
            try:
                cells = next(reader, None)
            except csv.Error as error:
                if before >= skip:
                    tally.read["rows"] += 1
                    swallowed = f"lines {before + 1} to {reader.line_num}"
                    tally.put_aside(f"not CSV: {error}", place, swallowed)
                continue
            if cells is None:
                return
            done += 1 + sum(map(len, cells)) + len(cells)
            if self._progress is not None and reader.line_num % 10_000 == 0:
                self._progress(min(done, size), size)
            if reader.line_num <= skip or not any(cell.strip() for cell in cells):
                continue
            section = layout.section(cells)
            if section is not None:
                totals = "Aggregated" in section or (totals and not section)
                continue
            tally.read["rows"] += 1
            if totals:
                tally.skip(_TOTALS, place)
            elif len(cells) < len(layout.names) or any(cells[len(layout.names) :]):
                reason = f"expected {len(layout.names)} cells, found {min(len(cells), 10_000)}"
                tally.put_aside(reason, place, delimiter.join(cells))
            else:
                yield _Line(place, cells)

    def _line(self, line: _Line, layout: Layout, order: FileOrder) -> Iterator[Version]:
        cells = layout.cells(line.cells)
        if not cells:
            self._reading.tally.skip(layout.why_not(line.cells), line.place)
            return
        for cell in cells:
            try:
                person = self._person(line, layout, order)
                time, noted = self._time(line, layout, person)
                yield self._version(cell, layout, person, time)
            except UnusableError as error:
                self._reading.unusable(error, line.place, line.cells)
                continue
            if noted is not None:
                self._reading.tally.note(noted, line.place)

    def _time(self, line: _Line, layout: Layout, person: _Person) -> tuple[datetime, str | None]:
        time, noted = person.clock.read(layout.written_time(line.cells))
        self._reading.check(time)
        return time.astimezone(UTC), noted

    def _person(self, line: _Line, layout: Layout, order: FileOrder) -> _Person:
        named = self._options.patient
        if layout.patient is not None:
            named = line.cells[layout.patient].strip()
        if not named:
            raise UnusableError("no patient")
        person = self._people.get(named)
        if person is None:
            system = self._options.system or self._reading.source
            subject = self._pseudonyms.of(Identity(system, named))
            clock = SensorClock(self._reading.zone, order)
            person = self._people[named] = _Person(subject, clock)
        return person

    def _version(self, cell: Cell, layout: Layout, person: _Person, time: datetime) -> Version:
        highest = self._options.highest or layout.highest
        number, comparator = read_value(cell, layout.lowest, highest)
        before = person.seen.get((cell.part, time))
        if before is not None:
            if before == cell.text:
                raise UnusableError("repeats an earlier reading", wrong=False)
            raise UnusableError("another value at the time of an earlier reading")
        person.seen[cell.part, time] = cell.text
        part = f"{cell.part}/{time:%Y%m%dT%H%M%SZ}"
        origin = f"{self._reading.source}:reading/{person.subject}/{part}"
        event = Event(
            subject_id=person.subject,
            time=time,
            code=cell.code,
            numeric_value=number.value,
            available_time=time,
            unit=number.unit,
            src_unit=number.src_unit,
            comparator=comparator,
            source=f"{origin}#0",
        )
        return Version(origin=origin, updated=None, events=[event])


def read_value(cell: Cell, lowest: float, highest: float) -> tuple[Number, str | None]:
    """A value with its comparator, in the unit that its code is kept in.

    Args:
        cell: as it was written.
        lowest: below it the sensor says `Low`, mg/dL.
        highest: above it the sensor says `High`, mg/dL.

    Raises:
        UnusableError: it is none, or cannot be what it is said to be.
    """
    glucose = cell.code in {SENSOR, METER}
    word = _WORDS.get(cell.text.lower()) if glucose else None
    if word is not None:
        limit = lowest if word == "<" else highest
        return checked_number(cell.code, limit, "mg/dL")._replace(src_unit=cell.unit), word
    match = _NUMBER.match(cell.text)
    if match is None:
        raise UnusableError("expected a number, Low or High" if glucose else "expected a number")
    number = checked_number(cell.code, finite(float(match[2].replace(",", "."))), cell.unit)
    low, high = (checked_number(SENSOR, limit, "mg/dL").value for limit in _PLAUSIBLE)
    if glucose and not low <= number.value <= high:
        raise UnusableError(f"no sensor shows that in {cell.unit}: is it in another unit?")
    return number, match[1]


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    return "utf-16" if start in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"


def _short_lines(file: TextIO, path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise RecordError(f"{path} has a line longer than 1 MiB: it is no export of readings")
        yield line.replace("\0", "�")


def _safely(rows: Iterator[Sequence[str]]) -> Iterator[Sequence[str]]:
    """Rows, passing over what is not CSV; the second reading accounts for it."""
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:
            continue
