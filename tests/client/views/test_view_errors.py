"""Wrong ViewDefinitions and expressions, and resources that do not fit, end in a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_client.records.views.definition import parse_view, read_view
from fedtwin_client.records.views.functions import EvaluationError
from fedtwin_client.records.views.running import View
from fedtwin_client.store.imports import import_table
from fedtwin_protocol.errors import RecordError

from .view_parts import ID, JSON_BLOCKS, JSON_VALUES, NOW, PROCEDURE, SECRET, YAML_BLOCKS, view_of


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
