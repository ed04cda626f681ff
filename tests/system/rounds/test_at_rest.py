"""A node over its whole life, in real processes: nothing of its patients lies readable on its disk.

Not in databases and their write-ahead logs, timelines, staging, contents, quarantine or the log;
and the keys are in no file of the folder, in no environment and on no command line.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.at_rest.keyring import key_file, open_keyring

MARKS = (b"PLANTED-SURNAME", b"424242.125", b"TEST//visit", b"aal.csv:", b"LOINC//8480-6")
PLAN_SAYS = (b"TEST//visit", b"LOINC//8480-6")
"""Codes that a study asks for stand in its plan, which is public; no record of anybody does."""


@pytest.fixture(scope="module")
def hospital(
    hospitals_class: Any,
    tmp_path_factory: pytest.TempPathFactory,
    wait_until: Callable[..., None],
) -> Iterator[Any]:
    """One hospital with a table and FHIR records, after and during a study."""
    folder = tmp_path_factory.mktemp("at-rest")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = hospitals_class(consortium, wait_until)
        made.admit("aal", 80, ("modes", "[none]"), ("smallest_cohort", "5"))
        lines = [
            {
                "resourceType": "Patient",
                "id": f"PLANTED-SURNAME-{number}",
                "name": [{"family": "PLANTED-SURNAME"}],
                "birthDate": "1950",
            }
            for number in range(5)
        ]
        lines.append(
            {
                "resourceType": "Observation",
                "id": "PLANTED-SURNAME-o",
                "status": "final",
                "code": {"coding": [{"code": "x"}]},
                "subject": {"reference": "Patient/PLANTED-SURNAME-1"},
                "effectiveDateTime": "2024-05-01",
                "valueQuantity": {"value": 424242.125, "unit": "kg"},
            }
        )
        lines.append({"resourceType": "Observation", "id": "PLANTED-SURNAME-bad"})
        file = folder / "export.ndjson"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        home = str(made.site("aal").folder)
        consortium.run("client", "records", "fhir", str(file), "--home", home)
        consortium.run("client", "consent", "withdraw", "aal.csv:3", "--home", home,
                       "--system", "table:visits")  # fmt: skip
        made.start("aal")
        yield made
        made.store.close()


def found_in(folder: Path, marks: Iterable[bytes]) -> list[str]:
    """Every file of a folder in which a mark can be read; values also as they lie in memory."""
    return [
        f"{path.relative_to(folder)}: {mark!r}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for mark in marks
        if mark in path.read_bytes()
    ]


def test_nothing_of_a_patient_lies_readable_during_and_after_a_study(hospital: Any) -> None:
    plan = hospital.plan(
        "at-rest",
        privacy__mode="none",
        training__rounds=60,
        sites__quorum=1,
        sites__gathering_s=2,
        sites__smallest_cohort=5,
    )
    hospital.open(plan)
    hospital.wait_until(lambda: hospital.rounds(plan.study) >= 3, 60, "rounds")
    home = hospital.site("aal").folder
    keys = [key_file(home).read_bytes(), *open_keyring(home).keys.values()]
    spellings = [*keys, *(key.hex().encode() for key in keys)]
    during = found_in(home, MARKS) + found_in(home, spellings)
    (worker, *_) = hospital.workers("aal")
    agent = hospital.running["aal"].pid
    for process in (worker, agent):
        for name in ("cmdline", "environ"):
            said = Path(f"/proc/{process}/{name}").read_bytes()
            assert not any(spelling in said for spelling in spellings)
    hospital.wait_end(plan.study)
    assert hospital.state(plan.study) == "finished: ", hospital.journal(plan.study)
    command = hospital.consortium.run
    counted = command("client", "check", "--home", str(home))
    assert "84 patients take part, 1 do not" in counted
    listed = command("client", "records", "quarantine", "--home", str(home)).split()
    kept = command("client", "records", "quarantine", listed[0], "--home", str(home))
    assert "PLANTED-SURNAME-bad" in kept, "the marks were never there"
    after = found_in(home, MARKS)
    in_plans = {f"plans/{plan.hash}.json: {mark!r}" for mark in PLAN_SAYS}
    assert set(during + after) <= in_plans
    logs = "".join(path.read_text() for path in hospital.consortium.folder.glob("*.log"))
    assert not any(mark.decode() in logs for mark in MARKS)
