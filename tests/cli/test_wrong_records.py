"""Wrong records at the command line: a sentence, nothing imported, nothing lost."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.store.timeline import Timeline

MAPPING = """
name: visits
subject: {column: id}
time: {column: day}
columns:
  chol: {code: LOINC//2093-3, unit: mg/dL}
"""
HEAD = "id,day,chol\n"
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
    "subject": {"reference": "Patient/1"},
    "effectiveDateTime": "2024-01-01",
    "valueQuantity": {"value": 200, "unit": "mg/dL"},
}


@pytest.fixture
def table(node: Path, tmp_path: Path, type_in: Callable[..., Any]) -> Callable[..., Any]:
    """Import a table by a mapping; returns how the command ended."""

    def run(content: str | bytes, mapping: str = MAPPING) -> Any:
        data = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "visits.csv").write_bytes(data)
        (tmp_path / "visits.yaml").write_text(mapping)
        return type_in(
            *("client", "records", "table", tmp_path / "visits.csv"),
            *("--mapping", tmp_path / "visits.yaml", "--home", node),
        )

    return run


def events(node: Path, type_in: Callable[..., Any]) -> str:
    """What the node's own check says of its records."""
    said = type_in("client", "check", "--home", node).out
    return next(line for line in said.splitlines() if "records:" in line)


@pytest.mark.parametrize(
    ("content", "mapping", "says"),
    [
        ("id,day\n1,2024-01-01\n", MAPPING, "chol"),
        ("id;day;chol\n1;2024-01-01;200\n", MAPPING, "delimiter"),
        ("", MAPPING, "expected the names of the columns"),
        (HEAD, MAPPING, "no row"),
        (HEAD + "1,2024-01", MAPPING, "expected 3 cells, found 2"),
        (HEAD + "1,2999-01-01,200\n", MAPPING, "lies in the future"),
        (HEAD + '1,2024-01-01,"200\n2,2024-01-01,210\n', MAPPING, "not CSV"),
        (b"\xff\xfe\x00\x80\x81" * 40, MAPPING, "is not utf-8 text"),
        (HEAD + "1,2024-01-01,200\n", MAPPING.replace("mg/dL", "furlong"), "unit 'furlong'"),
        (HEAD + "1,2024-01-01,200\n", MAPPING.replace(", unit: mg/dL", ""), "needs its 'unit'"),
        (HEAD + "1,2024-01-01,200\n", MAPPING + "colour: red\n", "colour: unknown key"),
        (HEAD + "1,2024-01-01,200\n", MAPPING + "name: again\n", "'name' is given twice"),
        (HEAD + "1,2024-01-01,200\n", MAPPING + "encoding: base64\n", "expected an encoding"),
        (HEAD + "1,2024-01-01,200\n", "subject: [\n", "is not YAML"),
        (HEAD + "1,2024-01-01,200\n", "", "holds no keys"),
        (
            HEAD + "1,2024-01-01,200\n",
            MAPPING.replace("unit: mg/dL", "unit: mg/dL, offset_days: 1.0e+12"),
            "offset_days",
        ),
    ],
)
def test_a_table_that_cannot_be_used(
    table: Callable[..., Any],
    node: Path,
    type_in: Callable[..., Any],
    content: str | bytes,
    mapping: str,
    says: str,
) -> None:
    assert table(HEAD + "1,2024-01-01,200\n2,2024-01-01,210\n").status == 0
    before = events(node, type_in)
    ended = table(content, mapping)
    assert (ended.status, "Traceback" in ended.err) == (2, False), ended
    assert ended.err.startswith("fedtwin: ")
    assert says in ended.err
    assert events(node, type_in) == before


def test_what_is_wrong_in_some_rows_is_counted_and_the_rest_is_used(
    table: Callable[..., Any],
) -> None:
    rows = "1,2024-01-01,200\n2,2999-01-01,200\n3,2024-01-01\n4,2024-01-01,high\n5,2024-01-01,19"
    ended = table(HEAD + rows)
    assert ended.status == 0
    for line in (
        "read           5 rows",
        "events         2",
        "1  lies in the future",
        "1  expected 3 cells, found 2",
        "1  chol: expected a number, found text",
        "1  the last line has no line end: was the file cut off?",
    ):
        assert line in ended.out, ended.out


def test_every_line_that_an_open_quote_swallows_is_counted(table: Callable[..., Any]) -> None:
    ended = table(HEAD + '1,2024-01-01,200\n2,2024-01-01,"20\n3,2024-01-01,200\n4,2024-01-01,9\n')
    assert "read           4 rows" in ended.out
    assert "3  not CSV" in ended.out


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.ndjson", b"\x00\xff\x80" * 50, "found no FHIR resource"),
        ("a.json", b"", "found no FHIR resource"),
        ("a.ndjson", json.dumps(OBSERVATION)[:80].encode(), "the last line was cut off"),
        ("a.json", b"[1, 2]", "not a JSON object"),
        ("a.ndjson.gz", b"no gzip", "cannot read"),
        ("a.txt", None, "found no"),
    ],
)
def test_an_export_that_cannot_be_used(
    node: Path,
    tmp_path: Path,
    refused: Callable[..., Any],
    name: str,
    content: bytes | None,
    says: str,
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    assert says in refused("client", "records", "fhir", file, "--home", node).err


def test_lists_and_mappings_that_are_something_else_are_refused_unread(
    node: Path, tmp_path: Path, refused: Callable[..., Any]
) -> None:
    """A wrong file may be gigabytes of one line; it must not fill the memory, nor count."""
    big = tmp_path / "big.txt"
    big.write_text("code,name\n" + "7" * 5_000_000)
    listed = refused("client", "consent", "import", big, "--system", "urn:mrn", "--home", node)
    assert "line 2 of" in listed.err
    assert "expected a patient's number a line; nothing was changed" in listed.err
    mapped = refused("client", "records", "table", big, "--mapping", big, "--home", node)
    assert "is larger than any mapping" in mapped.err
    loaded = refused(
        *("client", "records", "vocabulary", "load", big),
        *("--edition", "1", "--vocabulary", "ATC", "--home", node),
    )
    assert "line 2 of" in loaded.err
    assert "is longer than 1 MiB" in loaded.err


def test_a_half_written_last_line_is_put_aside_and_the_others_are_used(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    line = json.dumps(OBSERVATION)
    (tmp_path / "a.ndjson").write_text(f"{line}\n{line[:90]}")
    ended = type_in("client", "records", "fhir", tmp_path / "a.ndjson", "--home", node)
    assert ended.status == 0
    assert "1  the last line was cut off" in ended.out
    assert "events         1" in ended.out


def test_patients_meet_by_the_hospitals_own_number(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    """FHIR and a table that name one identifier system speak of one patient."""
    patient = {
        "resourceType": "Patient",
        "id": "1",
        "birthDate": "1950-01-01",
        "identifier": [{"system": "http://your.hospital/mrn", "value": "M7"}],
    }
    lines = f"{json.dumps(patient)}\n{json.dumps(OBSERVATION)}\n"
    (tmp_path / "a.ndjson").write_text(lines)
    system = ("--identifier-system", "http://your.hospital/mrn")
    ended = type_in("client", "records", "fhir", tmp_path / "a.ndjson", "--home", node, *system)
    assert ended.status == 0, ended
    mapping = MAPPING.replace("{column: id}", "{column: id, system: http://your.hospital/mrn}")
    (tmp_path / "m.yaml").write_text(mapping)
    (tmp_path / "v.csv").write_text(HEAD + "M7,2024-02-01,190\n")
    words = ("records", "table", tmp_path / "v.csv", "--mapping", tmp_path / "m.yaml")
    assert type_in("client", *words, "--home", node).status == 0
    found = Timeline.open(node / "records").events(codes=["LOINC//2093-3"])
    assert len(found) == 2
    assert len(set(found["subject_id"].to_pylist())) == 1


def test_a_full_disk_leaves_the_store_as_it_was(
    node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    """A limit on the size of a file stands for the disk: writing fails half way."""
    (tmp_path / "a.ndjson").write_text(json.dumps(OBSERVATION) + "\n")
    assert type_in("client", "records", "fhir", tmp_path / "a.ndjson", "--home", node).status == 0
    before = events(node, type_in)
    many = [json.dumps({**OBSERVATION, "id": f"o{n}"}) for n in range(20_000)]
    (tmp_path / "many.ndjson").write_text("\n".join(many) + "\n")
    words = ["client", "records", "fhir", str(tmp_path / "many.ndjson"), "--home", str(node)]
    done = subprocess.run(
        [sys.executable, "-m", "fedtwin.main", *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "nothing was imported" in done.stderr or "what it was before" in done.stderr
    assert events(node, type_in) == before
