"""ViewDefinitions: wrong ones, odd resources, tables, and their rows as records."""

import csv
import json
import re
from datetime import UTC, datetime
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
from fedtwin_client.records.views.definition import parse_view, read_view
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_client.records.views.writing import write_view
from fedtwin_client.store.imports import import_fhir, import_table
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
ROOT = Path(__file__).parents[2]
SYNTHEA = ROOT / "../shared/data/fhir_synthea_r4_shared"
GUIDE = (ROOT / "docs" / "sources" / "views.md").read_text()
JSON_BLOCKS = re.findall(r"^```json\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
ID = {"name": "id", "path": "id", "type": "id"}
PROCEDURE: dict[str, Any] = {
    "resourceType": "Procedure",
    "id": "p1",
    "status": "completed",
    "subject": {"reference": "Patient/1"},
    "performedPeriod": {"start": "2024-05-01T10:00:00+02:00"},
    "code": {
        "coding": [
            {"system": "http://snomed.info/sct", "code": "232717009"},
            {"system": "http://h/local", "code": "CABG"},
        ]
    },
}


def view_of(*columns: dict[str, Any], **more: Any) -> View:
    written = {"resource": "Patient", "select": [{"column": list(columns)}], **more}
    return View(parse_view(written, "v.json"), "v.json", NOW)


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


def test_nesting_without_end_is_a_sentence(tmp_path: Path) -> None:
    item: dict[str, Any] = {"linkId": "0"}
    for number in range(1, 400):
        item = {"linkId": str(number), "item": [item]}
    repeated = {
        "resource": "QuestionnaireResponse",
        "select": [{"repeat": ["item"], "column": [{"name": "link", "path": "linkId"}]}],
    }
    ready = View(parse_view(repeated, "v"), "v", NOW)
    rows = ready.rows({"resourceType": "QuestionnaireResponse", "item": [item]})
    assert [row["link"] for row in rows] == [str(number) for number in range(399, -1, -1)]
    select: dict[str, Any] = {"column": [ID]}
    for _ in range(700):
        select = {"select": [select]}
    with pytest.raises(RecordError, match=r"v\.json"):
        View(parse_view({"resource": "Patient", "select": [select]}, "v.json"), "v.json", NOW)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ({}, "resource: is missing"),
        ({"resource": "Patient", "select": []}, "at least one entry under 'select'"),
        ({"resource": "Patient", "select": [{}]}, r"select\[0\]: expected 'column'"),
        ({"resource": "Patient", "slect": []}, "slect: unknown key"),
        (
            {"resource": "Patient", "select": [{"column": [ID | {"type": "Coding"}]}]},
            r"select\[0\].column\[0\].type: expected a primitive type",
        ),
        (
            {"resource": "Patient", "select": [{"forEach": "a", "repeat": ["b"], "column": [ID]}]},
            "expected one of 'forEach'",
        ),
        ({"resource": "Patient", "select": [{"column": [ID, ID]}]}, "called id"),
        (
            {
                "resource": "Patient",
                "constant": [{"name": "c", "valueInteger": "1"}],
                "select": [{"column": [ID]}],
            },
            r"constant\[0\]: 'valueInteger' is no integer",
        ),
        ([], "is not a JSON object"),
    ],
)
def test_a_wrong_view_names_the_file_and_the_key(written: Any, says: str) -> None:
    with pytest.raises(RecordError, match=says) as raised:
        parse_view(written, "v.json")
    assert "v.json" in str(raised.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("name.", "not FHIRPath: at character 6"),
        ("name given", "did not expect 'given'"),
        ("a)", r"did not expect '\)'"),
        ("@@", "is not FHIRPath"),
        ("'open", "is not FHIRPath"),
        ("name.frist()", r"the function 'frist\(\)', which is not known"),
        ("name.where(use = %u)", "uses %u, and 'constant' has no 'u'"),
        ("(" * 4000 + "1" + ")" * 4000, "nested too deeply"),
    ],
)
def test_a_wrong_expression_is_found_before_any_resource(path: str, says: str) -> None:
    with pytest.raises(RecordError, match=says) as raised:
        view_of(ID, {"name": "x", "path": path})
    assert "select[0].column[1].path in the view v.json" in str(raised.value)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"path": "name", "type": "string"}, "an element with parts"),
        ({"path": "name.given", "type": "string"}, "found 2 values; write 'collection: true'"),
        ({"path": "active", "type": "integer"}, "is of type integer, found true or false"),
        ({"path": "birthDate", "type": "decimal"}, "is of type decimal, found text"),
        ({"path": "birthDate + name", "type": "string"}, "do not fit the values"),
        ({"path": "multipleBirth", "type": "decimal"}, "takes finite numbers"),
        ({"path": "multipleBirth"}, "takes finite numbers"),
        ({"path": "name.given.lowBoundary()"}, "a boundary is one of a single value"),
    ],
)
def test_a_resource_that_does_not_fit_names_the_key_and_no_value(
    column: dict[str, Any], says: str
) -> None:
    patient = {
        "resourceType": "Patient",
        "active": True,
        "birthDate": "1950-07-13",
        "name": [{"given": ["Ottilie", "Luise"]}],
        "multipleBirthInteger": 10**400,
    }
    with pytest.raises(EvaluationError, match=says) as raised:
        view_of({"name": "x", **column}).rows(patient)
    assert "select[0].column[0].path" in str(raised.value)
    assert "Ottilie" not in str(raised.value)
    assert "1950-07-13" not in str(raised.value)


