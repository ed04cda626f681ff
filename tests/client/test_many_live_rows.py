"""Many live records in one step: none is lost, none comes twice, and numbers stay as they were."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store.tail import OUTDATED, Batch, Tail

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
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
