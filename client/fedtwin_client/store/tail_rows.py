"""Rows of the live tail: of what came in, and back as tables."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa

from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store.staging import SCHEMA

OUTDATED: Final = "an older version of a record than one that came before"
ERASED: Final = "events of patients who are erased here"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Rows:
    """Rows to be added, made of versions in order."""

    def __init__(
        self, last: int, newest: dict[str, int | None], erased: frozenset[int], now: int
    ) -> None:
        self._seq, self._newest, self._erased, self._now = last, newest, erased, now
        self._versions: list[tuple[int, str]] = []
        self._events: list[tuple[object, ...]] = []
        self._changed: set[str] = set()
        self.asides: list[tuple[object, ...]] = []
        self.account: Counter[tuple[str, str, str]] = Counter()

    def take(self, version: Version, account: Counter[tuple[str, str]]) -> None:
        """Add a version, unless it is older than one that came before."""
        origin, updated = version.origin, microseconds(version.updated)
        before = self._newest.get(origin)
        if before is not None and updated is not None and before > updated:
            account["reason", OUTDATED] += 1
            return
        self._newest[origin] = before if updated is None else updated
        self._changed.add(origin)
        self._seq += 1
        self._versions.append((self._seq, origin))
        for event in version.events:
            if event.subject_id in self._erased:
                account["reason", ERASED] += 1
            else:
                self._events.append((self._seq, *_row(event)))

    def written(self) -> Iterator[tuple[str, Sequence[tuple[object, ...]], str]]:
        """Where rows go, the rows, and what happens where there is such a row."""
        yield "INSERT INTO versions", self._versions, ""
        yield (
            "INSERT INTO newest",
            [(origin, self._newest[origin], self._now) for origin in sorted(self._changed)],
            "ON CONFLICT DO UPDATE SET updated = excluded.updated, seen = excluded.seen",
        )
        yield "INSERT INTO events", self._events, ""
        yield (
            "INSERT INTO account",
            [(*key, times) for key, times in self.account.items()],
            "ON CONFLICT DO UPDATE SET number = number + excluded.number",
        )


def _row(event: Event) -> tuple[object, ...]:
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


def table_of(rows: Sequence[tuple[object, ...]]) -> pa.Table:
    """Rows of one thing at least, with the columns of the store's schema."""
    columns = zip(zip(*rows, strict=True), SCHEMA, strict=True)
    return pa.Table.from_arrays(
        [pa.array(column, type=field.type) for column, field in columns], schema=SCHEMA
    )


def microseconds(time: datetime | None) -> int | None:
    """Since 1970; none of none."""
    return None if time is None else (time - _EPOCH) // _MICROSECOND


def moment(us: int | None) -> datetime | None:
    """The time of so many microseconds since 1970; none of none."""
    return None if us is None else _EPOCH + us * _MICROSECOND
