"""ViewDefinitions: their rows as records and as tables, and every resource accounted for."""

import csv
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.mapped import mapped_file
from fedtwin_client.records.moments import read_zone
from fedtwin_client.records.pseudonyms import Identity, Pseudonyms, pseudonym
from fedtwin_client.records.reading import Reading
from fedtwin_client.records.report import ImportReport, Tally
from fedtwin_client.records.source import Desk
from fedtwin_client.records.views.boundaries import (
    date_boundary,
    decimal_boundary,
    moment_boundary,
)
from fedtwin_client.records.views.writing import write_view
from fedtwin_client.store.imports import import_fhir, import_table
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

from .view_parts import (
    ID,
    JSON_BLOCKS,
    JSON_VALUES,
    NOW,
    PROCEDURE,
    ROOT,
    SECRET,
    YAML_BLOCKS,
    view_of,
)

SYNTHEA = ROOT / "../shared/data/fhir_synthea_r4_shared"


def load(folder: Path, *resources: dict[str, Any], guide: int = 0) -> ImportReport:
    """Import resources by a view and a mapping of the guide."""
    name = ("procedures.json", "reports.json")[guide]
    (folder / name).write_text(JSON_BLOCKS[guide])
    (folder / "map.yaml").write_text(YAML_BLOCKS[guide])
    export = folder / "export.ndjson"
    export.write_text("".join(json.dumps(resource) + "\n" for resource in resources))
    return import_table(export, folder / "map.yaml", folder / "store", secret=SECRET, now=NOW)


def events(folder: Path) -> list[dict[str, Any]]:
    return list(Timeline.open(folder / "store").events().to_pylist())


def test_the_guides_procedures_become_events_of_the_same_patient_as_fhir(tmp_path: Path) -> None:
    patient = {"resourceType": "Patient", "id": "1", "gender": "male", "birthDate": "1950-01-01"}
    (tmp_path / "patient.json").write_text(json.dumps(patient))
    import_fhir([tmp_path / "patient.json"], tmp_path / "store", secret=SECRET, now=NOW)
    report = load(tmp_path, PROCEDURE, patient)
    (event,) = [event for event in events(tmp_path) if event["code"].startswith("SNOMED")]
    assert event["code"] == "SNOMED//232717009"
    assert event["time"] == datetime(2024, 5, 1, 8)
    assert event["subject_id"] == pseudonym(SECRET, Identity("fhir", "Patient/1"))
    assert event["source"] == "table:procedures:Procedure/p1#0/procedure/0"
    assert len({event["subject_id"] for event in events(tmp_path)}) == 1
    assert report.read == {"Procedure": 1, "Patient": 1, "rows": 1}
    assert report.reasons == {"resource type Patient is not read": 1}


def test_a_resource_of_a_day_is_known_as_it_ends(tmp_path: Path) -> None:
    load(tmp_path, PROCEDURE | {"performedDateTime": "2024-05-01"})
    (event,) = events(tmp_path)
    assert (event["time"], event["available_time"]) == (
        datetime(2024, 4, 30, 22),
        datetime(2024, 5, 1, 21, 59, 59),
    )


def test_contained_results_of_the_guide_keep_unit_comparison_and_when_they_were_known(
    tmp_path: Path,
) -> None:
    contained = {
        "resourceType": "Observation",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "valueQuantity": {"value": 200, "unit": "mg/dL"},
    }
    report = {
        "resourceType": "DiagnosticReport",
        "id": "r",
        "status": "final",
        "subject": {"reference": "Patient/1"},
        "effectiveDateTime": "2024-05-01",
        "issued": "2024-05-03T08:00:00Z",
        "contained": [contained, contained | {"valueQuantity": {"value": 3, "unit": "furlong"}}],
    }
    account = load(tmp_path, report, guide=1)
    (event,) = events(tmp_path)
    assert event["code"] == "LOINC//2093-3"
    assert event["numeric_value"] == pytest.approx(5.172, abs=1e-3)
    assert (event["unit"], event["src_unit"]) == ("mmol/L", "mg/dL")
    assert event["available_time"] == datetime(2024, 5, 3, 8)
    assert account.reasons == {"test: unit 'furlong' is not known for total cholesterol": 1}


def test_a_resource_that_the_view_no_longer_picks_is_taken_out(tmp_path: Path) -> None:
    load(tmp_path, PROCEDURE, PROCEDURE | {"id": "p2"})
    report = load(tmp_path, PROCEDURE | {"status": "entered-in-error"})
    assert report.withdrawn == 1
    assert report.reasons == {"the view makes no row of it": 1}
    assert [event["source"].partition("#")[0] for event in events(tmp_path)] == [
        "table:procedures:Procedure/p2"
    ]


