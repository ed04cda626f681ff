"""Effects, intervals and sizes against SciPy, scikit-learn and the published cases T01 and T02."""

import json
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

from fedtwin_twins.trials.allocation import allocate
from fedtwin_twins.trials.analysis import (
    adjusted,
    difference,
    holm,
    mean_interval,
    over_replicates,
    procova,
    risk_interval,
)
from fedtwin_twins.trials.population import Population, VirtualPatients, draw_population
from fedtwin_twins.trials.prognosis import freeze, learn_from_history
from fedtwin_twins.trials.sample_size import Question, controls_needed, patients_needed
from fedtwin_twins.trials.streams import Floats, Streams

from ..genes import SHARED

CASES = SHARED / "cases" / "pharmacology"
here = pytest.mark.skipif(not CASES.is_dir(), reason="the published cases are not here")


def case(name: str) -> Any:
    return json.loads((CASES / name).read_text())


@here
@pytest.mark.case("T01")
def test_sample_sizes_of_the_published_table() -> None:
    found = case("T01_procova_sample_size.json")
    given = found["inputs"]
    question = Question(
        difference=given["delta"], sd=given["sd"], alpha=given["alpha"], power=given["power"]
    )
    for row in found["expected"]["rows"]:
        size = patients_needed(question, row["r"])
        assert size.control == pytest.approx(row["n_per_arm"], abs=1e-3)
        assert size.treated == size.control
        assert size.saving == pytest.approx(row["saving"], abs=1e-12)


def test_a_smaller_control_arm_where_the_treated_one_keeps_its_size() -> None:
    question = Question(difference=0.3, sd=1.0)
    assert controls_needed(question, 233.498, 0.5) == pytest.approx(140.1, abs=0.05)
    with pytest.raises(ValueError, match=r"80 treated patients are too few .* than 88 are needed"):
        controls_needed(question, 80, 0.5)


