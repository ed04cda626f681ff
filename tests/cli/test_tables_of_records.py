"""`client records view` and `client records propose` as they are typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

VIEW = {
    "resource": "Patient",
    "select": [{"column": [{"name": "id", "path": "id", "type": "id"}]}],
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "view.json").write_text(json.dumps(VIEW))
    for number in (1, 2):
        patient = {"resourceType": "Patient", "id": f"p{number}"}
        (tmp_path / f"{number}.json").write_text(json.dumps(patient))
    (tmp_path / "visits.csv").write_text(
        "mrn,date,chol [mg/dL]\n1,2024-01-02,200\n2,2024-01-03,190\n"
    )
    return tmp_path


def test_a_view_makes_a_table_of_all_files_that_are_named(
    files: Path, type_in: Callable[..., Any]
) -> None:
    said = type_in(
        *("client", "records", "view", files / "view.json", "--fhir", files / "1.json"),
        *(files / "2.json", "--out", files / "out.csv"),
    )
    assert said.status == 0
    assert "2 rows of 2 Patient resources" in said.out
    assert (files / "out.csv").read_text().split() == ["id", "p1", "p2"]


@pytest.mark.parametrize(
    ("view", "says"),
    [
        ('{"resource": "Patient"', "is not JSON"),
        (json.dumps(VIEW | {"where": [{"path": "id.frist()"}]}), "where[0].path"),
        (json.dumps(VIEW | {"where": [{"path": "id"}]}), "1.json:1"),
    ],
)
def test_a_wrong_view_is_a_sentence(
    files: Path, type_in: Callable[..., Any], view: str, says: str
) -> None:
    (files / "view.json").write_text(view)
    said = type_in(
        *("client", "records", "view", files / "view.json", "--fhir", files / "1.json"),
        *("--out", files / "out.parquet"),
    )
    assert said.status != 0
    assert says in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert not (files / "out.parquet").exists()


def test_a_mapping_is_proposed_and_refused_until_it_is_reviewed(
    files: Path, node: Path, type_in: Callable[..., Any]
) -> None:
    said = type_in("client", "records", "propose", files / "visits.csv", "--out", files / "m.yaml")
    assert said.status == 0
    assert "LOINC//2093-3" in said.out
    assert "chol [mg/dL]" in said.out

    def import_it() -> Any:
        return type_in(
            *("client", "records", "table", files / "visits.csv"),
            *("--mapping", files / "m.yaml", "--home", node),
        )

    refused = import_it()
    assert refused.status != 0
    assert "nobody has reviewed" in " ".join(refused.err.split())
    text = (files / "m.yaml").read_text()
    (files / "m.yaml").write_text(text.replace("reviewed: no\n", ""))
    assert import_it().status == 0


def test_a_file_that_is_no_table_is_a_sentence(files: Path, type_in: Callable[..., Any]) -> None:
    (files / "book.csv").write_bytes(b"PK\x03\x04")
    said = type_in("client", "records", "propose", files / "book.csv")
    assert said.status != 0
    assert "save the sheet as CSV" in " ".join(said.err.split())
