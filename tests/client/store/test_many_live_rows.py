"""Many live records in one step: none is lost, none comes twice, and numbers stay as they were."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_client.records.blocks import microseconds
from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store import tail
from fedtwin_client.store.tail import OUTDATED, Batch, Tail

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT_ONCE = 200
NAMES = ("zwölf", "with 'quotes' and \"others\"", "\x1b\u2028", "x" * 3000)


def version(number: int, value: float, age: int = 0) -> Version:
    origin = f"ward:{number}{NAMES[number % len(NAMES)]}"
    event = Event(subject_id=number, time=NOW, code="LOINC//8867-4", numeric_value=value,
                  source=f"{origin}#0")  # fmt: skip
    return Version(origin=origin, updated=NOW - timedelta(seconds=age), events=[event])


@pytest.mark.parametrize("number", [0, 1, 3, 4, 63, 64, 65, 85, 150])
def test_every_row_is_there_once(tmp_path: Path, number: int) -> None:
    values = [one / 3 + 1e-17 * one for one in range(number)]
    versions = [version(one, value) for one, value in enumerate(values)]
    with Tail(tmp_path) as tail:
        tail.add([Batch(door="ward", versions=[one]) for one in versions], frozenset(), NOW)
        found = tail.events(0, tail.last())
        assert tail.last() == number
        assert dict(zip(found["source"].to_pylist(), found["numeric_value"].to_pylist(),
                        strict=True)) == {
            f"{one.origin}#0": value for one, value in zip(versions, values, strict=True)
        }  # fmt: skip
        late = [version(one, -1.0, age=1) for one in range(number)]
        tail.add([Batch(door="ward", versions=[one]) for one in late], frozenset(), NOW)
        assert tail.last() == number
        assert tail.account() == ({("ward", "reason", OUTDATED): number} if number else {})


class Doors:
    """Takes something in whenever a long work pauses: fails if the file is still held."""

    def __init__(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._other = Tail(store)
        self._other._db.execute("PRAGMA busy_timeout = 0")
        self.number = 0
        monkeypatch.setattr(tail.time, "sleep", self.pause)

    def pause(self, seconds: float) -> None:
        assert seconds >= 0
        self.number += 1
        again = [version(10_000_000 + self.number, 1.0)]
        self._other.add([Batch(door="ward", versions=again)], frozenset(), NOW)


def test_doors_get_a_turn_while_much_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_AT_ONCE", AT_ONCE)
    many = 5 * AT_ONCE
    old = microseconds(NOW - timedelta(days=31))
    with Tail(tmp_path) as store:
        versions = [version(one, 1.0) for one in range(many)]
        store.add([Batch(door="ward", versions=versions)], frozenset(), NOW)
        rows = [(f"lab:{one}", 1, old) for one in range(many)]
        store._db.executemany("INSERT INTO newest VALUES (?, ?, ?)", rows)
        doors = Doors(tmp_path, monkeypatch)
        store.forget(many - 1, many, [], NOW)
        assert doors.number >= 10, "five turns for the versions, five for what is known of them"
        assert store.last() == many + doors.number
        assert store.rows(0) == 1 + doors.number
        kept = store._db.execute("SELECT count(*) FROM newest").fetchone()
        assert kept == (doors.number,)
