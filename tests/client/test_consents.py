"""The list of objections, what every other process sees of it, and erased patients."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedtwin_client.records.pseudonyms import Identity, IdentityMap, pseudonym
from fedtwin_client.store.consents import Consents
from fedtwin_client.store.erasure import erase_patient, unfinished
from fedtwin_client.store.imports import import_fhir
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.errors import RecordError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"\x07" * 32
ONE, TWO, THREE = (pseudonym(SECRET, Identity("fhir", f"Patient/{n}")) for n in (1, 2, 3))
ALL = frozenset({ONE, TWO, THREE})


def weights(*patients: int) -> str:
    lines = []
    for patient in patients:
        lines.append({"resourceType": "Patient", "id": str(patient), "birthDate": "1950-05-05"})
        lines.append(
            {
                "resourceType": "Observation",
                "id": f"w{patient}",
                "status": "final",
                "code": {"coding": [{"code": "x"}]},
                "subject": {"reference": f"Patient/{patient}"},
                "effectiveDateTime": "2024-05-01",
                "valueQuantity": {"value": 70 + patient, "unit": "kg"},
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


def load(folder: Path, text: str) -> dict[str, int]:
    file = folder / "records.ndjson"
    file.write_text(text)
    return import_fhir([file], folder / "store", secret=SECRET, now=NOW).reasons


def subjects(folder: Path) -> set[int]:
    return set(Timeline.open(folder / "store").events()["subject_id"].to_pylist())


def test_another_process_sees_an_objection_at_once_and_nothing_changes_meanwhile(
    tmp_path: Path,
) -> None:
    with Consents(tmp_path) as worker, Consents(tmp_path) as command:
        before = worker.absent("opt_out", ALL, NOW)
        assert before == frozenset()
        assert worker.absent("opt_out", ALL, NOW) is before
        assert command.add_objections([ONE, ONE], NOW) == 1
        assert worker.absent("opt_out", ALL, NOW) == {ONE}
        assert worker.absent("opt_in", ALL, NOW) == ALL
        assert command.add_objections([ONE, TWO], NOW) == 1
        assert worker.absent("opt_out", ALL, NOW) == {ONE, TWO}
        assert (command.lift(ONE), command.lift(ONE)) == (True, False)
        assert worker.absent("opt_out", ALL, NOW) == {TWO}
        assert command.standing(TWO, "opt_out", NOW).objected is not None


def test_consents_that_cannot_be_read_let_nobody_take_part(tmp_path: Path) -> None:
    Consents(tmp_path).shut()
    (tmp_path / "consents.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    with pytest.raises(RecordError, match="nobody can take part"):
        Consents(tmp_path)


def test_an_erased_patient_is_gone_everywhere_and_does_not_come_back(tmp_path: Path) -> None:
    load(tmp_path, weights(1, 2, 3) + '{"resourceType": "Patient", "id": "9"\n')
    store = tmp_path / "store"
    assert len(list((store / "quarantine").glob("*.ndjson"))) == 1
    old = set((store / "events").iterdir())
    found = erase_patient(store, ONE, NOW)
    assert (found.events, found.known) == (2, True)
    assert subjects(tmp_path) == {TWO, THREE}
    assert not (store / "quarantine").exists()
    names = {path.name for path in (store / "events").iterdir()}
    assert len(names & {path.name for path in old}) == len(
        {s % 64 for s in (TWO, THREE)} - {ONE % 64}
    )
    with pytest.raises(RecordError):
        IdentityMap(store / "identities.sqlite").who_is(ONE)
    assert not any("Patient/1" in a for a in IdentityMap(store / "identities.sqlite").addresses())
    consent = json.dumps(
        {
            "resourceType": "Consent",
            "id": "c",
            "status": "active",
            "scope": {"coding": [{"code": "research"}]},
            "patient": {"reference": "Patient/1"},
            "provision": {"type": "permit"},
        }
    )
    reasons = load(tmp_path, weights(1, 2) + consent + "\n")
    assert reasons["events of patients who are erased here"] == 2
    assert reasons["consents of patients who are erased here"] == 1
    assert subjects(tmp_path) == {TWO, THREE}
    assert not any("Patient/1" in a for a in IdentityMap(store / "identities.sqlite").addresses())
    with Consents(store) as consents:
        assert consents.absent("opt_out", ALL, NOW) == {ONE}
    again = erase_patient(store, ONE, NOW)
    assert (again.events, again.known) == (0, False)


_KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from fedtwin_client.store import commit, erasure, manifest
from fedtwin_client.records import pseudonyms
def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
step = sys.argv[1]
if step == "after the note":
    erasure.rewrite = die
elif step == "while writing":
    commit._write_bucket = die
elif step == "before the manifest":
    commit.write_manifest = die
elif step == "before the old files go":
    erasure.clear = die
elif step == "before the way back goes":
    pseudonyms.IdentityMap.forget = die
erasure.erase_patient(Path(sys.argv[2]), int(sys.argv[3]), datetime(2026, 3, 1, tzinfo=UTC))
"""


@pytest.mark.parametrize(
    "step",
    [
        "after the note",
        "while writing",
        "before the manifest",
        "before the old files go",
        "before the way back goes",
    ],
)
def test_a_killed_erasure_leaves_the_patient_out_and_is_finished_by_the_next_import(
    tmp_path: Path, step: str
) -> None:
    load(tmp_path, weights(1, 2, 3))
    store = tmp_path / "store"
    arguments = [sys.executable, "-c", _KILLED, step, str(store), str(ONE)]
    killed = subprocess.run(arguments, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    with Consents(store) as consents:
        assert consents.absent("opt_out", ALL, NOW) == {ONE}
    assert unfinished(store) == {ONE}
    assert subjects(tmp_path) >= {TWO, THREE}
    load(tmp_path, weights(2))
    assert unfinished(store) == frozenset()
    assert subjects(tmp_path) == {TWO, THREE}
    live = {file.path.partition("/")[2] for file in Timeline.open(store).manifest.files}
    assert live <= set(os.listdir(store / "events"))
    with pytest.raises(RecordError):
        IdentityMap(store / "identities.sqlite").who_is(ONE)
