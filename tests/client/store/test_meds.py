"""MEDS data sets: what goes out is valid by the standard's own package, and comes back the same."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedtwin_client.records.meds import meds_data
from fedtwin_client.store.export import export_meds
from fedtwin_client.store.imports import import_fhir, import_source
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
VALUES = ("time", "code", "numeric_value", "text_value", "available_time", "unit", "comparator")


def observation(number: int, patient: int, **fields: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": str(number),
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": f"2024-05-0{number % 9 + 1}",
        "issued": "2024-06-01T00:00:00Z",
        "valueQuantity": {"value": 7.8 + number, "unit": "mmol/L", "comparator": "<"},
    } | fields


def filled(folder: Path) -> Timeline:
    resources = [observation(n, n % 7) for n in range(40)]
    resources += [
        {"resourceType": "Patient", "id": str(n), "birthDate": "1960-01-02", "gender": "female"}
        for n in range(7)
    ]
    file = folder / "records.ndjson"
    file.write_text("".join(json.dumps(one) + "\n" for one in resources))
    import_fhir([file], folder / "store", secret=SECRET, now=NOW)
    return Timeline.open(folder / "store")


def load(folder: Path, store: Path, name: str = "other") -> Any:
    opening = meds_data(folder, name)
    return import_source(opening, store, secret=SECRET, now=NOW, source=f"meds:{name}", zone="UTC")


def data_set(folder: Path, **columns: Any) -> Path:
    (folder / "data" / "train").mkdir(parents=True)
    plain = {
        "subject_id": pa.array([1, 1, 2], pa.int64()),
        "time": pa.array([None, datetime(2020, 1, 1), datetime(2020, 1, 2)], pa.timestamp("us")),
        "code": ["SEX", "LAB//1", "LAB//1"],
        "numeric_value": pa.array([None, 1.5, float("nan")], pa.float32()),
    } | columns
    table = pa.table({name: value for name, value in plain.items() if value is not None})
    pq.write_table(table, folder / "data" / "train" / "0.parquet")
    return folder


def test_an_export_is_valid_by_the_standard_s_own_package(tmp_path: Path) -> None:
    timeline = filled(tmp_path)
    assert export_meds(timeline, tmp_path / "out", NOW) == (54, 7)
    seen: set[int] = set()
    for file in (tmp_path / "out" / "data").iterdir():
        table = pq.read_table(file)
        meds.DataSchema.validate(table)
        subjects = table["subject_id"].to_pylist()
        assert not seen & set(subjects)
        assert subjects == sorted(subjects)
        seen |= set(subjects)
        assert oct(file.stat().st_mode)[-3:] == "600"
    assert len(seen) == 7
    metadata = tmp_path / "out" / "metadata"
    meds.CodeMetadataSchema.validate(pq.read_table(metadata / "codes.parquet"))
    splits = pq.read_table(metadata / "subject_splits.parquet")
    meds.SubjectSplitSchema.validate(splits)
    assert set(splits["subject_id"].to_pylist()) == seen
    meds.DatasetMetadataSchema.validate(json.loads((metadata / "dataset.json").read_text()))


def test_what_went_out_comes_back_the_same(tmp_path: Path) -> None:
    timeline = filled(tmp_path)
    export_meds(timeline, tmp_path / "out", NOW)
    report = load(tmp_path / "out", tmp_path / "again")
    back = Timeline.open(tmp_path / "again").events()

    def content(table: pa.Table) -> list[Any]:
        return sorted(zip(*(table[name].to_pylist() for name in VALUES), strict=True), key=repr)

    assert (report.events, report.patients, report.unused) == (54, 7, 0)
    assert content(back) == content(timeline.events())
    assert 7.8 in back["numeric_value"].to_pylist()


def test_a_data_set_of_somebody_else(tmp_path: Path) -> None:
    report = load(data_set(tmp_path / "set"), tmp_path / "store")
    assert (report.events, report.patients) == (3, 2)
    assert report.notes == {"NaN read as no number": 1}
    again = load(tmp_path / "set", tmp_path / "store")
    assert (again.events, Timeline.open(tmp_path / "store").rows) == (3, 3)


def test_what_cannot_be_used_is_put_aside_with_its_row(tmp_path: Path) -> None:
    folder = data_set(
        tmp_path / "set",
        code=["SEX", "LOINC//2093-3", None],
        time=pa.array(
            [datetime(2030, 1, 1), datetime(2020, 1, 1), None], pa.timestamp("us", tz="UTC")
        ),
    )
    with pytest.raises(RecordError, match="that can be used: "):
        load(folder, tmp_path / "store")
    other = data_set(tmp_path / "more", code=["SEX", "LOINC//2093-3", "LAB//1"])
    report = load(other, tmp_path / "store")
    assert report.reasons == {"no unit for total cholesterol, which is kept in mmol/L": 1}
    assert report.examples["no unit for total cholesterol, which is kept in mmol/L"] == (
        "train/0.parquet:2",
    )
    assert report.quarantine is not None


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"code": None}, "lacks the column code of MEDS"),
        ({"subject_id": ["a", "a", "b"]}, "whole numbers as subject_id"),
        ({"time": ["x", "y", "z"]}, "timestamps as time"),
        ({"subject_id": pa.array([1, 2, 1])}, "do not stand together"),
        ({"subject_id": pa.array([1, None, 1])}, "row 2 has no subject_id"),
    ],
)
def test_what_is_no_meds_is_refused(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(RecordError, match=says):
        load(data_set(tmp_path / "set", **columns), tmp_path / "store")


def test_a_folder_without_data_and_one_that_is_not_empty(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="name the folder that holds 'data'"):
        meds_data(tmp_path, "other")
    timeline = filled(tmp_path)
    with pytest.raises(RecordError, match="expected a new or empty folder"):
        export_meds(timeline, tmp_path, NOW)
