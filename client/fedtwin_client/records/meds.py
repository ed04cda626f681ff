"""A MEDS data set as a source of records.

MEDS (github.com/Medical-Event-Data-Standard/meds, version 0.4.1) is Parquet under `data/`, one row
an event: `subject_id`, `time` (UTC, none for what does not change), `code`, and perhaps
`numeric_value` and `text_value`; further columns are read if they are ours (`available_time`,
`unit`, `comparator`, `status`, `numeric_value_double`). All events of a patient are one record: a
later import of the data set of the same name replaces them. The data set's subject_ids are its own,
so patients get pseudonyms of this site made from them.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from fedtwin_client.records.codes.concepts import standard_code
from fedtwin_client.records.events import DEATH, Event
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.reading import UnusableError, checked_number, finite
from fedtwin_client.records.report import Place
from fedtwin_client.records.source import ByNumber, Desk, OpenSource, Version
from fedtwin_protocol.errors import RecordError

DOUBLE: Final = "numeric_value_double"
"""Column of ours with `numeric_value` in double precision."""
_NEEDED: Final = ("subject_id", "time", "code")
_READ: Final = (
    *_NEEDED,
    "numeric_value",
    "text_value",
    "available_time",
    "unit",
    "comparator",
    "status",
    DOUBLE,
)
_COMPARATORS: Final = {"<", "<=", ">", ">="}
_BATCH: Final = 65_536


def meds_data(folder: Path, name: str) -> OpenSource:
    """A MEDS data set.

    Args:
        folder: with `data/` and perhaps `metadata/`.
        name: of the data set at this site; ids of two data sets do not meet.

    Raises:
        RecordError: it is none.
    """
    files = sorted((folder / "data").rglob("*.parquet"))
    if not files:
        raise RecordError(
            f"expected a MEDS data set, found no Parquet file under {folder / 'data'}: name the "
            "folder that holds 'data' and 'metadata'"
        )
    for file in files:
        _check(file)
    extra = _described(folder / "metadata" / "dataset.json")
    return lambda desk: MedsData(folder, files, f"{name}{extra}", desk)


class MedsData(ByNumber):
    """Reads patient by patient, as the files have them.

    Attributes:
        title: what is imported, in words.
    """

    def __init__(self, folder: Path, files: list[Path], title: str, desk: Desk) -> None:
        self.title = f"MEDS data set {title}"
        self._folder = folder
        self._files = files
        self._reading = desk.reading
        self._pseudonyms = desk.pseudonyms

    def versions(self) -> Iterator[Version]:
        """One version a patient.

        Raises:
            RecordError: a file cannot be read, a patient's rows are not together, or nothing can be
                used.
        """
        used, done = 0, set[int]()
        for file in self._files:
            for theirs, rows in _patients(file):
                if theirs in done:
                    raise RecordError(
                        f"{file}: the rows of subject {theirs} do not stand together in one file, "
                        "as MEDS demands; sort the data set by subject_id, then import it again"
                    )
                done.add(theirs)
                origin = f"{self._reading.source}/{theirs}"
                events = self._events(file, origin, theirs, rows)
                used += len(events)
                yield Version(origin=origin, updated=None, events=events)
        if not used:
            raise RecordError(
                f"found no event in {self._folder} that can be used"
                f"{self._reading.tally.commonest()}; nothing was imported"
            )

    def _events(
        self, file: Path, origin: str, theirs: int, rows: list[tuple[int, dict[str, Any]]]
    ) -> list[Event]:
        subject = self._pseudonyms.of(Identity(self._reading.source, str(theirs)))
        events: list[Event] = []
        for number, row in rows:
            self._reading.tally.read["event"] += 1
            place = Place(str(file.relative_to(self._folder / "data")), number)  # train/0.parquet
            try:
                made = self._event(row, subject, f"{origin}#{len(events)}", place)
            except UnusableError as error:
                self._reading.unusable(error, place, row)
                continue
            events.append(made)
        return events

    def _event(self, row: dict[str, Any], subject: int, source: str, place: Place) -> Event:
        code = standard_code("_".join(str(row["code"] or "").split()))
        if not code:
            raise UnusableError("no code")
        time = self._moment(row["time"])
        if time is None and code == DEATH:
            raise UnusableError("no time")
        comparator = row.get("comparator")
        if comparator is not None and comparator not in _COMPARATORS:
            raise UnusableError("a comparator that is not known")
        written = row.get(DOUBLE) if row.get(DOUBLE) is not None else row.get("numeric_value")
        if written is not None and math.isnan(written):  # which data frames write for nothing
            self._reading.tally.note("NaN read as no number", place)
            written = None
        number = None if written is None else checked_number(code, finite(written), row.get("unit"))
        text = row.get("text_value")
        return Event(
            subject_id=subject,
            time=time,
            code=code,
            numeric_value=None if number is None else number.value,
            text_value=str(text) if text else None,
            available_time=self._moment(row.get("available_time")) or time,
            unit=None if number is None else number.unit,
            src_unit=None if number is None else number.src_unit,
            comparator=comparator,
            source=source,
            status=row.get("status"),
        )

    def _moment(self, written: datetime | None) -> datetime | None:
        if written is None:
            return None
        moment = written.replace(tzinfo=UTC) if written.tzinfo is None else written.astimezone(UTC)
        self._reading.check(moment)
        return moment


def _check(file: Path) -> None:
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"cannot read {file}: {error}; nothing was imported") from error
    absent = [name for name in _NEEDED if name not in schema.names]
    if absent:
        raise RecordError(
            f"{file} lacks the column {', '.join(absent)} of MEDS; it has "
            f"{', '.join(schema.names[:12])}"
        )
    if not pa.types.is_integer(schema.field("subject_id").type):
        raise RecordError(f"{file}: expected whole numbers as subject_id, found another type")
    if not pa.types.is_timestamp(schema.field("time").type):
        raise RecordError(f"{file}: expected timestamps as time, found another type")


def _described(path: Path) -> str:
    """What the data set says of itself, for the title."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot read {path}: {error}; nothing was imported") from error
    called = value.get("dataset_name") if isinstance(value, dict) else None
    return f" ({called[:60]})" if isinstance(called, str) and called else ""


def _patients(file: Path) -> Iterator[tuple[int, list[tuple[int, dict[str, Any]]]]]:
    """The rows of each patient, numbered from 1; a patient whose rows lie apart comes twice."""
    now: int | None = None
    rows: list[tuple[int, dict[str, Any]]] = []
    number = 0
    try:
        with pq.ParquetFile(file) as reader:
            columns = [name for name in _READ if name in reader.schema_arrow.names]
            for batch in reader.iter_batches(batch_size=_BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    subject = row["subject_id"]
                    if subject is None:
                        raise RecordError(f"{file}: row {number} has no subject_id")
                    if subject != now and now is not None:
                        yield now, rows
                        rows = []
                    now = subject
                    rows.append((number, row))
    except (OSError, pa.ArrowException) as error:
        raise RecordError(f"cannot read {file}: {error}; nothing was imported") from error
    if now is not None:
        yield now, rows
