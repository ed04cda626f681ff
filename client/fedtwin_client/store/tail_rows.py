"""Rows of the live tail, made of versions of records."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from fedtwin_client.records.blocks import microseconds, row_of
from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store.known_later import later

OUTDATED: Final = "older than what the store has of the record"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
ERASED: Final = "events of patients who are erased here"


class Said(NamedTuple):
    """What a row says, and when that became known, in microseconds."""

    value: tuple[object, ...]
    known: int


def said_by(event: Event) -> tuple[object, ...]:
    """What an event says."""
    return (event.numeric_value, event.comparator, event.unit, event.text_value)


class Rows:
    """Rows to be added, made of versions in order."""

    def __init__(
        self,
        last: int,
        newest: dict[str, int | None],
        said: dict[tuple[str, str], Said],
        erased: frozenset[int],
        now: int,
    ) -> None:
        """Start.

        Args:
            last: the highest number given out.
            newest: when records were changed that come again, microseconds, if that is known.
            said: what live rows of these records say that have a status, by source and code.
            erased: pseudonyms whose events are dropped.
            now: microseconds.
        """
        self._said = said
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
        self._changed.add(origin)
        self._seq += 1
        self._versions.append((self._seq, origin))
        events = list(version.events)
        kept = [event for event in events if event.subject_id not in self._erased]
        for event in kept:
            self._events.append((self._seq, *row_of(self._known(event, before or 0, updated or 0))))
        self._newest[origin] = before if updated is None else updated
        if len(kept) < len(events):
            account["reason", ERASED] += len(events) - len(kept)
            self._newest[origin] = None  # nothing is kept of an erased patient's records

    def _known(self, event: Event, before: int, made: int) -> Event:
        """The event, not known before its value was sent (`known_later`)."""
        own = microseconds(event.available_time)
        if event.status is None or own is None:
            return event
        row, value = (event.source, event.code), said_by(event)
        found = self._said.get(row)
        if found is not None:
            own = later((found.known, before), (own, made), differs=found.value != value)
            event = replace(event, available_time=_EPOCH + own * _MICROSECOND)
        self._said[row] = Said(value, own)
        return event

    def written(self) -> Iterator[tuple[str, Sequence[tuple[object, ...]], str]]:
        """Where rows go, the rows, and what happens where there is such a row."""
        yield "INSERT INTO versions", self._versions, ""
        yield (
            "INSERT INTO newest",
            [(origin, self._newest[origin], self._now) for origin in sorted(self._changed)],
            "ON CONFLICT DO UPDATE SET updated = excluded.updated, seen = excluded.seen",
        )
        yield "INSERT INTO events", self._events, ""
        yield counted(self.account)


def counted(
    account: Mapping[tuple[str, str, str], int],
) -> tuple[str, Sequence[tuple[object, ...]], str]:
    """As `Rows.written`, of how often what happened."""
    return (
        "INSERT INTO account",
        [(*key, times) for key, times in account.items()],
        "ON CONFLICT DO UPDATE SET number = number + excluded.number",
    )
