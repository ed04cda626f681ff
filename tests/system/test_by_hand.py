"""The three guides, walked by hand: a consortium, three hospitals and a researcher, real processes.

Each step is a command of the guides; two hospitals accept by a person, one declines.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedtwin.demo
from fedtwin.demo.consortium import free_port
from fedtwin.demo.synthetic import make_hospitals
from fedtwin_research.bench import open_release

PLAN = Path(fedtwin.demo.__file__).parent / "plans" / "synthetic.yaml"
STUDY = "coronary-risk-5y"
HOSPITALS = ("hospital-c", "hospital-a", "hospital-b")  # the first one declines


class Hands:
    """Types commands, and starts those that stay."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {**os.environ, "FEDTWIN_RELEASES": str(folder / "library")}

    def type(self, *words: object, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fedtwin.main", *map(str, words)],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, (words, done.stdout[-500:], done.stderr[-1500:])
        return done.stdout + done.stderr

    def start(self, *words: object) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedtwin.main", *map(str, words)],
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        self.processes.append(process)
        return process

    def until(self, said: str, *words: object, patience_s: float = 60.0) -> str:
        """Type a command again until its answer holds something."""
        deadline = time.monotonic() + patience_s
        while said not in (answer := self.type(*words)):
            assert time.monotonic() < deadline, f"no {said!r} in: {answer}\n{self.log()}"
            time.sleep(0.2)
        return answer

    def log(self) -> str:
        return (self.folder / "log").read_text()[-3000:]

    def end(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    made = Hands(tmp_path)
    yield made
    made.end()


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The demo's plan for two hospitals, with fewer rounds than it has paid for."""
    text = PLAN.read_text()
    for old, new in (("quorum: 3", "quorum: 2"), ("rounds: 12", "rounds: 4"),
                     ("gathering_s: 5", "gathering_s: 0.5")):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_the_guides_lead_from_nothing_to_a_model_in_use(
    hands: Hands, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hospitals(tmp_path / "exports", seed=3, patients_per_hospital=300)
    server = ("--home", tmp_path / "coordinator")
    keys = [w for n in ("oslo", "bergen") for w in ("--key", tmp_path / "keys" / f"{n}.key")]

    set_up_the_coordinator(hands, tmp_path)
    for name in HOSPITALS:
        join(hands, name, server)
    assert "the plan adds up" in hands.type("server", "plan", "check", plan)
    hands.type("server", "studies", "add", plan, *server, *keys)
    decide(hands, tmp_path, server)
    hands.until("finished", "server", "studies", *server)
    for heading in ("Decisions", "Rounds", "hospital-c"):
        assert heading in hands.type("server", "studies", "show", STUDY, *server)

    release_with_audits(hands, server, keys)
    look_at_what_it_cost(hands, tmp_path)
    use_as_a_researcher(hands, tmp_path, server, monkeypatch)
    assert "is revoked" in hands.type("server", "revoke", "hospital-c", *server)
    assert "revoked" in hands.type("server", "sites", *server)
    assert "Traceback" not in hands.log()


def release_with_audits(hands: Hands, server: tuple[object, ...], keys: list[object]) -> None:
    """Draft, audit from outside and at a hospital, release; a failed audit stops it."""
    outside, software = hands.folder / "outside.json", hands.folder / "software.json"
    assert "signed by nobody" in hands.type("server", "release", STUDY, *server)
    draft = hands.folder / "coordinator" / "drafts" / f"{STUDY}-1" / "release"
    card = json.loads((draft / "card.json").read_text())
    assert any("No results of privacy audits" in line for line in card["limits"])
    hands.type("research", "audit", draft, "--draft", "--json", outside)
    home = ("--home", hands.folder / "hospital-a")
    hands.type("client", "check", "--privacy", "--study", STUDY, *home, "--json", software)
    failed = json.loads(outside.read_text())
    failed["audits"][0]["passed"] = False
    (hands.folder / "failed.json").write_text(json.dumps(failed))
    wrong = ("--audits", hands.folder / "failed.json")
    assert "whose audit failed" in hands.type(
        "server", "release", STUDY, *server, *keys, *wrong, status=2
    )
    hands.type(
        *("server", "release", STUDY, *server, *keys, "--audits", outside),
        *("--audits", software),
    )
    folder = hands.folder / "coordinator" / "releases" / STUDY / "1"
    again = hands.type(
        "research", "audit", folder, "--trust", hands.folder / "hospital-a" / "trust.json"
    )
    assert "the card holds 8 audits" in again


def set_up_the_coordinator(hands: Hands, folder: Path) -> None:
    home = ("--home", folder / "coordinator")
    hands.type(
        *("server", "init", *home, "--consortium", "demo", "--address", "localhost"),
        *("--port", free_port(), "--listen", "127.0.0.1", "--offline", folder / "keys"),
        *("--signer", "oslo", "--signer", "bergen", "--signer", "tromso", "--threshold", "2"),
    )
    assert not list((folder / "coordinator").rglob("oslo.key"))
    hands.start("server", "run", *home)


def join(hands: Hands, name: str, server: tuple[object, ...]) -> None:
    home = ("--home", hands.folder / name)
    invited = hands.type("server", "invite", name, *server, "--out", f"{name}.invitation")
    enrolled = hands.type("client", "enrol", "--invitation", f"{name}.invitation", *home)
    fingerprints = [text.partition("fingerprint")[2].partition(": ")[2].split("\n")[0]
                    for text in (invited, enrolled)]  # fmt: skip
    assert fingerprints[0] == fingerprints[1] != ""
    if name == "hospital-a":
        check_the_way(hands, name, home)
    hands.type("client", "records", "fhir", hands.folder / "exports" / name, *home)
    hands.start("client", "run", *home)


def check_the_way(hands: Hands, name: str, home: tuple[object, ...]) -> None:
    again = ("client", "enrol", "--invitation", f"{name}.invitation", *home)
    assert "used" in hands.type(*again, status=2)
    assert "TLS 1.3" in hands.type("client", "check", "--network", *home)
    assert "is in order" in hands.type("client", "policy", *home)
    assert "FAIL records" in hands.type("client", "check", *home, status=1)


def decide(hands: Hands, folder: Path, server: tuple[object, ...]) -> None:
    """One says no, two say yes after a look; nothing of the study left before."""
    for name in HOSPITALS:
        home = ("--home", folder / name)
        hands.until("held", "client", "studies", *home)
        if name == "hospital-c":
            hands.type("client", "studies", "decline", STUDY, "--by", "Dr A. Berg", *home)
            hands.until("does not", "server", "studies", "show", STUDY, *server)
            continue
        if name == "hospital-a":
            shown = hands.type("client", "studies", "show", STUDY, *home)
            assert "WHAT LEAVES THE HOSPITAL" in shown
            cohort = hands.type("client", "check", "--study", STUDY, *home)
            assert "patients for training" in cohort
            assert STUDY not in hands.type("client", "left", *home)
        said = hands.type("client", "studies", "accept", STUDY, "--by", "Dr A. Berg", *home)
        assert "accepted by Dr A. Berg" in said


def look_at_what_it_cost(hands: Hands, folder: Path) -> None:
    home = ("--home", folder / "hospital-a")
    ledger = hands.type("client", "ledger", *home)
    assert STUDY in ledger
    assert "entries" in ledger
    left = hands.type("client", "left", *home)
    assert left.count(STUDY) >= 6  # the decision, the count, four rounds, the table
    report = json.loads(hands.type("client", "report", STUDY, "--json", *home))
    assert set(report) >= {"before", "after", "recalibration", "held_out_patients"}
    away = hands.type("client", "left", "--home", folder / "hospital-c")
    assert "update" not in away
    assert STUDY not in hands.type("client", "ledger", "--home", folder / "hospital-c")


def use_as_a_researcher(
    hands: Hands, folder: Path, server: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ("--home", folder / "ada")
    invite = ("server", "invite", "ada", "--role", "researcher", "--out", "ada.invitation")
    hands.type(*invite, *server)
    hands.type("research", "enrol", "--invitation", "ada.invitation", *home)
    assert STUDY in hands.type("research", "fetch", *home)
    unknown = hands.type("research", "fetch", "nothing-here", *home, status=2)
    assert "there is no release nothing-here" in unknown
    assert "Traceback" not in unknown
    hands.type("research", "fetch", STUDY, *home)
    assert "Asks for:" in hands.type("research", "show", STUDY)
    assert "verified" in hands.type("research", "verify", STUDY)
    monkeypatch.setenv("FEDTWIN_RELEASES", hands.environment["FEDTWIN_RELEASES"])
    model = open_release(STUDY)
    assert model.card.study == STUDY
    assert [site.name for site in model.card.sites] == ["hospital-a", "hospital-b"]


@pytest.mark.slow
def test_a_researchers_certificate_is_renewed_when_releases_are_fetched(
    hands: Hands, tmp_path: Path
) -> None:
    """With a life of 45 s, from two thirds of it on; after it only an invitation helps."""
    home, ada = ("--home", tmp_path / "coordinator"), ("--home", tmp_path / "ada")
    hands.type(
        *("server", "init", *home, "--consortium", "demo", "--address", "localhost"),
        *("--port", free_port(), "--listen", "127.0.0.1", "--certificate-hours", "0.0125"),
    )
    hands.start("server", "run", *home)
    hands.type(
        *("server", "invite", "ada", "--role", "researcher", "--out", "ada.invitation"), *home
    )
    hands.type("research", "enrol", "--invitation", "ada.invitation", *ada)
    first = (tmp_path / "ada" / "identity" / "credentials.pem").read_bytes()
    time.sleep(32)
    hands.type("research", "fetch", *ada)
    assert (tmp_path / "ada" / "identity" / "credentials.pem").read_bytes() != first
    time.sleep(50)
    said = hands.type("research", "fetch", *ada, status=2)
    assert "Traceback" not in said
    assert "expired" in said or "valid" in said, said