def test_a_product_of_rows_has_an_end() -> None:
    each = [
        {"forEach": "name", "column": [{"name": name, "path": "family"}]} for name in ("a", "b")
    ]
    patient = {"resourceType": "Patient", "name": [{"family": "x"}] * 400}
    ready = View(parse_view({"resource": "Patient", "select": each}, "v"), "v", NOW)
    with pytest.raises(EvaluationError, match="more than 100,000 rows"):
        ready.rows(patient)


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


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"resource": 1e999, "select": "x"}']
)
def test_a_file_that_is_no_view_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.json").write_bytes(content)
    with pytest.raises(RecordError, match=r"v\.json"):
        read_view(tmp_path / "v.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("columns:\n  surgeon: {kind: text, code: A//b}", "surgeon, which the view"),
        ("delimiter: ';'\ncolumns: {}\nevents: [{code: A//b}]", "'delimiter' speaks of a file"),
        ("columns:\n  procedure: {kind: code}", "either 'vocabulary' or 'system_column'"),
        ("columns:\n  procedure: {kind: code, vocabulary: S, code: A//b}", "'code' has no place"),
        ("columns:\n  procedure: {code: A//b, kind: text, vocabulary: S}", "belong to kind 'code'"),
    ],
)
def test_a_mapping_that_does_not_fit_its_view(tmp_path: Path, change: str, says: str) -> None:
    (tmp_path / "procedures.json").write_text(JSON_BLOCKS[0])
    head = YAML_BLOCKS[0].partition("columns:")[0]
    (tmp_path / "map.yaml").write_text(head + change)
    (tmp_path / "x.ndjson").write_text(json.dumps(PROCEDURE))
    with pytest.raises(RecordError, match=says):
        import_table(
            tmp_path / "x.ndjson", tmp_path / "map.yaml", tmp_path / "s", secret=SECRET, now=NOW
        )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["reference", "coding", "system", "code", "start", "id", "value", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["id", "status", "subject", "performedPeriod", "code", "contained"]),
        JSON_VALUES,
    )
)
def test_whatever_stands_in_a_resource_it_makes_rows_or_a_reason(parts: dict[str, Any]) -> None:
    ready = View(parse_view(json.loads(JSON_BLOCKS[0]), "v"), "v", NOW)
    rows, said = [], "select["
    try:
        rows = ready.rows(PROCEDURE | parts | {"resourceType": "Procedure"})
    except EvaluationError as error:
        said = str(error)
    assert "select[" in said or "where[" in said
    assert all(set(row) == {"patient", "performed", "procedure"} for row in rows)


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
        datetime(2024, 1, 5),
        datetime(2024, 1, 2),
    )
    assert (second["code"], second["comparator"]) == ("LOINC//2093-3", "<")
    assert report.reasons == {
        "a time that cannot be read": 1,
        "code: system: a code without its system": 1,
        "code: value: not recorded": 1,
        "code: no unit for total cholesterol, which is kept in mmol/L": 1,
    }


@settings(max_examples=80, deadline=None)
@given(st.text(alphabet="ab.()[]'%@ =|$0'\"`,\\é", max_size=20))
def test_any_text_is_an_expression_or_a_sentence(path: str) -> None:
    said = ""
    try:
        ready = view_of(ID, {"name": "x", "path": path})
        ready.rows({"resourceType": "Patient", "id": "1", "a": [{"b": 1}]})
    except (RecordError, EvaluationError) as error:
        said = str(error)
    assert said == "" or "select[0].column[1].path" in said


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
