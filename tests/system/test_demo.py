"""The whole line over real processes: from FHIR records to a verified release."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEART = Path(__file__).parents[3] / "shared" / "data" / "uci_heart"


def play(run_demo: Callable[..., Any], tmp_path: Path, *options: str) -> tuple[dict, str]:
    """The closing table as JSON, and everything that was shown."""
    table = tmp_path / "table.json"
    done = run_demo("--json", str(table), *options, patience_s=600)
    assert done.returncode == 0, done.stderr
    return json.loads(table.read_text()), done.stdout


def test_four_synthetic_hospitals(tmp_path: Path, run_demo: Callable[..., Any]) -> None:
    closing, shown = play(run_demo, tmp_path)
    assert len(closing["sites"]) == 4
    assert closing["total_s"] < 300
    for site, facts in closing["sites"].items():
        for part in ("before", "after", "pooled"):
            figures = {"accuracy", "auroc", "expected_over_observed", "calibration_index", "brier"}
            assert figures <= set(facts[part])
        assert f"{site}: accepted, because the policy allows this study" in shown
        assert f"{site}: invited, enrolled, records read" in shown
    for part in (
        "WHAT LEAVES THE HOSPITAL",
        "round 1 of 12: ",
        "round 12 of 12: ",
        "verified: coronary-risk-5y version 1",
        *("accuracy", "AUROC", "expected/observed", "calibration index", "Brier score"),
        *("pooled", "epsilon", "bytes sent", "everything"),
    ):
        assert part in shown, part
    (head,) = [line for line in shown.splitlines() if "expected/observed" in line and "┃" in line]
    assert len(head) <= 150
    for facts in closing["sites"].values():
        assert 0.9 < facts["epsilon"] <= 1.001
        assert facts["before"]["auroc"] > facts["pooled"]["auroc"] - 0.1
        # Twelve rounds, each of five steps of a secure sum and a vote.
        assert facts["bytes_sent"] < 14 * 3_000


@pytest.mark.skipif(not HEART.is_dir(), reason="the UCI heart disease set is not here")
@pytest.mark.slow
def test_four_real_hospitals(tmp_path: Path, run_demo: Callable[..., Any]) -> None:
    closing, _ = play(run_demo, tmp_path, "--heart-disease", str(HEART))
    sites = closing["sites"]
    assert set(sites) == {"cleveland", "hungarian", "switzerland", "va"}
    mean = sum(facts["after"]["accuracy"] for facts in sites.values()) / 4
    assert mean > 0.7
