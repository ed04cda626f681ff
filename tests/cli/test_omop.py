"""`fedtwin client records omop` as a hospital types it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.store.timeline import Timeline

from ..client.omop.omop_cdm import as_csv, as_zip, clinical, small

MRN = "http://your.hospital/mrn"


def test_an_import_and_what_it_put_aside(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    tables = small()
    tables["measurement"].append(
        clinical("measurement", id=4711, concept=3027114, number=200, unit_text="furlong")
    )
    ended = type_in("client", "records", "omop", as_zip(tmp_path / "c.zip", tables), "--home", node)
    assert ended.status == 0, ended
    assert "import of OMOP tables of c.zip" in ended.out
    assert "events         13" in ended.out
    assert "unit 'furlong' is not known for total cholesterol" in ended.out
    assert "measurement:4711" in ended.out
    name = next((node / "records" / "quarantine").iterdir()).name
    shown = type_in("client", "records", "quarantine", name, "--home", node).out
    assert "furlong" in shown
    assert "4711" in shown


def test_patients_of_fhir_and_omop_meet(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    patient = {
        "resourceType": "Patient",
        "id": "x",
        "birthDate": "1950-06-07",
        "identifier": [{"system": MRN, "value": "M1"}],
    }
    (tmp_path / "a.ndjson").write_text(json.dumps(patient) + "\n")
    both = ("--identifier-system", MRN, "--home", node)
    assert type_in("client", "records", "fhir", tmp_path / "a.ndjson", *both).status == 0
    assert type_in("client", "records", "omop", as_csv(tmp_path / "c", small()), *both).status == 0
    found = Timeline.open(node / "records").events(codes=["MEDS_BIRTH"])
    assert len(found) == 3
    assert len(set(found["subject_id"].to_pylist())) == 2


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["nowhere"], 2, "found no such file: nowhere"),
        (["postgresql://u:secret@h/db"], 2, "without a password"),
        (["postgresql://u@127.0.0.1:1/db"], 2, "Check the address, that the server runs"),
        ([".", "--delay", "condition_occurrence"], 2, "expected TABLE=DAYS"),
        ([".", "--delay", "drug_era=3"], 2, "found 'drug_era'"),
        ([".", "--name", "A B"], 2, "A B"),
        ([".", "--schema", "cdm"], 2, "not for tables"),
    ],
)
def test_wrong_words(
    node: Path, type_in: Callable[..., Any], words: list[str], status: int, says: str
) -> None:
    ended = type_in("client", "records", "omop", *words, "--home", node)
    assert ended.status == status, ended
    assert says in " ".join(ended.err.replace("│", " ").split())
    assert "Traceback" not in ended.err
    assert "secret" not in ended.err
