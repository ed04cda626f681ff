"""Columns without gaps are written as such, and files that differ in it are read together."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from fedtwin_client.at_rest.tables import open_tables
from fedtwin_client.records.events import Event
from fedtwin_client.store.commit import take_over
from fedtwin_client.store.manifest import Manifest
from fedtwin_client.store.origins import Origins
from fedtwin_client.store.patient import patient_events
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.staging import SCHEMA, Staging
from fedtwin_client.store.timeline import Timeline

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FULL, GAPS = 1, 2


def store_of(folder: Path) -> Timeline:
    """One patient's events all have a time and a number, the other's have not."""
    events = [
        Event(
            subject_id=who,
            time=None if who == GAPS and day == 1 else datetime(2026, 1, day, tzinfo=UTC),
            code="LOINC//2339-0",
            source=f"file:{who}#{day}",
            numeric_value=None if who == GAPS and day == 2 else float(day),
            available_time=datetime(2026, 1, day, tzinfo=UTC),
        )
        for who in (FULL, GAPS)
        for day in (1, 2, 3)
    ]
    (folder / "staging").mkdir()
    before = Manifest()
    staging = Staging(folder / "staging", Origins(before.names_key))
    for origin, theirs in (("file:1", events[:3]), ("file:2", events[3:])):
        staging.add(staging.version(origin, None), theirs)
    staging.flush()
    take_over(folder, staging, before, None, origin="made up", now=NOW)
    return Timeline.open(folder)


def full(path: Path) -> set[str]:
    return {field.name for field in pq.read_schema(path) if not field.nullable}


def test_files_that_differ_in_their_gaps_are_read_together(tmp_path: Path) -> None:
    timeline = store_of(tmp_path)
    files = [file.opened(timeline.folder, None) for file in timeline.manifest.files]
    said = [full(path) for path, _ in files]
    always = {"subject_id", "code", "available_time", "source"}
    assert said == [always | {"time", "numeric_value"}, always]
    for order in (files, files[::-1]):
        assert open_tables(order, SCHEMA).to_table().num_rows == 6
    assert timeline.events()["numeric_value"].null_count == 1
    for who in (FULL, GAPS):
        assert patient_events(timeline, who).schema.equals(SCHEMA)
    rows = [piece.table.num_rows for piece in PatientColumns(timeline=timeline).pieces(["unit"])]
    assert rows == [3, 3]