def test_a_resource_that_does_not_fit_is_put_aside_and_the_others_are_used(tmp_path: Path) -> None:
    odd = PROCEDURE | {"id": "odd", "performedPeriod": {"start": 7}}
    report = load(tmp_path, odd, PROCEDURE)
    (reason,) = report.reasons
    assert "does not fit the view: select[0].column[1].path" in reason
    assert report.examples[reason] == ("export.ndjson:1",)
    assert report.quarantine is not None
    assert len(events(tmp_path)) == 1


def test_if_none_fits_nothing_is_imported(tmp_path: Path) -> None:
    load(tmp_path, PROCEDURE)
    with pytest.raises(RecordError, match="found no Procedure that the view can read"):
        load(tmp_path, PROCEDURE | {"performedPeriod": {"start": 7}})
    with pytest.raises(RecordError, match="found no Procedure of the view's type"):
        load(tmp_path, {"resourceType": "Patient", "id": "1"})
    assert len(events(tmp_path)) == 1


def test_patients_meet_by_their_number_if_the_mapping_names_its_system(tmp_path: Path) -> None:
    patient = {
        "resourceType": "Patient",
        "id": "1",
        "birthDate": "1950-01-01",
        "identifier": [{"system": "http://h/mrn", "value": "4711"}],
    }
    (tmp_path / "procedures.json").write_text(JSON_BLOCKS[0])
    mapping = YAML_BLOCKS[0].replace("server: fhir", 'server: fhir, system: "http://h/mrn"')
    (tmp_path / "map.yaml").write_text(mapping)
    stranger = PROCEDURE | {"id": "p2", "subject": {"reference": "Patient/2"}}
    lines = [json.dumps(item) + "\n" for item in (PROCEDURE, stranger, patient)]
    (tmp_path / "x.ndjson").write_text("".join(lines))
    report = import_table(
        tmp_path / "x.ndjson", tmp_path / "map.yaml", tmp_path / "store", secret=SECRET, now=NOW
    )
    (event,) = events(tmp_path)
    assert event["subject_id"] == pseudonym(SECRET, Identity("http://h/mrn", "4711"))
    assert report.reasons["refers to a patient that is not known"] == 1


def test_time_is_handed_in_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ({"name": "t", "path": "today()"}, {"name": "i", "path": "id.trace('who')"})
    assert view_of(*columns).rows({"resourceType": "Patient", "id": "7"}) == [
        {"t": "2026-03-01", "i": "7"}
    ]
    assert capsys.readouterr().out == ""


def test_boundaries_beyond_the_official_cases() -> None:
    assert decimal_boundary(Decimal("1.587"), True, 2) == Decimal("1.59")
    assert decimal_boundary(Decimal("-1"), False) == Decimal("-1.5")
    assert decimal_boundary(Decimal("NaN"), False) is None
    assert moment_boundary("2024-02", True) == "2024-02-29T23:59:59.999-12:00"
    assert moment_boundary("2024-02-30", True) is None
    assert date_boundary("2024", True) == "2024-12-31"
    assert date_boundary("2024", False) == "2024-01-01"
    assert moment_boundary("2024-02-03T10:30+01:00", False) == "2024-02-03T10:30:00.000+01:00"


def test_tables_carry_types_lists_and_what_is_missing(tmp_path: Path) -> None:
    ready = view_of(
        ID,
        {"name": "active", "path": "active", "type": "boolean"},
        {"name": "given", "path": "name.given", "type": "string", "collection": True},
        {"name": "births", "path": "multipleBirth.ofType(integer)", "type": "integer"},
        {"name": "free", "path": "multipleBirth.ofType(integer)"},
    )
    patients = [
        {"resourceType": "Patient", "id": "1", "active": False, "name": [{"given": ["A", "B"]}]},
        {"resourceType": "Patient", "id": "2", "multipleBirthInteger": 2},
    ]
    source = tmp_path / "p.ndjson"
    source.write_text("".join(json.dumps(item) + "\n" for item in patients) + "{\n")
    written = write_view(ready, [source], tmp_path / "p.parquet")
    assert pq.read_table(tmp_path / "p.parquet").to_pylist() == [
        {"id": "1", "active": False, "given": ["A", "B"], "births": None, "free": None},
        {"id": "2", "active": None, "given": [], "births": 2, "free": "2"},
    ]
    assert (written.rows, written.unreadable) == (2, {"not a JSON object": 1})
    write_view(ready, [source], tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["1", "false", '["A", "B"]', "", ""],
            ["2", "", "[]", "2", "2"],
        ]
    assert (tmp_path / "p.csv").stat().st_mode & 0o077 == 0