def test_unequal_arms_dropout_and_caution_need_more() -> None:
    plain = patients_needed(Question(difference=0.3, sd=1.0), 0.5)
    two = patients_needed(Question(difference=0.3, sd=1.0, treated_per_control=2), 0.5)
    assert two.treated == 2 * two.control
    assert two.total > plain.total
    assert patients_needed(Question(difference=0.3, sd=1.0, dropout=0.2), 0.5).control == (
        pytest.approx(plain.control / 0.8)
    )
    careful = Question(difference=0.3, sd=1.0, sd_inflation=0.1, correlation_deflation=0.2)
    expected = plain.control * 1.21 * (1 - 0.4**2) / (1 - 0.5**2)
    assert patients_needed(careful, 0.5).control == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"difference": 0.0}, "a difference other than 0"),
        ({"sd": 0.0}, "sd and allocation above 0"),
        ({"power": 1.0}, "expected power between 0 and 1"),
        ({"dropout": 1.0}, "expected dropout between 0 and 1"),
        ({"sd_inflation": -0.1}, "sd_inflation of at least 0"),
        ({"difference": float("nan")}, "expected difference between 1e-100 and"),
        ({"difference": float("inf")}, "expected difference between 1e-100 and"),
        ({"difference": 1e-300}, "expected difference between 1e-100 and"),
        ({"sd": float("inf")}, "expected sd between 1e-100 and"),
        ({"power": 0.01}, "expected power above alpha, 0.05, found 0.01"),
    ],
)
def test_questions_without_an_answer_are_refused(change: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Question(**({"difference": 0.3, "sd": 1.0} | change))


def test_the_plain_difference_is_nearly_welchs() -> None:
    draw = np.random.default_rng(3)
    treated = np.arange(300) < 100
    outcome = np.where(treated, draw.normal(1, 3, 300), draw.normal(0, 1, 300))
    found = difference(outcome, treated)
    welch = stats.ttest_ind(outcome[treated], outcome[~treated], equal_var=False)
    assert found.effect == pytest.approx(outcome[treated].mean() - outcome[~treated].mean())
    assert found.effect / found.error == pytest.approx(welch.statistic, rel=0.02)
    assert found.p_value == pytest.approx(welch.pvalue, rel=0.2)


def test_adjustment_is_least_squares_with_errors_by_hc3() -> None:
    draw = np.random.default_rng(4)
    treated = draw.random(150) < 0.5
    column = draw.normal(size=150)
    outcome = 2 * treated + 1.5 * column + draw.normal(size=150) * (1 + np.abs(column))
    found = adjusted(outcome, treated, [column])
    matrix = np.stack([treated.astype(float), column], axis=1)
    fit = LinearRegression().fit(matrix, outcome)
    assert found.effect == pytest.approx(fit.coef_[0])
    whole = np.column_stack([np.ones(150), matrix])
    bread = np.linalg.inv(whole.T @ whole)
    hat = np.diag(whole @ bread @ whole.T)
    left = (outcome - fit.predict(matrix)) / (1 - hat)
    expected = np.sqrt((bread @ whole.T @ np.diag(left**2) @ whole @ bread)[1, 1])
    assert found.error == pytest.approx(expected)


def test_patients_without_an_outcome_are_left_out() -> None:
    outcome = np.array([1.0, 2.0, np.nan, 3.0, 5.0, np.nan])
    treated = np.array([True, True, True, False, False, False])
    found = difference(outcome, treated)
    assert (found.patients, found.effect) == (4, pytest.approx(-2.5))
    with pytest.raises(ValueError, match="at least two patients with an outcome in each arm"):
        difference(outcome[1:4], treated[1:4])


@here
@pytest.mark.case("T02")
def test_errors_of_the_first_kind_and_variance_of_the_published_case() -> None:
    found = case("T02_procova_simulation.json")
    given, within = found["inputs"], found["tolerance"]
    draw, arm = np.random.default_rng(0), np.arange(2 * given["n_per_arm"]) % 2 == 0
    rows = []
    for _ in range(given["trials"]):
        score = draw.normal(size=len(arm))
        outcome = given["r"] * score + np.sqrt(1 - given["r"] ** 2) * draw.normal(size=len(arm))
        better, plain = adjusted(outcome, arm, [score]), difference(outcome, arm)
        rows.append((better.effect, plain.effect, better.p_value < 0.05))
    table = np.array(rows)
    ratio = table[:, 0].var() / table[:, 1].var()
    expected = found["expected"]
    assert ratio == pytest.approx(
        expected["var_ratio_adjusted_to_unadjusted"], abs=within["var_ratio_abs"]
    )
    assert table[:, 2].mean() == pytest.approx(expected["type1"], abs=within["type1_abs"])


def test_wilsons_interval_is_scipys() -> None:
    for events, patients in ((0, 10), (3, 10), (10, 10), (700, 1000)):
        expected = stats.binomtest(events, patients).proportion_ci(method="wilson")
        assert risk_interval(events, patients) == pytest.approx((expected.low, expected.high))
    with pytest.raises(ValueError, match="0 to 3 events of at least one patient"):
        risk_interval(4, 3)


def test_the_interval_of_a_mean_is_students() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert mean_interval(values.mean(), values.std(ddof=1), 4) == pytest.approx(expected)


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_monte_carlo_error_is_that_of_the_mean_over_replicates() -> None:
    found = over_replicates([1.0, 2.0, 3.0, float("nan")])
    assert (found.mean, found.replicates) == (2.0, 3)
    assert found.monte_carlo_error == pytest.approx(1 / np.sqrt(3))


class _Risk:
    name = "weight"

    def predict(self, patients: VirtualPatients) -> Floats:
        return patients.covariates["weight"]


def _patients(count: int = 200) -> tuple[VirtualPatients, Streams]:
    streams = Streams(seed=9, replicates=(0,), first=0, count=count)
    weight = {
        **{"name": "weight", "unit": "kg", "distribution": "normal", "mean": 75, "sd": 15},
        **{"lowest": 40, "highest": 140, "source": "made up"},
    }
    plan = Population.model_validate(
        {"ancestry": {"EUR": 1.0}, "covariates": [weight], "genes": ["CYP3A5"]}
    )
    return draw_population(plan, streams), streams


class TestScoresAreFrozen:
    def test_a_score_cannot_be_written_to(self) -> None:
        patients, _ = _patients()
        with pytest.raises(ValueError, match="read-only"):
            freeze(_Risk(), patients).values[0] = 1.0

    def test_a_score_that_came_after_randomisation_is_refused(self) -> None:
        patients, streams = _patients()
        score = freeze(_Risk(), patients)
        outcome = patients.covariates["weight"]
        without = allocate((1, 1), streams, None)
        with pytest.raises(ValueError, match="frozen before randomisation"):
            procova(outcome, patients, (1, 0), without, score)

    def test_another_score_than_the_one_before_randomisation_is_refused(self) -> None:
        patients, streams = _patients()
        allocation = allocate((1, 1), streams, freeze(_Risk(), patients))
        other = _Risk()
        other.name = "weight, as it was after the trial"
        with pytest.raises(ValueError, match="frozen before randomisation"):
            procova(
                patients.covariates["weight"], patients, (1, 0), allocation, freeze(other, patients)
            )

    def test_a_score_whose_values_were_swapped_is_refused(self) -> None:
        patients, streams = _patients()
        score = freeze(_Risk(), patients)
        allocation = allocate((1, 1), streams, score)
        swapped = type(score)(values=score.values + 1, model=score.model, digest=score.digest)
        with pytest.raises(ValueError, match="not the one that was frozen for these patients"):
            procova(patients.covariates["weight"], patients, (1, 0), allocation, swapped)

    def test_a_score_that_is_not_finite_is_refused(self) -> None:
        patients, _ = _patients()

        class Broken(_Risk):
            def predict(self, patients: VirtualPatients) -> Floats:
                return np.full(len(patients), np.nan)

        with pytest.raises(ValueError, match="one finite score for each of 200 patients"):
            freeze(Broken(), patients)


def test_history_learns_what_can_be_foretold() -> None:
    patients, streams = _patients(2000)
    weight = patients.covariates["weight"]
    outcome = 0.1 * weight + streams.normals("luck")
    outcome[:50] = np.nan
    model = learn_from_history(patients, outcome, "old patients")
    fresh, _ = _patients(100)
    assert np.corrcoef(model.predict(fresh), fresh.covariates["weight"])[0, 1] > 0.98
    assert model.predict(fresh) == pytest.approx(0.1 * fresh.covariates["weight"], abs=0.3)
    with pytest.raises(ValueError, match="there is no column height"):
        learn_from_history(patients, outcome, "old", only=["height"])
    with pytest.raises(ValueError, match=r"at least 20 patients with an outcome"):
        learn_from_history(patients.take(np.arange(15)), outcome[50:65], "old", only=["weight"])


def test_blocks_hold_every_arm_and_do_not_change_with_the_trials_size() -> None:
    small = allocate((2, 1), Streams(seed=1, replicates=(0,), first=0, count=31), None).arm
    large = allocate((2, 1), Streams(seed=1, replicates=(0,), first=0, count=3000), None).arm
    assert (small == large[:31]).all()
    assert (large.reshape(-1, 3).sum(axis=1) == 1).all()
    assert len({tuple(block) for block in large.reshape(-1, 3)}) == 3
