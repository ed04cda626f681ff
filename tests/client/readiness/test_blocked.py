"""A blocked feature is missing for everybody, in the cohort, in the worker, and by order."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fedtwin_client.cohort.rows import build_cohort
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.workers import Workers
from fedtwin_client.readiness.gates import Word
from fedtwin_client.readiness.kept import Kept
from fedtwin_client.readiness.measures import measure
from fedtwin_client.readiness.standing import blocks
from fedtwin_client.store.timeline import Timeline
from fedtwin_client.training.worker import Worker
from fedtwin_client.training.worker_wire import Frame
from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.errors import CohortError

from .conftest import NOW, plan


def without_furlongs(**changes: object):
    """The plan without the feature whose units do not convert."""
    asked = plan(**changes)
    kept = tuple(one for one in asked.features if one.name != "troponin")
    return asked.model_copy(update={"features": kept})


def test_a_feature_with_unknown_units_stops_the_site_and_blocked_it_does_not(hospital) -> None:
    with pytest.raises(CohortError, match="troponin"):
        build_cohort(hospital[0], plan(), NOW)
    rows = build_cohort(hospital[0], plan(), NOW, ["troponin"])
    assert rows.missing["troponin"] == len(rows.labels) == 150
    named = dict(zip(rows.columns, rows.features.T, strict=True))
    assert (named["troponin missing"] == 1).all(), "the contract's rule is 'flag'"
    assert (named["troponin"] == 0).all()


@pytest.mark.parametrize("name", ["glucose", "smoker", "diabetes", "pain", "age", "sex"])
def test_each_kind_can_be_blocked_and_the_others_stay_as_they_were(hospital, name: str) -> None:
    changed = [{**one.model_dump(), "missing": "center"} for one in without_furlongs().features]
    asked = plan(features=changed)
    before = build_cohort(hospital[0], asked, NOW)
    after = build_cohort(hospital[0], asked, NOW, [name])
    assert after.missing[name] == len(after.labels)
    assert after.implausible[name] == 0
    assert (after.labels == before.labels).all()
    assert (after.holdout == before.holdout).all()
    for column, old, new in zip(before.columns, before.features.T, after.features.T, strict=True):
        if column.startswith(name):
            assert (new == 0).all()
            assert (old != 0).any()
        else:
            np.testing.assert_array_equal(old, new)


def test_blocked_under_the_rule_exclude_leaves_nobody(hospital) -> None:
    with pytest.raises(CohortError, match="lacks a value that the study needs: 150"):
        build_cohort(hospital[0], plan(), NOW, ["troponin", "diabetes"])


def test_a_worker_builds_its_cohort_anew_when_what_is_blocked_changes(hospital, tmp_path) -> None:
    asked = plan(sites={"quorum": 1, "smallest_cohort": 1})
    worker = Worker(asked, hospital[0].folder, BlobStore(tmp_path), "", NOW)

    def sizes(*without: str) -> int:
        order = {"op": "cohort", "consent": "opt_out", "time": NOW.isoformat(),
                 "without": list(without)}  # fmt: skip
        head = worker.answer(Frame(head=order)).head
        return head["training"] + head["held_out"]

    with pytest.raises(CohortError, match="troponin"):
        sizes()
    assert sizes("troponin") == 150
    with pytest.raises(CohortError, match="lacks a value"):
        sizes("diabetes", "troponin")
    assert sizes("troponin") == 150


@pytest.fixture
def home(tmp_path: Path) -> NodeHome:
    found = NodeHome(folder=tmp_path / "node")
    found.folder.mkdir()
    found.settings_file.write_text("consortium: tests\nsite: aal\ncoordinator: here:1\n")
    found.policy_file.write_text("consent: opt_out\n")
    return found


def test_orders_carry_what_is_blocked_now(home: NodeHome, hospital) -> None:
    asked = plan()
    workers = Workers(home, home.settings(), lambda: NOW)

    def ordered() -> list[str]:
        return workers._standing(asked.hash)["without"]

    assert ordered() == []
    assert not (home.folder / "readiness.sqlite").exists(), "to ask writes nothing"
    with Kept(home.folder) as kept:
        kept.keep(measure(hospital[0], asked, NOW))
    red = ordered()
    assert "troponin" in red
    assert "glucose" in red
    assert red == sorted(block.feature for block in blocks(home.folder, asked.hash))
    said = datetime(2026, 3, 2, tzinfo=UTC).isoformat()
    with Kept(home.folder) as kept:
        kept.say(asked.hash, "glucose", Word("allow", "seen", "Dr Berg", said))
        kept.say(asked.hash, "sex", Word("block", "not asked here", "Dr Berg", said))
    assert ordered() == sorted({*red, "sex"} - {"glucose"})
    (home.folder / "readiness.yaml").write_text(
        "unknown_unit_percent:\nimplausible_percent:\ncoverage_percent:\nlag_days:\n"
    )
    assert ordered() == ["sex"], "thresholds are applied when looking"
    other = plan(title="Another version")
    assert workers._standing(other.hash)["without"] == []


def test_the_store_is_not_touched(hospital) -> None:
    """A report only reads."""
    before = {path: path.stat().st_mtime_ns for path in hospital[0].folder.rglob("*")}
    measure(Timeline.open(hospital[0].folder), plan(), NOW)
    assert {path: path.stat().st_mtime_ns for path in hospital[0].folder.rglob("*")} == before
