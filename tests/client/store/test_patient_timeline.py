"""One patient's timeline: the same rows as by a question to the whole store, wherever they lie."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.events import Event
from fedtwin_client.records.source import Version
from fedtwin_client.store import commit
from fedtwin_client.store.compaction import compact
from fedtwin_client.store.patient import PatientReader, patient_events
from fedtwin_client.store.staging import BUCKETS, SCHEMA
from fedtwin_client.store.tail import Batch, Tail
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENTS = (3, 9, 1, 4, 2)
"""Of each patient; all are of one bucket."""


def _patient(place: int) -> int:
    return (place + 1) * 2 * BUCKETS


def _add(store: Path, *versions: Version) -> None:
    with Tail(store) as tail:
        tail.add([Batch(door="ward", versions=versions)], frozenset(), NOW)


def _version(place: int, value: float = 1.5) -> Version:
    return Version(
        origin=f"ward:{place}",
        updated=None,
        events=[
            Event(
                subject_id=_patient(place),
                time=NOW - timedelta(hours=number) if number else None,
                code=f"LOINC//{number % 3}",
                numeric_value=value if number % 2 else None,
                text_value=None if number % 2 else f"said {number}",
                available_time=NOW if number % 3 else None,
                unit="/min" if number % 2 else None,
                comparator="<" if number == 1 else None,
                source=f"ward:{place}#{number}",
                status="amended" if number % 4 == 3 else None,
            )
            for number in range(EVENTS[place])
        ],
    )


def _check(store: Path) -> None:
    timeline = Timeline.open(store)
    with PatientReader(timeline) as reader:
        for place in [*range(len(EVENTS)), 0]:
            expected = timeline.events(subjects=[_patient(place)]).cast(SCHEMA)
            found = reader.events(_patient(place))
            found.validate(full=True)
            assert found.equals(expected)
            assert patient_events(timeline, _patient(place)).equals(expected)
        for nobody in (_patient(-1), _patient(0) + BUCKETS, _patient(len(EVENTS)), 1):
            assert not timeline.events(subjects=[nobody]).num_rows
            assert reader.events(nobody).equals(SCHEMA.empty_table())


@pytest.mark.parametrize("bounds", [True, False])
@pytest.mark.parametrize("group", [1, 4, 5, 100])
def test_a_patient_is_read_from_all_row_groups_that_have_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, bounds: bool
) -> None:
    """Also where a file, as of another writer, does not tell which patients its groups hold."""
    monkeypatch.setattr(commit, "_ROW_GROUP", group)
    if not bounds:
        told: Any = ()
        monkeypatch.setattr(commit, "_ORDERED", told)
    _add(tmp_path, *(_version(place) for place in range(len(EVENTS))))
    compact(tmp_path, NOW)
    _check(tmp_path)
    _add(tmp_path, _version(1, 2.5), Version(origin="ward:3", updated=None, events=()))
    _check(tmp_path)
