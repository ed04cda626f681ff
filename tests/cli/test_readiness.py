"""`fedtwin client readiness` as it is typed: report, files, rows, words, sharing, wrong input."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtwin_client.node.studies import KnownStudies
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.signing import PLAN_TYPE, sign
from fedtwin_protocol.study import StudyPlan, plan_from_value

MAPPING = """
name: visits
subject: {column: id}
time: {column: day}
birth: {column: born}
events: [{code: LOCAL//visit}]
columns:
  chol: {code: LOINC//2093-3, unit: mg/dL}
  odd: {code: LOCAL//odd-number, unit: mg/dL}
  ill: {code: LOCAL//ill, kind: presence, offset_days: 5}
"""
PLAN: dict[str, Any] = {
    "study": "readiness-typed",
    "consortium": "demo",
    "title": "A plan",
    "purpose": "To be typed at",
    "cohort": {"index": {"codes": ["LOCAL//visit"]}},
    "features": [
        {
            **{"name": "chol", "kind": "number", "codes": ["LOINC//2093-3"], "unit": "mmol/L"},
            **{"plausible": [1, 20], "missing": "center", "center": 5},
        },
        {
            **{"name": "odd", "kind": "number", "codes": ["LOCAL//odd-number"], "unit": "/min"},
            **{"plausible": [0, 300], "missing": "flag"},
        },
    ],
    "endpoint": {
        **{"name": "ill", "kind": "event", "codes": ["LOCAL//ill"], "horizon_days": 30},
        "require_follow_up": False,
    },
    "model": {"family": "logistic_regression"},
    "training": {"rounds": 2, "learning_rate": 0.5},
    "privacy": {
        **{"mode": "local", "epsilon": 10, "delta": 1e-5, "clipping_norm": 1.0},
        "noise_multiplier": 3.0,
    },
    "sites": {"quorum": 1, "smallest_cohort": 20},
}


@pytest.fixture
def offered(node: Path, tmp_path: Path, type_in: Callable[..., Any]) -> StudyPlan:
    """A node with 60 patients, of whom 3 have an implausible cholesterol, and a study offered."""
    rows = ["id,day,born,chol,odd,ill"]
    rows += [
        f"{n},2024-05-{1 + n % 28:02d},1960-01-01,{900 if n < 3 else 180 + n},{60 + n},{n % 2}"
        for n in range(60)
    ]
    (tmp_path / "visits.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "visits.yaml").write_text(MAPPING)
    arguments = ("--mapping", tmp_path / "visits.yaml", "--home", node)
    assert type_in("client", "records", "table", tmp_path / "visits.csv", *arguments).status == 0
    plan = plan_from_value(PLAN, "the plan")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(PLAN))
    key = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
    envelope = sign(PLAN_TYPE, plan.to_bytes(), [key]).to_bytes()
    studies = KnownStudies(node / "node.sqlite")
    studies.hear(plan, envelope, "open", datetime(2026, 1, 1, tzinfo=UTC))
    studies.close()
    return plan


def test_from_a_report_to_a_study_that_goes_on_without_a_feature(
    offered: StudyPlan, node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    study, at_home = offered.study, ("--home", node)

    def run(*words: object) -> Any:
        return type_in("client", "readiness", study, *words, *at_home)

    refused = type_in("client", "check", "--study", study, *at_home)
    assert refused.status == 2
    assert "feature 'odd'" in refused.err
    none = run("--last")
    assert none.status == 2
    assert "no readiness report was made" in none.err

    files = [tmp_path / name for name in ("r.html", "r.json", "d.json")]
    said = run("--html", files[0], "--json", files[1], "--dqd", files[2])
    assert said.status == 0, said.err
    assert "RED  implausible: 3 of 60 values are implausible (5 %)" in said.out
    assert "RED  unknown_unit: 60 of 60" in said.out
    assert "blocked: odd" in said.out
    assert "RED  cohort: 60 patients" in said.out
    assert files[0].read_text().startswith("<!doctype html>")
    value = json.loads(files[1].read_text())
    assert {one["feature"] for one in value["blocked"]} == {"chol", "odd"}
    assert json.loads(files[2].read_text())["Overview"]["countOverallFailed"] >= 2
    assert run("--last").out == said.out.replace(said.out.splitlines()[-1] + "\n", "")

    listed = run("--rows", "chol", "--gate", "implausible")
    assert "3 in all of feature 'chol', gate 'implausible'; 3 are shown" in listed.out
    assert listed.out.count("visits.csv") + listed.out.count("table:visits") >= 3

    checked = type_in("client", "check", "--study", study, *at_home)
    assert checked.status == 0, checked.err
    assert "missing chol: 60" in checked.out
    assert (
        "blocked odd: counts as missing for everybody here (unknown_unit: 60 of 60" in checked.out
    )

    word = run("--allow", "chol", "--because", "units seen by hand", "--by", "Dr Berg")
    assert "is used whatever the gates say, by Dr Berg: units seen by hand" in word.out
    checked = type_in("client", "check", "--study", study, *at_home)
    assert "missing chol: 3" in checked.out
    assert "blocked odd" in checked.out
    run("--block", "chol", "--because", "a new analyser", "--by", "Dr Berg")
    assert "blocked by Dr Berg: a new analyser" in run("--last").out
    run("--judge", "chol", "--because", "mended", "--by", "Dr Berg")
    assert "chol counts as missing for everybody here (implausible" in run("--last").out


def test_sharing_is_typed_and_explained_in_the_ledger(
    offered: StudyPlan, node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    at_home = ("--home", node)
    out = tmp_path / "shared.json"
    said = type_in("client", "readiness", offered.study, "--share", out, *at_home)
    assert said.status == 0, said.err
    assert "each patient in it has paid epsilon 0.5" in said.out
    assert json.loads(out.read_text())["study"] == offered.study
    told = type_in("client", "ledger", "explain", f"readiness-of-{offered.study}", *at_home)
    assert "a report on this hospital's records, which was written" in told.out
    assert "readiness 1 of 1" in type_in("client", "ledger", "--no-exact", *at_home).out
    again = type_in("client", "readiness", offered.study, "--share", out, *at_home)
    assert again.status == 2
    assert "exists" in again.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--allow", "chol"], "say why with --because"),
        (["--block", "sodium", "--because", "x", "--by", "y"], "no feature 'sodium'"),
        (["--rows", "sodium"], "no feature 'sodium'; it has chol, odd"),
        (["--rows", "chol", "--gate", "x"], "there are no rows for gate 'x'"),
        (["--reference", "/nowhere.json"], "cannot read the reference /nowhere.json"),
        (["--share", "/nowhere/a.json"], "there is no folder /nowhere"),
        (["--html", "/proc/nowhere/a.html"], "cannot write /proc/nowhere/a.html"),
    ],
)
def test_wrong_words_end_in_a_sentence(
    offered: StudyPlan, node: Path, refused: Callable[..., Any], words: list[str], says: str
) -> None:
    assert says in refused("client", "readiness", offered.study, *words, "--home", node).err


def test_wrong_homes_studies_and_thresholds_end_in_a_sentence(
    offered: StudyPlan, node: Path, tmp_path: Path, refused: Callable[..., Any]
) -> None:
    assert "no study 'absent'" in refused("client", "readiness", "absent", "--home", node).err
    nowhere = refused("client", "readiness", offered.study, "--home", tmp_path / "nowhere")
    assert "there is no node" in nowhere.err
    (node / "readiness.yaml").write_text("lag: 3\n")
    wrong = refused("client", "readiness", offered.study, "--home", node)
    assert "lag: unknown key" in wrong.err


def test_a_draft_is_reported_on_from_its_file(
    offered: StudyPlan, node: Path, tmp_path: Path, type_in: Callable[..., Any]
) -> None:
    said = type_in("client", "readiness", tmp_path / "plan.yaml", "--home", node)
    assert said.status == 0
    assert "readiness of study readiness-typed" in said.out
    assert Timeline.open(node / "records").rows > 0
