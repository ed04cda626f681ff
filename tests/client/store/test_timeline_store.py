"""The timeline store: all or nothing, replacement, order, and readers at the same time."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.report import ImportReport
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.manifest import read_manifest
from fedtwin_client.store.staging import SCHEMA
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32


def value(number: int, patient: int, amount: float, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": str(number),
        "status": "final",
        "code": {"coding": [{"code": "x"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": amount, "unit": "kg"},
    } | fields


def load(folder: Path, resources: list[dict[str, Any]]) -> ImportReport:
    file = folder / "records.ndjson"
    file.write_text("".join(json.dumps(item) + "\n" for item in resources))
    return import_fhir([file], folder / "store", secret=SECRET, now=NOW)


def amounts(folder: Path) -> list[float]:
    table = Timeline.open(folder / "store").events()
    return sorted(table["numeric_value"].to_pylist())


def test_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="fedtwin client records"):
        Timeline.open(tmp_path)


def test_events_are_chosen_by_code_and_patient_and_sorted(tmp_path: Path) -> None:
    resources = [value(n, n % 3, float(n), effectiveDateTime=f"2024-05-0{9 - n}") for n in range(9)]
    load(tmp_path, [item | {"id": f"o{item['id']}"} for item in resources])
    timeline = Timeline.open(tmp_path / "store")
    table = timeline.events(codes=["LOCAL//x"])
    assert table.schema.names == SCHEMA.names
    assert (table.num_rows, timeline.rows) == (9, 9)
    assert timeline.codes() == [("LOCAL//x", "kg", 9, 3)]
    subject = table["subject_id"][0].as_py()
    chosen = timeline.events(subjects=[subject])
    times = chosen["time"].to_pylist()
    assert (chosen.num_rows, times) == (3, sorted(times))
    assert timeline.events(codes=[]).num_rows == 0


def test_a_subject_lies_in_one_file_with_the_stated_types(tmp_path: Path) -> None:
    load(tmp_path, [value(n, n % 20, 1.0) for n in range(100)])
    load(tmp_path, [value(n + 100, n % 20, 1.0) for n in range(100)])
    manifest = read_manifest(tmp_path / "store")
    assert manifest is not None
    seen: set[int] = set()
    for file in manifest.files:
        table = pq.read_table(tmp_path / "store" / file.path)
        subjects = set(table["subject_id"].to_pylist())
        assert {subject % 64 for subject in subjects} == {file.bucket}
        assert not subjects & seen
        assert [field.type for field in table.schema if field.name != "text_value"] == [
            field.type for field in SCHEMA if field.name != "text_value"
        ]
        seen |= subjects
    assert len(seen) == 20


def test_a_newer_import_replaces_and_withdraws(tmp_path: Path) -> None:
    load(tmp_path, [value(1, 1, 10.0), value(2, 2, 20.0), value(3, 3, 30.0)])
    report = load(tmp_path, [value(1, 1, 11.0), value(2, 2, 0.0, status="entered-in-error")])
    assert amounts(tmp_path) == [11.0, 30.0]
    assert (report.events, report.withdrawn) == (1, 1)


def test_a_record_that_moves_to_another_patient_leaves_the_first(tmp_path: Path) -> None:
    load(tmp_path, [value(1, 1, 10.0), value(2, 1, 20.0)])
    load(tmp_path, [value(1, 2, 10.0)])
    timeline = Timeline.open(tmp_path / "store")
    assert amounts(tmp_path) == [10.0, 20.0]
    assert len(set(timeline.events()["subject_id"].to_pylist())) == 2


def test_a_reader_keeps_its_state_while_an_import_runs(tmp_path: Path) -> None:
    load(tmp_path, [value(1, 1, 10.0)])
    before = Timeline.open(tmp_path / "store")
    load(tmp_path, [value(1, 1, 11.0)])
    assert before.events()["numeric_value"].to_pylist() == [10.0]
    assert amounts(tmp_path) == [11.0]


def test_old_files_do_not_pile_up(tmp_path: Path) -> None:
    for amount in range(5):
        load(tmp_path, [value(1, 1, float(amount))])
    assert len(list((tmp_path / "store/events").iterdir())) <= 2


# A child process is killed at one step of its import: while it stages, between two buckets, and
# just before and just after the manifest is put in place.
_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from fedtwin_client.store import commit, imports, staging
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
step = sys.argv[1]
if step == "staging":
    staging.Staging.flush = die
elif step == "between buckets":
    whole = commit._write_bucket
    calls = []
    def some(*args):
        calls.append(1)
        return whole(*args) if len(calls) < 3 else die()
    commit._write_bucket = some
elif step == "before the manifest":
    commit.write_manifest = die
elif step == "half a manifest":
    def sync(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.is_file() and b"fedtwin-timeline" in path.read_bytes():
            die()
    os.fsync = sync
else:
    imports.Tally.report = die
imports.import_fhir([Path(sys.argv[2])], Path(sys.argv[3]), secret=b"\\x07" * 32,
    now=datetime(2026, 3, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize(
    ("step", "taken_over"),
    [
        ("staging", False),
        ("between buckets", False),
        ("before the manifest", False),
        ("half a manifest", False),
        ("after the manifest", True),
    ],
)
def test_a_killed_import_is_all_or_nothing(tmp_path: Path, step: str, taken_over: bool) -> None:
    old = [value(n, n, 1.0) for n in range(20)]
    new = [value(n, n, 2.0) for n in range(30)]
    load(tmp_path, old)
    file = tmp_path / "new.ndjson"
    file.write_text("".join(json.dumps(item) + "\n" for item in new))
    arguments = [sys.executable, "-c", _KILLED, step, str(file), str(tmp_path / "store")]
    killed = subprocess.run(arguments, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert amounts(tmp_path) == ([2.0] * 30 if taken_over else [1.0] * 20)
    load(tmp_path, new)
    assert amounts(tmp_path) == [2.0] * 30
    assert not (tmp_path / "store/staging").exists()


def test_a_second_import_at_the_same_time_waits_for_nobody(tmp_path: Path) -> None:
    import fcntl

    load(tmp_path, [value(1, 1, 1.0)])
    handle = os.open(tmp_path / "store/lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(RecordError, match="another import"):
        load(tmp_path, [value(1, 1, 2.0)])
    os.close(handle)
    assert amounts(tmp_path) == [1.0]


def test_a_damaged_manifest_and_lost_files_are_named(tmp_path: Path) -> None:
    load(tmp_path, [value(1, 1, 1.0)])
    store = tmp_path / "store"
    next((store / "events").iterdir()).unlink()
    with pytest.raises(RecordError, match="restore the folder"):
        Timeline.open(store)
    (store / "manifest.json").write_text("{")
    with pytest.raises(RecordError, match="damaged"):
        Timeline.open(store)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(RecordError, match="cannot write to"):
        load(tmp_path, [value(1, 1, 1.0)])


@settings(max_examples=8, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, 3), st.floats(0, 9), st.booleans()),
            min_size=1,
            max_size=6,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_series_of_imports_ends_in_the_last_word_on_each_record(
    tmp_path_factory: pytest.TempPathFactory, imports: list[list[tuple[int, int, float, bool]]]
) -> None:
    folder = tmp_path_factory.mktemp("series")
    expected: dict[int, float] = {}
    for batch in imports:
        for number, _, amount, withdrawn in batch:
            expected.pop(number, None)
            if not withdrawn:
                expected[number] = amount
        load(
            folder,
            [value(n, p, a, status="entered-in-error" if w else "final") for n, p, a, w in batch],
        )
    assert amounts(folder) == sorted(expected.values())
