"""A release over real processes: signed at two places, listed, logged, verified; and a coordinator
that afterwards shows another model, or another log."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_signing import verifying

from fedtwin.demo.consortium import SIGNERS
from fedtwin_client.node.log_watch import read_watched
from fedtwin_protocol.canonical import canonical_bytes
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_research.library import Library
from fedtwin_server.coordinator import Home

STUDY = "published"
SITES = ("aal", "bergen", "cork")


class Published:
    """A study that was released, and a researcher who fetched it."""

    def __init__(self, hospitals: Any) -> None:
        self.hospitals, self.consortium = hospitals, hospitals.consortium
        self.folder = self.consortium.folder
        self.home = ("--home", str(self.consortium.server))
        self.researcher = ("--home", str(self.folder / "ada"))
        self.trust = self.folder / "trust.json"
        trust = Home(folder=self.consortium.server).settings().trust
        self.trust.write_bytes(canonical_bytes(trust.model_dump(mode="json")))

    def key(self, number: int) -> str:
        return str(self.consortium.server / "offline" / f"{SIGNERS[number]}.key")

    def type(self, *words: str) -> str:
        return self.consortium.run(*words)

    def fetch(self) -> str:
        return self.type("research", "fetch", STUDY, *self.researcher)

    @property
    def fetched(self) -> Path:
        return Library(self.folder / "library").place(STUDY)

    @property
    def shelf(self) -> Path:
        return self.consortium.server / "releases" / STUDY / "1"


@pytest.fixture(scope="module")
def published(hospitals: Any) -> Published:
    made = Published(hospitals)
    hospitals.open(hospitals.plan(STUDY))
    hospitals.wait_end(STUDY)
    return made


@pytest.fixture(scope="module")
def released(published: Published) -> Published:
    """The first signer signs at the coordinator, the second one elsewhere, on a copy."""
    made, elsewhere = published, published.folder / "elsewhere"
    said = made.type("server", "release", STUDY, *made.home, "--key", made.key(0))
    assert "signed by first-signer; 1 more must sign" in said
    draft = made.consortium.server / "drafts" / f"{STUDY}-1"
    shutil.copytree(draft, elsewhere)
    words = ("server", "sign", str(elsewhere), "--key", made.key(1), "--trust", str(made.trust))
    assert "signed by first-signer, second-signer" in made.type(*words)
    assert "1 more must sign" in made.type("server", "release", STUDY, *made.home)
    shutil.rmtree(draft)
    shutil.copytree(elsewhere, draft)
    assert "is released" in made.type("server", "release", STUDY, *made.home)
    paper = str(made.folder / "ada.invitation")
    made.type("server", "invite", "ada", "--role", "researcher", *made.home, "--out", paper)
    made.type("research", "enrol", "--invitation", paper, *made.researcher)
    assert "is verified" in made.fetch()
    return made


def test_nothing_is_published_before_the_threshold(released: Published) -> None:
    with pytest.raises(ConfigurationError, match="is published already"):
        released.type("server", "release", STUDY, *released.home, "--key", released.key(0))
    assert not (released.consortium.server / "drafts" / f"{STUDY}-1").exists()


def test_the_whole_chain_is_told_in_about_ten_lines(
    released: Published, wait_until: Callable[..., None]
) -> None:
    def lines_told() -> list[str]:
        released.fetch()  # and with it the log, to which sites send their ledgers' roots by and by
        return released.type("research", "verify", STUDY).strip().splitlines()

    wait_until(lambda: all(site in lines_told()[7] for site in SITES), 60, "roots of ledgers")
    lines = lines_told()
    said = "\n".join(lines)
    assert len(lines) <= 11, said
    starts = [line.partition(":")[0] for line in lines]
    assert starts == [
        *("signers", "TUF", "statement", "plan", "privacy", "rounds", "log"),
        *("ledgers committed to", "model", "verified"),
    ]
    for part in (
        "first-signer, second-signer (2 of 2 must)",
        "TUF: root 1, list 2 signed by first-signer, second-signer",
        "rounds: 3 of 3, 3 sites (aal, bergen, cork)",
        "proven to be in it: the plan, 3 rounds, this release",
        "epsilon 2.5 at delta 1e-05",
        f"verified: {STUDY} version 1 of demo",
    ):
        assert part in said, said


def test_a_folder_is_verified_offline_and_by_others_tools(
    released: Published, tmp_path: Path
) -> None:
    folder = tmp_path / "given"
    shutil.copytree(released.fetched, folder)
    words = ("research", "verify", str(folder), "--trust", str(released.trust))
    assert "this release" in released.type(*words)
    key = verifying.Config().use_elliptic_key_verifier(public_key=folder / "model.pem")
    key.verify(folder, folder / "model.sig")
    for name, old, new in (
        ("log.json", b'\\"round\\":2', b'\\"round\\":3'),
        ("2.targets.json", b'"length": ', b'"length": 1'),
        ("2.targets.json", b'"length":', b'"length":1'),
    ):
        path = folder / "evidence" / name
        whole = path.read_bytes()
        if old in whole:
            path.write_bytes(whole.replace(old, new, 1))
            with pytest.raises(ConfigurationError):
                released.type(*words)
            path.write_bytes(whole)
    shutil.rmtree(folder / "evidence")
    assert "NOT CHECKED" in released.type(*words)


@pytest.mark.parametrize("name", ["model.safetensors", "card.json", "plan.json", "statement.json"])
def test_another_file_on_the_coordinators_shelf_is_refused(released: Published, name: str) -> None:
    path = released.shelf / name
    whole = path.read_bytes()
    try:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for changed in (flipped, whole + b"}", whole[:-1]):
            path.write_bytes(changed)
            with pytest.raises(ConfigurationError, match="failed"):
                released.fetch()
    finally:
        path.write_bytes(whole)
    assert "is verified" in released.fetch()


def test_the_sites_report_takes_the_listed_model(released: Published) -> None:
    home = ("--home", str(released.consortium.site("aal")))
    assert "held-out patients" in released.type("client", "report", STUDY, *home)
    assert (released.consortium.site("aal") / "tuf" / "targets.json").exists()


@pytest.fixture
def rewritten(released: Published) -> Iterator[Published]:
    """The coordinator changes an entry that sites have seen, and goes on as if nothing was."""
    hospitals = released.hospitals
    path = released.consortium.server / "fedtwin.sqlite"

    def rewrite(old: str, new: str) -> None:
        hospitals.kill_coordinator()
        with sqlite3.connect(path) as connection:
            connection.execute(
                "UPDATE log SET entry = CAST(replace(CAST(entry AS TEXT), ?, ?) AS BLOB)"
                " WHERE sequence = 0",
                (old, new),
            )
        connection.close()
        hospitals.start_coordinator()

    rewrite('"version":1', '"version":7')
    yield released
    rewrite('"version":7', '"version":1')
    for site in SITES:
        home = ("--home", str(released.consortium.site(site)))
        released.type("client", "log", "--forget-by", "Dr A. Berg", *home)


def test_a_rewritten_log_stops_every_site_and_researcher(rewritten: Published) -> None:
    hospitals = rewritten.hospitals
    hospitals.wait_until(
        lambda: all(read_watched(hospitals.site(site)).alarm for site in SITES), 60, "the alarms"
    )
    home = ("--home", str(rewritten.consortium.site("aal")))
    for words in (("client", "log"), ("client", "check")):
        with pytest.raises(ConfigurationError):
            rewritten.type(*words, *home)
    assert "ALARM: this node takes part in nothing" in rewritten.type("client", "studies", *home)
    with pytest.raises(ConfigurationError, match="ALARM"):
        rewritten.fetch()
    hospitals.open(hospitals.plan("after-the-alarm", sites__gathering_s=1))
    hospitals.wait_until(
        lambda: all("studies are not looked at" in hospitals.log(site) for site in SITES), 60, "no"
    )
    assert hospitals.store.decisions("after-the-alarm") == {}
    rewritten.type("server", "studies", "stop", "after-the-alarm", *rewritten.home)


def test_after_people_have_looked_a_study_is_carried_out_again(released: Published) -> None:
    hospitals = released.hospitals
    hospitals.wait_until(
        lambda: all(
            read_watched(hospitals.site(site)).alarm is None
            and read_watched(hospitals.site(site)).head
            for site in SITES
        ),
        60,
        "heads",
    )
    hospitals.open(hospitals.plan("after-peace"))
    hospitals.wait_end("after-peace")
    assert hospitals.state("after-peace") == "finished: "