def test_a_table_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "p.ndjson").write_text('{"resourceType": "Patient", "birthDate": [1, 2]}\n')
    (tmp_path / "p.csv").write_text("older\n")
    ready = view_of({"name": "b", "path": "birthDate", "type": "date"})
    with pytest.raises(RecordError, match=r"does not fit the Patient at p\.ndjson:1"):
        write_view(ready, [tmp_path / "p.ndjson"], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "older\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "p.ndjson"]
    with pytest.raises(RecordError, match=r"ending in \.parquet or \.csv"):
        write_view(ready, [tmp_path / "p.ndjson"], tmp_path / "p.xlsx")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30).filter(lambda line: b"\n" not in line and b"\r" not in line),
            st.sampled_from(
                [b"{}", b"[1]", b'{"resourceType": "Patient"}', b'{"resourceType": 1}']
            ),
            st.dictionaries(st.sampled_from(["id", "status", "code"]), JSON_VALUES).map(
                lambda parts: json.dumps(PROCEDURE | parts).encode()
            ),
        ),
        max_size=6,
    )
)
def test_whatever_stands_in_a_file_every_line_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.ndjson").write_bytes(b"".join(line + b"\n" for line in lines))
    (folder / "procedures.json").write_text(JSON_BLOCKS[0])
    (folder / "any.yaml").write_text(YAML_BLOCKS[0])
    opening, _, _ = mapped_file(folder / "any.ndjson", folder / "any.yaml")
    tally = Tally(quarantine=None)
    reading = Reading(source="table:any", zone=read_zone("UTC"), now=NOW, tally=tally)
    source = opening(Desk(reading=reading, pseudonyms=Pseudonyms(SECRET), known={}))
    versions = []
    try:
        versions += source.versions()
    except RecordError as error:
        assert "nothing was imported" in str(error)  # noqa: PT017 - it need not be raised
    made = sum(1 for version in versions for _ in version.events)
    resources = {kind: count for kind, count in tally.read.items() if kind != "rows"}
    written = sum(bool(line.strip()) for line in lines)
    none = ("not a JSON object", "not UTF-8 text", "no resourceType")
    unread = sum(tally.reasons[reason] for reason in none)
    assert written == sum(resources.values()) + unread
    others = sum(n for reason, n in tally.reasons.items() if reason.endswith("is not read"))
    assert resources.get("Procedure", 0) == sum(resources.values()) - others
    without = sum(
        count
        for reason, count in tally.reasons.items()
        if reason.startswith(("does not fit", "the view makes no row"))
    )
    assert made <= tally.read["rows"] <= made + tally.reasons.total() - unread - others - without


def test_tables_hold_references_codes_and_when_they_became_known(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "who,day,told,system,code,value,unit\n"
        "Patient/1,2024-01-01,2024-01-05,http://loinc.org,2093-3,200,mg/dL\n"
        "1,2024-01-02,,LOINC,2093-3,<5.1,mmol/L\n"
        "1,2024-01-03,never,LOINC,2093-3,5.1,mmol/L\n"
        "1,2024-01-04,,,2093-3,5.1,mmol/L\n"
        "1,2024-01-05,,LOINC,2093-3,,mmol/L\n"
        "1,2024-01-06,,LOINC,2093-3,5.1,\n"
    )
    (tmp_path / "m.yaml").write_text(
        "name: long\nsubject: {column: who, server: fhir}\ntime: {column: day}\n"
        "known: {column: told}\ncolumns:\n"
        "  code: {kind: code, system_column: system, value_column: value, unit_column: unit}\n"
    )
    report = import_table(
        tmp_path / "t.csv", tmp_path / "m.yaml", tmp_path / "store", secret=SECRET, now=NOW
    )
    first, second = events(tmp_path)
    assert {first["subject_id"], second["subject_id"]} == {
        pseudonym(SECRET, Identity("fhir", "Patient/1"))
    }
    assert (first["available_time"], second["available_time"]) == (
        datetime(2024, 1, 5, 23, 59, 59),
        datetime(2024, 1, 2),
    )
    assert (second["code"], second["comparator"]) == ("LOINC//2093-3", "<")
    assert report.reasons == {
        "a time that cannot be read": 1,
        "code: system: a code without its system": 1,
        "code: value: not recorded": 1,
        "code: no unit for total cholesterol, which is kept in mmol/L": 1,
    }


@pytest.mark.skipif(not SYNTHEA.is_dir(), reason="the shared data sets are not here")
def test_every_procedure_of_a_synthetic_hospital_is_accounted_for(tmp_path: Path) -> None:
    bundle = min((SYNTHEA / "bundles").iterdir(), key=lambda file: file.stat().st_size)
    (tmp_path / "procedures.json").write_text(JSON_BLOCKS[0])
    (tmp_path / "map.yaml").write_text(YAML_BLOCKS[0])
    report = import_table(bundle, tmp_path / "map.yaml", tmp_path / "s", secret=SECRET, now=NOW)
    others = sum(count for kind, count in report.read.items() if kind not in {"Procedure", "rows"})
    assert report.read["rows"] == report.events
    assert report.unused == others + report.read["Procedure"] - report.read["rows"]
    assert report.events > 0
