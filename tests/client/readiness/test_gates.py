"""Gates at their exact limits, what is blocked, and that thresholds count nothing anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fedtwin_client.readiness.counts import CohortCounts, FeatureCounts, Report, SiteCounts
from fedtwin_client.readiness.gates import Word, blocked, judge
from fedtwin_client.readiness.kept import Kept
from fedtwin_client.readiness.reference import read_reference
from fedtwin_client.readiness.thresholds import Thresholds, load_thresholds
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import ConfigurationError

MADE = datetime(2026, 3, 1, tzinfo=UTC)


def report(*features: FeatureCounts, patients: int = 1000, events: int = 100, lag: float = 0.0,
           unmapped: int = 0) -> Report:  # fmt: skip
    return Report(
        study="asked",
        plan_hash="0" * 64,
        made=MADE,
        site=SiteCounts(rows=1000, subjects=100, newest=MADE - timedelta(days=lag), coded=1000,
                        unmapped=unmapped, commonest=(), put_aside={}, refused_units={}, doors={}),
        cohort=CohortCounts(patients=patients, events=events, mean=0.1, exclusions={}, years=()),
        features=features,
    )  # fmt: skip


def measured(**counts: object) -> FeatureCounts:
    good = {"rows": 1000, "values": 1000, "covered": 1000, "newest": MADE, "kind": "number"}
    return FeatureCounts.model_validate({"name": "glucose", **good, **counts})


def colour(made: Report, gate: str, feature: str, **limits: object) -> str:
    found = judge(made, Thresholds.model_validate(limits))
    return next(one.colour for one in found if (one.feature, one.gate) == (feature, gate))


@pytest.mark.parametrize(
    ("gate", "counts", "expected"),
    [
        ("unknown_unit", {"unknown_unit": 25, "values": 975}, "green"),
        ("unknown_unit", {"unknown_unit": 26, "values": 974}, "amber"),
        ("unknown_unit", {"unknown_unit": 50, "values": 950}, "amber"),
        ("unknown_unit", {"unknown_unit": 51, "values": 949}, "red"),
        ("unknown_unit", {"unknown_unit": 20, "refused_unit": 31, "values": 949}, "red"),
        ("unknown_unit", {"refused_unit": 50, "values": 950}, "amber"),
        ("implausible", {"implausible": 5}, "green"),
        ("implausible", {"implausible": 6}, "amber"),
        ("implausible", {"implausible": 10}, "amber"),
        ("implausible", {"implausible": 11}, "red"),
        ("coverage", {"covered": 750}, "green"),
        ("coverage", {"covered": 749}, "amber"),
        ("coverage", {"covered": 500}, "amber"),
        ("coverage", {"covered": 499}, "red"),
        ("ks", {"ks": 0.15}, "green"),
        ("ks", {"ks": 0.151}, "amber"),
        ("ks", {"ks": 0.3}, "amber"),
        ("ks", {"ks": 0.301}, "red"),
        ("ks", {}, "not judged"),
        ("lag", {"newest": MADE - timedelta(days=3.5)}, "green"),
        ("lag", {"newest": MADE - timedelta(days=7)}, "amber"),
        ("lag", {"newest": MADE - timedelta(days=7, seconds=1)}, "red"),
        ("lag", {"newest": None}, "not judged"),
        ("implausible", {"values": 0}, "not judged"),
    ],
)
def test_a_features_gates_at_their_limits(
    gate: str, counts: dict[str, object], expected: str
) -> None:
    made = report(measured(**counts))
    assert colour(made, gate, "glucose") == expected
    names = [block.feature for block in blocked(made, Thresholds(), {})]
    assert names == (["glucose"] if expected == "red" else [])


@pytest.mark.parametrize(
    ("gate", "counts", "expected"),
    [
        ("cohort", {"patients": 200}, "green"),
        ("cohort", {"patients": 199}, "amber"),
        ("cohort", {"patients": 100}, "amber"),
        ("cohort", {"patients": 99}, "red"),
        ("outcome_events", {"events": 40}, "green"),
        ("outcome_events", {"events": 39}, "amber"),
        ("outcome_events", {"events": 20}, "amber"),
        ("outcome_events", {"events": 19}, "red"),
        ("unmapped", {"unmapped": 50}, "green"),
        ("unmapped", {"unmapped": 100}, "amber"),
        ("unmapped", {"unmapped": 101}, "red"),
        ("lag", {"lag": 7}, "amber"),
        ("lag", {"lag": 7.01}, "red"),
    ],
)
def test_a_studys_gates_at_their_limits_block_no_feature(
    gate: str, counts: dict[str, int], expected: str
) -> None:
    patients = counts.get("patients", 1000)
    newest = MADE - timedelta(days=counts.get("lag", 0))
    made = report(measured(covered=patients, newest=newest), **counts)
    assert colour(made, gate, "") == expected
    assert blocked(made, Thresholds(), {}) == ()


def test_absence_is_an_answer_and_is_not_judged() -> None:
    made = report(measured(kind="presence", covered=0, newest=MADE - timedelta(days=900)))
    assert colour(made, "coverage", "glucose") == "not judged"
    assert blocked(made, Thresholds(), {}) == ()


def test_thresholds_are_applied_when_looking() -> None:
    made = report(measured(implausible=20))
    assert colour(made, "implausible", "glucose") == "red"
    assert colour(made, "implausible", "glucose", implausible_percent=4) == "green"
    assert colour(made, "implausible", "glucose", implausible_percent=None) == "not judged"
    assert colour(made, "implausible", "glucose", implausible_percent=2, amber_at=1) == "green"


def test_a_person_goes_before_the_gates_and_the_gates_come_back(tmp_path: Path) -> None:
    made = report(measured(implausible=20), measured(name="sodium"))
    with Kept(tmp_path) as kept:
        kept.keep(made)
        kept.say("0" * 64, "glucose", Word("allow", "checked by hand", "Dr Berg", "2026-03-01"))
        kept.say("0" * 64, "sodium", Word("block", "new analyser", "Dr Berg", "2026-03-01"))
        kept.say("1" * 64, "glucose", Word("block", "of another plan", "Dr Berg", "2026-03-01"))
        words, last = kept.words("0" * 64), kept.last("0" * 64)
        assert last == made
        found = blocked(last, Thresholds(), words)
        assert [tuple(one) for one in found] == [("sodium", "blocked by Dr Berg: new analyser")]
        kept.say("0" * 64, "sodium", Word("judge", "it is mended", "Dr Berg", "2026-03-02"))
        kept.say("0" * 64, "glucose", Word("judge", "no longer", "Dr Berg", "2026-03-02"))
        names = [one.feature for one in blocked(last, Thresholds(), kept.words("0" * 64))]
        assert names == ["glucose"]
    assert (tmp_path / "readiness.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_report_that_was_never_made_blocks_nothing() -> None:
    assert blocked(None, Thresholds(), {}) == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("implausible_percent: many\n", "implausible_percent"),
        ("implausibel_percent: 3\n", "implausibel_percent: unknown key"),
        ("smallest_shown: 4\n", "greater than or equal to 5"),
        ("lag_days: 1\nlag_days: 2\n", "lag_days"),
        ("[1, 2]\n", "keys are"),
        ("ks: [\n", "cannot read"),
        ("\x00", "cannot read"),
    ],
)
def test_wrong_thresholds_end_in_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "readiness.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_thresholds(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_thresholds_of_a_file_and_none() -> None:
    assert load_thresholds(Path("/nowhere/readiness.yaml")) == Thresholds()


GUIDE = Path(__file__).parents[3] / "docs" / "readiness.md"


def test_the_guide_shows_the_defaults_and_a_reference_that_is_read(tmp_path: Path) -> None:
    text = GUIDE.read_text()
    path = tmp_path / "readiness.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    assert load_thresholds(path) == Thresholds()
    assert set(yaml.safe_load(path.read_text())) == set(Thresholds.model_fields)
    reference = tmp_path / "reference.json"
    reference.write_text(text.partition("```json\n")[2].partition("```")[0])
    feature = Feature(
        name="chol", kind="number", codes=("LOINC//2093-3",), unit="mmol/L", plausible=(1, 20)
    )
    assert len(read_reference(reference, [feature]).quantiles["chol"]) == 19
