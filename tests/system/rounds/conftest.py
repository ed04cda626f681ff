"""A consortium of real processes with small tables, and short questions to its databases."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedtwin.demo.consortium import LocalConsortium
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Account
from fedtwin_client.node.outbox import Outbox
from fedtwin_protocol.study import StudyPlan
from fedtwin_server.consortium import add_study
from fedtwin_server.coordinator import Home

MAPPING = """
name: visits
format: csv
missing: [""]
subject: {row_number: true}
time: {date: 2020-07-01}
birth: {age_column: age}
sex: {column: sex, male: [m], female: [f]}
events:
  - code: TEST//visit
columns:
  pressure: {code: LOINC//8480-6, unit: "mm[Hg]"}
  outcome: {code: TEST//outcome, unit: "1", offset_days: 1}
"""
PATIENTS = 80
SITES = ("aal", "bergen", "cork")


def plan_of(study: str, **changes: Any) -> StudyPlan:
    """A plan for two sites of three; `sites__quorum=3` changes one field of a part."""
    value: dict[str, Any] = {
        "study": study,
        "consortium": "demo",
        "title": "A study",
        "purpose": "To be interrupted",
        "cohort": {"index": {"codes": ["TEST//visit"]}, "holdout_fraction": 0.25},
        "features": [
            {"name": "age", "kind": "age", "unit": "a", "center": 60, "scale": 10},
            {
                "name": "pressure",
                "kind": "number",
                "codes": ["LOINC//8480-6"],
                "unit": "mm[Hg]",
                "plausible": [40, 300],
                "window_days": 365,
                "center": 130,
                "scale": 20,
            },
        ],
        "endpoint": {
            "name": "outcome",
            "kind": "value_above",
            "codes": ["TEST//outcome"],
            "threshold": 0,
            "horizon_days": 2,
            "require_follow_up": False,
        },
        "model": {"family": "logistic_regression"},
        "training": {"rounds": 3, "learning_rate": 0.5},
        "privacy": {
            "mode": "local",
            "epsilon": 2.5,
            "delta": 1e-5,
            "clipping_norm": 1.0,
            "noise_multiplier": 100.0,
            "cohort_count_noise": 20.0,
            "evaluation_noise": 20.0,
            "hospitals_per_patient": 1,
        },
        "sites": {"quorum": 2, "deadline_s": 20, "gathering_s": 5},
        "evaluation": {"bins": 4},
    }
    for name, change in changes.items():
        part, _, key = name.partition("__")
        if key:
            value[part] = {**value.get(part, {}), key: change}
        else:
            value[part] = change
    return StudyPlan.model_validate(value)


class Hospitals:
    """Three hospitals and their coordinator; processes are killed and started by name."""

    plan = staticmethod(plan_of)
    mapping = MAPPING

    def __init__(self, consortium: LocalConsortium, wait_until: Callable[..., None]) -> None:
        self.consortium = consortium
        self.wait_until = wait_until
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        consortium.open()
        self.coordinator = consortium.processes[-1]
        self.home = Home(folder=consortium.server)
        self.store = self.home.store()

    def admit(
        self, name: str, patients: int = PATIENTS, *policy: tuple[str, str], steep: float = 1.0
    ) -> None:
        """Enrol a hospital with a table of its own; `steep`: how much age and pressure say."""
        folder = self.consortium.folder
        self.write_table(folder / f"{name}.csv", patients, steep)
        (folder / "visits.yaml").write_text(self.mapping)
        self.consortium.enrol(name, [("when_allowed", "accept"), *policy])
        self.consortium.run(
            *("client", "records", "table", str(folder / f"{name}.csv")),
            *("--mapping", str(folder / "visits.yaml")),
            *("--home", str(self.consortium.site(name))),
        )

    @staticmethod
    def write_table(file: Path, patients: int, steep: float = 1.0) -> None:
        """Patients by chance; the file's name decides which."""
        rng = random.Random(file.stem)
        lines = ["age,sex,pressure,outcome"]
        for _ in range(patients):
            age, pressure = rng.randint(40, 80), rng.randint(100, 170)
            middle = 0.475
            risk = middle + steep * ((age + pressure / 2 - 80) / 100 - middle)
            outcome = int(rng.random() < risk)
            lines.append(f"{age},{rng.choice('mf')},{pressure},{outcome}")
        file.write_text("\n".join(lines) + "\n")

    def start(self, *names: str) -> None:
        """Start nodes that do not run."""
        for name in names:
            if name not in self.running:
                self.running[name] = self.consortium.start_site(name)

    def kill(self, *names: str) -> None:
        """kill -9 nodes and their workers' pipes with them."""
        for name in names:
            process = self.running.pop(name)
            process.kill()
            process.wait()
            self.consortium.processes.remove(process)

    def kill_coordinator(self) -> None:
        """kill -9 the coordinator."""
        self.coordinator.kill()
        self.coordinator.wait()
        self.consortium.processes.remove(self.coordinator)

    def start_coordinator(self) -> None:
        """Start it again."""
        self.coordinator = self.consortium.start_server()

    def open(self, plan: StudyPlan) -> None:
        """Sign a plan and open the study, without the command's look at its privacy numbers."""
        file = self.consortium.folder / f"{plan.study}-{plan.version}.yaml"
        file.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
        keys = [Path(word) for word in self.consortium.keys if word != "--key"]
        add_study(Home(folder=self.consortium.server), file, keys, None, datetime.now(UTC))

    def rounds(self, study: str) -> int:
        """Closed rounds."""
        return len(self.store.rounds(study))

    def state(self, study: str) -> str:
        """Status and reason."""
        record = self.store.study(study)
        return f"{record.status}: {record.reason}"

    def journal(self, study: str) -> str:
        """The study's journal, a line each."""
        return "\n".join(f"{event.site}: {event.text}" for event in self.store.journal(study))

    def wait_end(self, study: str, patience_s: float = 60) -> None:
        """Wait until a study has ended."""
        live = ("open", "running")
        self.wait_until(
            lambda: self.store.study(study).status not in live, patience_s, f"{study} to end"
        )

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.consortium.folder / f"{name}.log").read_text()

    def ledger(self, name: str, study: str) -> Account:
        """A study's account in a site's ledger."""
        with Ledger(self.site(name).ledger_file) as ledger:
            return ledger.account(study)

    def left(self, name: str) -> Any:
        """What left a site."""
        with Outbox(self.site(name).outbox_file) as box:
            return box.left().departures

    def site(self, name: str) -> NodeHome:
        """A site's folder."""
        return NodeHome(folder=self.consortium.site(name))

    def workers(self, name: str) -> list[int]:
        """Process ids of a site's training workers."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if b"fedtwin_client.training.worker" in words and any(
                    word.startswith(str(self.site(name).folder).encode() + b"/") for word in words
                ):
                    found.append(int(path.name))
        return found

    def kill_workers(self, name: str) -> int:
        """kill -9 a site's training workers; how many there were."""
        found = self.workers(name)
        for process in found:
            os.kill(process, signal.SIGKILL)
        return len(found)


@pytest.fixture(scope="session")
def new_hospitals() -> type[Hospitals]:
    """The class, for a consortium of a module's own."""
    return Hospitals


@pytest.fixture(scope="session")
def hospitals(
    tmp_path_factory: pytest.TempPathFactory, wait_until: Callable[..., None]
) -> Iterator[Hospitals]:
    """Three hospitals that accept what their policy allows; all of them run."""
    folder = tmp_path_factory.mktemp("hospitals")
    with LocalConsortium(folder=folder / "consortium") as consortium:
        made = Hospitals(consortium, wait_until)
        for name in SITES:
            made.admit(name, PATIENTS, ("epsilon_lifetime", "100"))
        made.start(*SITES)
        yield made
        made.store.close()


@pytest.fixture(scope="session")
def hospitals_class() -> type[Hospitals]:
    """The class, for a consortium of one's own."""
    return Hospitals
