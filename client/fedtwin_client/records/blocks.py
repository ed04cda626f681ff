"""Many versions of records at once, as columns: the quick way from a source into the store."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Source

SCHEMA: Final = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float64()),
        ("text_value", pa.large_string()),
        ("available_time", pa.timestamp("us")),
        ("unit", pa.string()),
        ("src_unit", pa.string()),
        ("comparator", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
    ]
)
VERSION: Final = pa.field("version", pa.int64())
EVENTS: Final = SCHEMA.append(VERSION)
REPEATED: Final = ("code", "unit", "src_unit", "comparator", "status")
"""Columns in which few texts come often; they may come as dictionaries."""
CODED_EVENTS: Final = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), field.type)) if field.name in REPEATED else field
        for field in EVENTS
    ]
)
VERSIONS: Final = pa.schema([VERSION, ("origin", pa.string()), ("updated", pa.int64())])
LAST: Final = -1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Versions with the events that they make.

    Attributes:
        versions: `VERSIONS`: numbers from 0 to the number of versions less one, in the order of
            the source; origin; when it was last changed (microseconds, 0 if the source does not
            say).
        events: `EVENTS` or `CODED_EVENTS`; `version` is the number of the version that makes it,
            or `LAST` for the last version of the blocks before.
    """

    versions: pa.Table
    events: pa.Table


@runtime_checkable
class BlockSource(Source, Protocol):
    """A source that also hands its records over as blocks."""

    def blocks(self) -> Iterator[Block]:
        """What `versions` yields, in the same order, with the same account in the tally.

        Raises:
            RecordError: as `versions`.
            ReadAgainError: what it must know before came late; only where the desk allows that.
        """


def microseconds(time: datetime | None) -> int | None:
    """Microseconds since 1970."""
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def row_of(event: Event) -> tuple[object, ...]:
    """An event's values in the order of `SCHEMA`, times in microseconds since 1970."""
    return (
        event.subject_id,
        microseconds(event.time),
        event.code,
        event.numeric_value,
        event.text_value,
        microseconds(event.available_time),
        event.unit,
        event.src_unit,
        event.comparator,
        event.source,
        event.status,
    )


def event_table(events: Iterable[tuple[int, Event]]) -> pa.Table:
    """Events, each with the number of its version, as a table with the columns of `EVENTS`."""
    rows = [(*row_of(event), version) for version, event in events]
    return rows_table(rows, EVENTS)


def rows_table(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.Table:
    """Rows as a table."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [
        pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def coded(events: pa.Table) -> pa.Table:
    """The events with the columns of `REPEATED` as dictionaries."""
    for name in REPEATED:
        if not pa.types.is_dictionary(events.schema.field(name).type):
            place = events.schema.get_field_index(name)
            events = events.set_column(place, name, pc.dictionary_encode(events[name]))
    return events
