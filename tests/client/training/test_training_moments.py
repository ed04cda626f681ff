"""What leaves a site has the noise and the clip of the plan; no patient moves another's part."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from fedtwin_client.training.gradients import clipped_gradient_sum
from fedtwin_client.training.learner import make_learner
from fedtwin_client.training.noise import CryptographicNoise, SeededNoise, noised
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.parameters import flatten, initial_parameters
from fedtwin_protocol.study import StudyPlan

COLUMNS = 8


def plan(mechanism="gradient_sum", family="logistic_regression", mode="local", **privacy):
    local = mechanism == "local_steps"
    return StudyPlan.model_validate(
        {
            "study": "moments",
            "consortium": "tests",
            "title": "A plan",
            "purpose": "To be measured",
            "cohort": {"index": {"codes": ["TEST//index"]}},
            "features": [
                {"name": f"x{k}", "kind": "flag", "codes": ["TEST//x"]} for k in range(COLUMNS)
            ],
            "endpoint": {"name": "event", "kind": "event", "codes": ["TEST//e"], "horizon_days": 1},
            "model": {"family": family, "hidden": [6] if family == "network" else []},
            "training": {
                "rounds": 3,
                "learning_rate": 0.5,
                "mechanism": mechanism,
                "local_steps": 4 if local else 1,
            },
            "aggregation": {"rule": "mean" if local else "sum"},
            "privacy": {
                "mode": mode,
                "epsilon": 10,
                "delta": 1e-5,
                "clipping_norm": 0.5,
                "noise_multiplier": 3.0,
                **privacy,
            },
            "sites": {"quorum": 1},
        }
    )


def rows(seed=0, count=200):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, COLUMNS))
    return TrainingRows(features=features, outcomes=(rng.random(count) < 0.5).astype(float))


def updates(study, patients, count, noise):
    learner = make_learner(study, patients)
    parameters = initial_parameters(study)
    return np.array([flatten(learner.update(parameters, 200.0, noise)) for _ in range(count)])


@pytest.mark.parametrize("family", ["logistic_regression", "network"])
def test_noise_of_released_sums_is_the_plans(family):
    study = plan(family=family)
    exact = updates(plan(family=family, mode="none"), rows(), 1, SeededNoise(1))[0]
    draws = updates(study, rows(), 400, CryptographicNoise(os.urandom(32)))
    sd = study.privacy.noise_multiplier * study.privacy.clipping_norm
    square = ((draws - exact) ** 2).sum() / sd**2
    assert chi2.cdf(square, draws.size) > 1e-9
    assert chi2.sf(square, draws.size) > 1e-9
    assert abs((draws - exact).mean()) < 6 * sd / np.sqrt(draws.size)


def test_the_moment_test_would_catch_a_fifth_less_noise():
    count = 400 * (COLUMNS + 1)
    assert chi2.cdf(count / 1.25**2, count) < 1e-6


@given(st.integers(0, 50), st.floats(1e-3, 1e3), st.floats(0.01, 5))
def test_one_patient_moves_the_sum_by_no_more_than_the_clip(seed, size, clip):
    rng = np.random.default_rng(seed)
    features, outcomes = rng.normal(size=(30, 5)) * size, (rng.random(30) < 0.5).astype(float)
    weights = rng.normal(size=6)
    whole = clipped_gradient_sum(features, outcomes, weights, clip)
    without = clipped_gradient_sum(features[1:], outcomes[1:], weights, clip)
    assert np.linalg.norm(whole - without) <= clip * (1 + 1e-9) + 1e-9 * clip * 30


def test_without_reaching_the_clip_the_sum_is_the_gradient():
    patients = rows(3)
    weights = np.linspace(-1, 1, COLUMNS + 1)
    found = clipped_gradient_sum(patients.features, patients.outcomes, weights, 1e9)
    design = np.c_[patients.features, np.ones(200)]
    risks = 1 / (1 + np.exp(-design @ weights))
    assert found == pytest.approx(design.T @ (risks - patients.outcomes))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200, 1e308])
@pytest.mark.parametrize("family", ["logistic_regression", "network"])
def test_a_contribution_that_is_not_finite_is_zeroed_and_others_keep_theirs(value, family):
    study = plan(family=family, mode="none")
    patients = rows(4)
    features = patients.features.copy()
    features[7, 2] = value
    kept = np.arange(200) != 7
    bad = TrainingRows(features=features, outcomes=patients.outcomes)
    good = TrainingRows(features=patients.features[kept], outcomes=patients.outcomes[kept])
    with np.errstate(all="ignore"):
        found = updates(study, bad, 1, SeededNoise(1))[0]
    expected = updates(study, good, 1, SeededNoise(1))[0]
    clip = study.privacy.clipping_norm
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) <= clip * (1 + 1e-5)


def test_local_steps_repeat_with_the_same_noise_and_differ_with_other():
    study = plan("local_steps", sampling_rate=0.3)
    first, again, other = (updates(study, rows(), 1, SeededNoise(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).all()


def test_the_divisor_is_the_reported_count_and_not_the_true_one():
    """Half of the patients with the same divisor: half of the step."""
    study = plan("local_steps", mode="none", clipping_norm=1e6)
    one = TrainingRows(features=np.ones((50, COLUMNS)), outcomes=np.ones(50))
    two = TrainingRows(features=np.ones((100, COLUMNS)), outcomes=np.ones(100))
    parameters = initial_parameters(study)
    short = study.model_copy(
        update={"training": study.training.model_copy(update={"local_steps": 1})}
    )
    small, large = (
        flatten(make_learner(short, patients).update(parameters, 80.0, SeededNoise(1)))
        for patients in (one, two)
    )
    assert large == pytest.approx(2 * small)


def test_the_cryptographic_source_needs_a_key_and_repeats_with_it():
    key = bytes(range(32))
    assert (CryptographicNoise(key).gaussian((5,)) == CryptographicNoise(key).gaussian((5,))).all()
    other = CryptographicNoise(bytes(32)).gaussian((5,))
    assert (CryptographicNoise(key).gaussian((5,)) != other).all()
    with pytest.raises(ValueError, match="16 random bytes"):
        CryptographicNoise(b"short")


def test_a_release_lies_on_the_public_grid():
    sums = np.array([1.0, np.pi, 1e6 / 3])
    released = noised(sums, 3.0, SeededNoise(1)) / (3.0 * 2.0**-20)
    assert released == pytest.approx(np.round(released), abs=1e-3)
    assert (noised(sums, 0.0, SeededNoise(1)) == sums).all()


def test_patients_are_chosen_at_the_rate_and_independently():
    chosen = np.array([SeededNoise(seed).chosen(1000, 0.2) for seed in range(200)])
    assert chosen.mean() == pytest.approx(0.2, abs=0.006)
    assert chosen.sum(axis=1).std() == pytest.approx(np.sqrt(1000 * 0.2 * 0.8), rel=0.25)
