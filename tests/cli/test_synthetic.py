"""Synthetic hospitals: the same from the same seed, dirty as real ones, with a truth that holds."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fedtwin.demo.synthetic import (
    COEFFICIENTS,
    PLAN,
    draw_values,
    expected_auroc,
    hospitals,
    make_hospitals,
    probability,
)
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.study import plan_from_yaml

PLANS = sorted(PLAN.parent.glob("*.yaml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("synthetic")
    return folder, make_hospitals(folder, seed=11, patients_per_hospital=400)


def resources(folder: Path, hospital: str, kind: str) -> list[dict[str, Any]]:
    """Every whole line of an export."""
    found = []
    for line in (folder / hospital / f"{kind}.ndjson").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        make_hospitals(tmp_path / name, seed=seed, patients_per_hospital=30, sites=2)
    files = sorted(path.relative_to(tmp_path / "one") for path in tmp_path.glob("one/**/*.*"))
    assert len(files) == 9
    for file in files:
        one, two, three = ((tmp_path / n / file).read_bytes() for n in ("one", "two", "three"))
        assert one == two
        assert one != three


def test_a_hospital_does_not_change_when_another_joins(tmp_path: Path) -> None:
    make_hospitals(tmp_path / "two", seed=5, patients_per_hospital=30, sites=2)
    make_hospitals(tmp_path / "five", seed=5, patients_per_hospital=30, sites=5)
    for path in (tmp_path / "two").glob("*/*.ndjson"):
        assert path.read_bytes() == (tmp_path / "five" / path.parent.name / path.name).read_bytes()


def test_the_truth_is_written_as_it_is_returned(made: tuple[Path, dict[str, Any]]) -> None:
    folder, truth = made
    assert json.loads((folder / "truth.json").read_text()) == truth
    assert set(truth["hospitals"]) == {f"hospital-{letter}" for letter in "abcd"}


def test_hospitals_differ_in_prevalence_as_planned(made: tuple[Path, dict[str, Any]]) -> None:
    prevalence = {name: one["prevalence"] for name, one in made[1]["hospitals"].items()}
    assert max(prevalence.values()) > 2 * min(prevalence.values())
    assert all(one["bayes_auroc"] > 0.7 for one in made[1]["hospitals"].values())


def test_units_and_vocabularies_differ_between_hospitals(
    made: tuple[Path, dict[str, Any]],
) -> None:
    def units(hospital: str, code: str) -> set[str]:
        return {
            one["valueQuantity"]["unit"]
            for one in resources(made[0], hospital, "Observation")
            if one["code"]["coding"][0]["code"] == code
        }

    assert units("hospital-a", "2093-3") == {"mg/dL"}
    assert units("hospital-b", "2093-3") == {"mmol/L"}
    assert units("hospital-c", "4548-4") == {"mmol/mol"}
    systems = {
        name: {one["code"]["coding"][0]["system"] for one in resources(made[0], name, "Condition")}
        for name in ("hospital-a", "hospital-b")
    }
    assert systems["hospital-a"] == {"http://snomed.info/sct"}
    assert systems["hospital-b"] == {"http://hl7.org/fhir/sid/icd-10-cm"}


def test_the_dirt_is_there(made: tuple[Path, dict[str, Any]]) -> None:
    text = (made[0] / "hospital-d" / "Observation.ndjson").read_text()
    *whole, last = text.splitlines()
    assert len({json.loads(line)["id"] for line in whole}) == len(whole) - 1
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(last)
    statuses = Counter(json.loads(line)["status"] for line in whole)
    assert statuses["entered-in-error"] > 0
    assert "2190-" in text
    assert "refuted" in (made[0] / "hospital-d" / "Condition.ndjson").read_text()


def test_every_reference_leads_to_a_patient(made: tuple[Path, dict[str, Any]]) -> None:
    for hospital in made[1]["hospitals"]:
        known = {one["id"] for one in resources(made[0], hospital, "Patient")}
        assert len(known) == 400
        for kind in ("Observation", "Condition", "MedicationRequest"):
            named = {
                one["subject"]["reference"].removeprefix("Patient/")
                for one in resources(made[0], hospital, kind)
            }
            assert named <= known


def test_endpoints_in_the_export_are_those_of_the_truth(
    made: tuple[Path, dict[str, Any]],
) -> None:
    """Counts the first coronary diagnosis after the check, by hand, from the raw lines."""
    codes = {"53741008", "22298006", "I25.10", "I21.9"}
    for hospital, told in made[1]["hospitals"].items():
        checks = {
            one["subject"]["reference"]: np.datetime64(one["effectiveDateTime"][:10])
            for one in resources(made[0], hospital, "Observation")
            if one["code"]["coding"][0]["code"] == "162673000"
        }
        days: dict[str, list[int]] = {}
        for one in resources(made[0], hospital, "Condition"):
            confirmed = one["verificationStatus"]["coding"][0]["code"] == "confirmed"
            if confirmed and one["code"]["coding"][0]["code"] in codes:
                who = one["subject"]["reference"]
                after = np.datetime64(one["onsetDateTime"]) - checks[who]
                days.setdefault(who, []).append(int(after / np.timedelta64(1, "D")))
        earlier = {who for who, found in days.items() if min(found) < 0}
        within = {who for who, found in days.items() if any(0 < day <= 1826 for day in found)}
        assert len(earlier) == told["earlier_disease"]
        assert len(within - earlier) == told["with_endpoint"]


def test_expected_auroc_is_the_mean_over_outcomes() -> None:
    random = np.random.default_rng(0)
    chance = random.beta(2, 5, 300)
    drawn = [roc_auc_score(random.random(300) < chance, chance) for _ in range(400)]
    standard_error = np.std(drawn) / 20
    assert abs(np.mean(drawn) - expected_auroc(chance)) < 5 * standard_error + 2e-4


def test_expected_auroc_of_a_coin_is_a_half_and_of_certainty_one() -> None:
    assert expected_auroc(np.array([0.0, 0.0, 1.0, 1.0])) == 1.0
    assert expected_auroc(np.array([0.2, 0.2, 0.2])) == pytest.approx(0.5)


def test_the_truth_can_be_learned_back_from_many_patients() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(3)
    contract = plan_from_yaml(PLAN).contract
    (hospital, *_) = hospitals(4)
    from fedtwin_protocol.encoding import encode

    values = draw_values(hospital, 40_000, random)
    outcome = random.random(40_000) < probability(contract, values, hospital.intercept)
    matrix = encode(contract, values).matrix
    learned = LogisticRegression(C=1e6, max_iter=500).fit(matrix, outcome).coef_[0]
    wanted = np.array([COEFFICIENTS[column] for column in contract.columns])
    assert np.abs(learned - wanted).max() < 0.15


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": -1}, "seed of at least 0"),
        ({"patients_per_hospital": 0}, "1 to 1,000,000"),
        ({"sites": 0}, "1 to 26"),
        ({"sites": 27}, "1 to 26"),
    ],
)
def test_numbers_out_of_range_are_refused(
    tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_hospitals(tmp_path, **{"seed": 1, **changes})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "hospital-a").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"cannot write .*hospital-a"):
        make_hospitals(tmp_path, seed=1, patients_per_hospital=5)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_every_plan_adds_up_and_says_where_its_numbers_come_from(path: Path) -> None:
    plan = plan_from_yaml(path)
    assert all(feature.source for feature in plan.features)
    assert (plan.privacy.epsilon, plan.privacy.delta) == (1.0, 1e-5)


def test_every_smoking_category_occurs(made: tuple[Path, dict[str, Any]]) -> None:
    found = {
        f"SNOMED//{one['valueCodeableConcept']['coding'][0]['code']}"
        for one in resources(made[0], "hospital-a", "Observation")
        if one["code"]["coding"][0]["code"] == "72166-2"
    }
    smoking = next(one for one in plan_from_yaml(PLAN).features if one.name == "smoking")
    assert found == set(smoking.categories)
