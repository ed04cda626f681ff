"""Names, numbers and values of patients are planted; after a study with errors, no log has them.

Everything runs at log level debug. What is looked at: every log, every word that a command typed,
all that the coordinator keeps, and what a node keeps beside its records (which are there to hold
patients, and are not looked at).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import save_file

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.demo.simulation import flower_plan
from fedtwin.demo.synthetic import PLAN, make_hospitals
from fedtwin_client.node.home import NodeHome
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.study import StudyPlan, plan_from_value, plan_from_yaml
from fedtwin_server.coordinator import Home

NAME, GIVEN, NUMBER = "Quarthammer", "Zbigniewa", "kvartzmrn"
VALUE, BORN, PHONE = 187.6543, "1931-03-17", "55512399871"
PLANTED = (NAME, GIVEN, NUMBER, str(VALUE), BORN, PHONE)
# As an installed program may fail: with the patient in its message, and in that of the cause.
CLUMSY = """
    import os

    from flwr.app import Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query("cohort")
    def cohort(message, context):
        count = MetricRecord({"cohort-count": 100.0})
        return Message(RecordDict({"metrics": count}), reply_to=message)

    @app.train()
    def train(message, context):
        patient = os.environ["PATIENT"]
        print(patient)
        try:
            return float(patient)
        except ValueError as error:
            raise KeyError("no value of " + patient) from error
"""
MAPPING = """
name: visits
format: csv
missing: [""]
subject: {column: number, system: "urn:hospital"}
time: {column: day, format: "%Y-%m-%d"}
birth: {age_column: age}
sex: {column: sex, male: [m], female: [f]}
events:
  - code: TEST//visit
