"""What was put aside comes back: handed out, mended by a person, read as its import would have."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedtwin_client.records.lines import LONGEST_LINE
from fedtwin_client.records.pseudonyms import Identity, pseudonym
from fedtwin_client.records.report import ImportReport, Tally
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.quarantine import export, lines_of, listed, names, replay
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import ConfigurationError, RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = datetime(2026, 3, 2, tzinfo=UTC)
SECRET = b"\x07" * 32
MRN = "http://h/mrn"
PERSON = {"resourceType": "Patient", "id": "p", "identifier": [{"system": MRN, "value": "77"}]}


def observation(number: int, unit: str = "apples") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2093-3"}]},
        "subject": {"reference": "Patient/p"},
        "effectiveDateTime": "2024-05-01",
        "valueQuantity": {"value": 200, "unit": unit},
    }


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with three lines in quarantine: two wrong units, and a line that is no JSON."""
    lines = [json.dumps(PERSON), json.dumps(observation(1)), json.dumps(observation(2)), "{oops}"]
    lines.append(json.dumps(observation(3, "mg/dL")))
    load(tmp_path, *lines)
    return tmp_path / "store"


def load(folder: Path, *lines: str) -> ImportReport:
    (folder / "lab.ndjson").write_text("\n".join(lines) + "\n")
    return import_fhir(
        [folder / "lab.ndjson"],
        folder / "store",
        secret=SECRET,
        now=NOW,
        server="epic",
        identifier_system=MRN,
        zone="Europe/Zurich",
    )


def handed_out(store: Path, target: Path) -> list[dict[str, Any]]:
    export(store, names(store)[0], target)
    return [json.loads(line) for line in target.read_text().splitlines()]


def written(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def test_mended_lines_come_in_as_their_import_would_have_read_them(
    store: Path, tmp_path: Path
) -> None:
    first, second, third = handed_out(store, tmp_path / "out.ndjson")
    assert (tmp_path / "out.ndjson").stat().st_mode & 0o077 == 0
    assert (first["file"], first["line"]) == ("lab.ndjson", 2)
    first["raw"] = first["raw"].replace("apples", "mg/dL")
    second["raw"] = second["raw"].replace("apples", "pears")
    third["raw"] = observation(4, "mg/dL")  # an object is as good as its text
    mended = written(tmp_path / "mended.ndjson", first, second, third)
    done = replay(store, mended, SECRET, LATER)
    (report,) = done.reports
    assert (report.events, report.unused, done.passed_over) == (2, 1, {})
    events = Timeline.open(store).events().to_pylist()
    assert {event["source"] for event in events} == {
        f"epic:Observation/o{number}#0" for number in (1, 3, 4)
    }
    assert {event["subject_id"] for event in events} == {pseudonym(SECRET, Identity(MRN, "77"))}
    # Midnight in Zurich: the zone of the import.
    assert {str(event["time"]) for event in events} == {"2024-04-30 22:00:00"}
    old, new = names(store)
    assert list(lines_of(store, old)) == []
    (left,) = map(json.loads, lines_of(store, new))
    assert "unit 'pears' is not known" in left["reason"]
    assert (left["file"], left["line"]) == ("lab.ndjson", 3)
    assert listed(store)[0] == f"{old}: 0 lines, 3 replayed"


def test_what_is_still_wrong_can_be_mended_again(store: Path, tmp_path: Path) -> None:
    first, *_ = handed_out(store, tmp_path / "out.ndjson")
    first["raw"] = first["raw"].replace("apples", "pears")
    replay(store, written(tmp_path / "m1", first), SECRET, LATER)
    old, new = names(store)
    assert len(list(lines_of(store, old))) == 2
    export(store, new, tmp_path / "again.ndjson")
    entry = json.loads((tmp_path / "again.ndjson").read_text())
    entry["raw"] = entry["raw"].replace("pears", "mg/dL")
    done = replay(store, written(tmp_path / "m2", entry), SECRET, LATER)
    assert [report.events for report in done.reports] == [1]
    assert list(lines_of(store, new)) == []


def test_replaying_twice_changes_nothing(store: Path, tmp_path: Path) -> None:
    first, *_ = handed_out(store, tmp_path / "out.ndjson")
    first["raw"] = first["raw"].replace("apples", "mg/dL")
    mended = written(tmp_path / "m", first, first)
    replay(store, mended, SECRET, LATER)
    before = Timeline.open(store).events().to_pylist()
    done = replay(store, mended, SECRET, LATER)
    assert done.reports == []
    assert done.passed_over == {
        "lines that are not in quarantine any more: they were replayed before": 2
    }
    assert Timeline.open(store).events().to_pylist() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "found no line"),
        ("{oops", "m:1 is not JSON"),
        ("[1]", "m:1: expected a line of"),
        ('{"quarantine": "x", "id": "1"}', "m:1: expected a line of"),
        ('{"quarantine": "x", "id": "1", "raw": 3}', "expected a line of"),
        ("[" * 100_000, "is not JSON"),
        ('{"quarantine": "../../x", "id": "1", "raw": ""}', "no quarantine file 'x'"),
    ],
)
def test_a_file_that_is_none_is_refused(store: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises((RecordError, ConfigurationError), match=said):
        replay(store, tmp_path / "m", SECRET, LATER)
    (tmp_path / "m").write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match="cannot read"):
        replay(store, tmp_path / "m", SECRET, LATER)