columns:
  pressure: {code: LOINC//8480-6, unit: "mm[Hg]"}
"""


def planted_fhir(folder: Path) -> None:
    """A synthetic hospital's export with people in every field that holds text."""
    (hospital,) = make_hospitals(folder / "made", 4, 150, sites=1)["hospitals"]
    shutil.move(folder / "made" / hospital, folder / "fhir")
    for path in (folder / "fhir").glob("*.ndjson"):
        path.write_text(path.read_text().replace(f"{hospital}-", f"{NUMBER}-"))
    patients = folder / "fhir" / "Patient.ndjson"
    lines = []
    for line in patients.read_text().splitlines():
        patient = json.loads(line)
        patient |= {
            "name": [{"family": NAME, "given": [GIVEN], "text": f"{GIVEN} {NAME}"}],
            "identifier": [{"system": "urn:mrn", "value": f"{NUMBER}-{patient['id'][-6:]}"}],
            "telecom": [{"system": "phone", "value": PHONE}],
            "address": [{"line": [f"{NAME}gasse 7"], "text": f"{NAME}gasse 7"}],
            "text": {"status": "generated", "div": f"<div>{GIVEN} {NAME}</div>"},
        }
        lines.append(json.dumps(patient))
    lines[3] = lines[3].replace('"birthDate": "', f'"birthDate": "{BORN}", "x": "')
    patients.write_text("\n".join(lines) + "\n")
    with (folder / "fhir" / "Observation.ndjson").open("a") as file:
        for extra in odd_observations(f"Patient/{NUMBER}-000001"):
            file.write((extra if isinstance(extra, str) else json.dumps(extra)) + "\n")


def odd_observations(patient: str) -> list[dict[str, Any] | str]:
    """What goes wrong in an import: damaged lines, text for numbers, names for units and types."""

    def observation(code: str, day: str = "2015-03-01", **more: Any) -> dict[str, Any]:
        coding = {"system": "http://loinc.org", "code": code, "display": f"of {GIVEN} {NAME}"}
        return {
            "resourceType": "Observation",
            "id": f"{NUMBER}-odd-{code}-{len(json.dumps(more))}",
            "status": "final",
            "subject": {"reference": patient, "display": f"{GIVEN} {NAME}"},
            "performer": [{"display": NAME}],
            "note": [{"text": f"{GIVEN} {NAME}, {PHONE}"}],
            "code": {"coding": [coding], "text": NAME},
            "effectiveDateTime": day,
            **more,
        }

    strange = {"value": VALUE, "unit": f"{GIVEN} {NAME}"}
    return [
        observation("8480-6", valueQuantity={"value": VALUE, "unit": "mm[Hg]"}),
        observation("2093-3", valueQuantity=strange),
        observation("72514-3", valueQuantity=strange),
        observation("72514-3", valueQuantity={"value": VALUE, "unit": NAME}),
        observation("8867-4", valueString=f"{NAME} {VALUE}"),
        observation("8867-4", day=f"{NAME} {BORN}", valueInteger=70),
        observation("8867-4", status=NAME, valueQuantity={"value": NAME, "unit": "/min"}),
        observation("8867-4", subject={"reference": f"Patient/{NAME}"}),
        {"resourceType": "Consent", "id": NUMBER, "patient": {"display": NAME}},
        f'{{"resourceType":"Observation","note":"{GIVEN} {NAME}',
        f"{GIVEN};{NAME};{BORN}",
    ]


def planted_table(folder: Path) -> None:
    """A table with names beside the numbers, and rows that cannot be read."""
    lines = ["number,name,day,age,sex,pressure"]
    for index in range(60):
        lines.append(f"{NUMBER}{index},{NAME} {GIVEN},2020-07-{index % 28 + 1:02},60,f,{VALUE}")
    lines += [
        f"{NUMBER}x,{NAME},{BORN}?,60,f,120",
        f"{NUMBER}y,{NAME},2020-07-01,{NAME},{NAME},{NAME}",
        f"{NUMBER}z,{NAME}",
        f'{NUMBER}q,"{NAME} without an end',
    ]
    (folder / "visits.csv").write_text("\n".join(lines))
    (folder / "visits.yaml").write_text(MAPPING)
    # Without its line of names: the first patient stands where they are expected.
    (folder / "headless.csv").write_text("\n".join(lines[1:4]) + "\n")


@dataclass
class Ground:
    """Two hospitals whose processes say all that they can say."""

    consortium: LocalConsortium
    wait_until: Callable[..., None]
    typed: list[str] = field(default_factory=list)

    def type(self, *words: str, ok: bool = True) -> str:
        """Type a command, and keep both of its streams."""
        done = subprocess.run(
            [sys.executable, "-m", "fedtwin.main", *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "COLUMNS": "200"},
        )
        said = done.stdout + done.stderr
        self.typed.append(said)
        assert (done.returncode == 0) == ok, said
        return said

    def log(self, name: str) -> str:
        return (self.consortium.folder / f"{name}.log").read_text()

    def home(self, name: str) -> tuple[str, str]:
        return ("--home", str(self.consortium.site(name)))

    def open(self, plan: StudyPlan, *options: str) -> None:
        path = self.consortium.folder / f"{plan.study}.yaml"
        path.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
        words = ("--home", str(self.consortium.server), *self.consortium.keys, *options)
        self.consortium.run("server", "studies", "add", str(path), *words)

    def end(self, plan: StudyPlan) -> str:
        store = Home(folder=self.consortium.server).store()
        try:
            self.wait_until(
                lambda: store.study(plan.study).status not in {"open", "running"}, 90, plan.study
            )
            return store.study(plan.study).status
        finally:
            store.close()

    def rounds(self, plan: StudyPlan) -> int:
        store = Home(folder=self.consortium.server).store()
        found = len(store.rounds(plan.study))
        store.close()
        return found


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("planted")
    planted_fhir(folder)
    planted_table(folder)
    (folder / "clumsy.py").write_text(textwrap.dedent(CLUMSY))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, LocalConsortium(folder=folder / "all") as made:
        patch.setenv("PYTHONPATH", path)
        patch.setenv("PATIENT", f"{GIVEN} {NAME}, born {BORN}")
        made.open()
        found = Ground(made, wait_until)
        restart_coordinator(found)
        for name in ("aal", "bergen"):
            enrol(found, name)
        fhir = ("client", "records", "fhir", str(folder / "fhir"), *found.home("aal"))
        found.type(*fhir)
        found.type(*fhir, "--identifier-system", "urn:mrn")
        table = ("client", "records", "table", "--mapping", str(folder / "visits.yaml"))
        found.type(*table, str(folder / "visits.csv"), *found.home("bergen"))
        found.type(*table, str(folder / "headless.csv"), *found.home("bergen"), ok=False)
        for name in ("aal", "bergen"):
            made.start(name, "client", "run", *found.home(name), "--log-level", "debug")
        yield found


def restart_coordinator(ground: Ground) -> None:
    """kill -9 the coordinator and start it at log level debug."""
    made = ground.consortium
    process = next(p for p in made.processes if "server" in p.args)
    process.kill()
    process.wait()
    made.processes.remove(process)
    before = ground.log("coordinator").count("listens on")
    words = ("server", "run", "--home", str(made.server), "--log-level", "debug")
    made.start("coordinator", *words)
    ground.wait_until(lambda: ground.log("coordinator").count("listens on") > before, 20, "it")


def enrol(ground: Ground, name: str) -> None:
    """A hospital that accepts what its policy allows, with the clumsy program installed."""
    ground.consortium.enrol(
        name,
        [
            ("when_allowed", "accept"),
            ("modes", "[local, none]"),
            ("model_families", "[logistic_regression, clumsy]"),
        ],
    )
    path = NodeHome(folder=ground.consortium.site(name)).settings_file
    value = yaml.safe_load(path.read_text()) | {"client_apps": {"clumsy": "clumsy:app"}}
    path.write_text(yaml.safe_dump(value))


def summed(study: str, **changes: Any) -> StudyPlan:
    value = plan_from_yaml(PLAN).model_dump(mode="json")
    value |= {"study": study}
    value["sites"] |= {"quorum": 1, "smallest_cohort": 20, "gathering_s": 2}
    value["privacy"] |= {"mode": "local", "vote_noise": None}
    for part, fields in changes.items():
        value[part] = fields if isinstance(fields, list) else value[part] | fields
    return plan_from_value(value, study)


def asking(unit: str, code: str) -> list[dict[str, Any]]:
    """The synthetic study's features with one that no hospital here can give in that unit."""
    features = plan_from_yaml(PLAN).model_dump(mode="json")["features"]
    odd = {"name": "odd", "kind": "number", "codes": [code], "unit": unit, "plausible": [0, 500]}
    return [*features[:2], {**odd, "window_days": 10_000}]


def a_study_that_ends_well(ground: Ground) -> None:
    """Its workers and the coordinator are killed on the way; the other hospital is too small."""
    plan = summed("whole", training={"rounds": 60}, privacy={"noise_multiplier": 60.0})
    ground.open(plan)
    ground.wait_until(lambda: ground.rounds(plan) >= 1, 60, "a round")
    assert kill_workers(ground.consortium.site("aal"))
    restart_coordinator(ground)
    assert ground.end(plan) == "finished"
    assert "study whole is declined" in ground.log("bergen")


def kill_workers(site: Path) -> int:
    """kill -9 a site's training workers; how many there were."""
    found = 0
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "fedtwin_client.training.worker" in words and str(site) in " ".join(words):
            process.kill()
            found += 1
    return found


def studies_that_cannot_work(ground: Ground, folder: Path) -> None:
    """Units that do not fit, a program that fails over a patient, a budget that is too small."""
    for number, (unit, code) in enumerate((("mmol/L", "LOINC//8480-6"), ("m", "LOINC//72514-3"))):
        plan = summed(f"units-{number}", features=asking(unit, code))
        ground.open(plan)
        sentence = f"study units-{number} is declined: "
        ground.wait_until(lambda text=sentence: text in ground.log("aal"), 60, sentence)
    initial = folder / "initial.safetensors"
    save_file({"own": np.zeros(1)}, initial)
    model = {"family": "clumsy", "initial_sha256": sha256(initial.read_bytes()).hexdigest()}
    clumsy = flower_plan(
        "FedAvg", {}, study="clumsy", sites={"quorum": 1}, training={"rounds": 1}, model=model
    )
    ground.open(clumsy, "--initial", str(initial))
    assert ground.end(clumsy) == "failed"
    costly = summed("costly", privacy={"epsilon": 50, "noise_multiplier": 1.0})
    ground.open(costly)
    ground.wait_until(lambda: "study costly is declined: " in ground.log("aal"), 60, "no")


def everything_shown(ground: Ground) -> None:
    """The commands with which people look at what happened."""
    for name in ("aal", "bergen"):
        for words in (["studies"], ["left"], ["ledger", "--no-exact"]):
            ground.type("client", *words, *ground.home(name))
    ground.type("client", "check", "--study", "units-1", *ground.home("aal"), ok=False)
    for words in (["sites"], ["studies", "show", "whole"]):
        ground.type("server", *words, "--home", str(ground.consortium.server))


def test_no_planted_word_is_anywhere_but_in_the_records(ground: Ground, tmp_path: Path) -> None:
    a_study_that_ends_well(ground)
    studies_that_cannot_work(ground, tmp_path)
    everything_shown(ground)
    assert "the training worker failed: " in ground.log("aal"), "nothing went wrong"
    found = {
        f"{place}: {word} in {context(data, word)}"
        for place, data in places(ground)
        for word in PLANTED
        if word.lower().encode() in data.lower()
    }
    assert not found, "\n".join(sorted(found))


def test_no_pseudonym_leaves(ground: Ground) -> None:
    """Neither in figures nor in bytes; also not in a node's own log."""
    subjects = set()
    for name in ("aal", "bergen"):
        timeline = Timeline.open(NodeHome(folder=ground.consortium.site(name)).records)
        subjects |= subjects_of(timeline)
    assert len(subjects) > 150
    kept = b"\n".join(data for _, data in places(ground))
    numbers = {int(word) for word in re.findall(rb"\d{10,19}", kept)}
    assert numbers & subjects == set()
    for order in ("<", ">"):
        assert not held_as_bytes(kept, subjects, order)


def held_as_bytes(data: bytes, subjects: set[int], order: str) -> set[int]:
    """Which pseudonyms stand anywhere in the data, as eight bytes in an order."""
    wanted = np.array(sorted(subjects), np.uint64)
    found: set[int] = set()
    for start in range(8):
        whole = (len(data) - start) // 8
        words = np.frombuffer(data, f"{order}u8", whole, start).astype(np.uint64)
        found.update(words[np.isin(words, wanted)].tolist())
    return found


def subjects_of(timeline: Timeline) -> set[int]:
    with closing(timeline.connect()) as db:
        return {subject for (subject,) in db.sql("SELECT subject_id FROM events").fetchall()}


def places(ground: Ground) -> Iterator[tuple[str, bytes]]:
    """All that is looked at: files beside the records, and what commands typed."""
    folder = ground.consortium.folder
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts
        if path.is_file() and "records" not in inside:
            yield "/".join(inside), path.read_bytes()
    for number, said in enumerate(ground.typed):
        yield f"command {number}", said.encode()


def context(data: bytes, word: str) -> str:
    start = data.lower().find(word.lower().encode())
    return repr(data[max(0, start - 120) : start + 60])


def test_the_search_finds_what_is_there(ground: Ground) -> None:
    """What the others rely on: lines were set aside, which are encrypted, and logs are full."""
    for start in range(8):
        for order, name in (("<", "little"), (">", "big")):
            planted = bytes(100 + start) + (7**20).to_bytes(8, name) + bytes(50)
            assert held_as_bytes(planted, {7**20, 5}, order) == {7**20}
    quarantine = b"".join(path.read_bytes() for path in ground.consortium.folder.rglob("*.ndjson"))
    assert quarantine.startswith(b"fedtwin-sealed-1")
    assert NAME.encode() not in quarantine
    looked_at = dict(places(ground))
    for name in ("coordinator.log", "aal.log", "bergen.log"):
        assert looked_at[name]
    assert {"coordinator/fedtwin.sqlite", "aal/outbox.sqlite", "aal/ledger.sqlite"} <= set(
        looked_at
    )