@pytest.mark.parametrize("length", [300_000, LONGEST_LINE])
def test_a_line_that_was_cut_must_be_made_whole(tmp_path: Path, length: int) -> None:
    long = observation(1) | {"note": "x" * length}
    load(tmp_path, json.dumps(PERSON), json.dumps(long))
    store = tmp_path / "store"
    (entry,) = handed_out(store, tmp_path / "out.ndjson")
    done = replay(store, tmp_path / "out.ndjson", SECRET, LATER)
    assert list(done.passed_over) == [
        "lines of which only the beginning was kept: put the whole text into 'raw'"
    ]
    entry["raw"] = json.dumps(observation(1, "mg/dL"))
    done = replay(store, written(tmp_path / "m", entry), SECRET, LATER)
    assert [report.events for report in done.reports] == [1]


def test_what_cannot_be_replayed_says_what_to_do(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "quarantine").mkdir(parents=True)
    aside = {"file": "person", "line": 7, "reason": "no birth", "raw": "7,,"}
    (store / "quarantine" / "a.ndjson").write_text(json.dumps(aside) + "\n")
    handed_out(store, tmp_path / "out.ndjson")
    with pytest.raises(RecordError, match="mend it where it comes from, and import that again"):
        replay(store, tmp_path / "out.ndjson", SECRET, LATER)
    with pytest.raises(ConfigurationError, match="is there already"):
        export(store, names(store)[0], tmp_path / "out.ndjson")


def test_an_account_without_a_file_only_counts() -> None:
    tally = Tally(quarantine=None)
    tally.close()
    assert tally.commonest() == ""


def test_files_that_are_called_alike_are_told_apart(tmp_path: Path) -> None:
    for number, folder in enumerate(("2024-01/a", "2024-02/a", "b")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "lab.ndjson").write_text(json.dumps(observation(number)) + "\n")
    (tmp_path / "p.ndjson").write_text(json.dumps(PERSON))
    report = import_fhir([tmp_path], tmp_path / "store", secret=SECRET, now=NOW)
    (places,) = (said for reason, said in report.examples.items() if "apples" in reason)
    assert places == ("2024-01/a/lab.ndjson:1", "2024-02/a/lab.ndjson:1", "b/lab.ndjson:1")
    assert "p.ndjson:1" in report.examples["a Patient without a birth date"]
