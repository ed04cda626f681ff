"""Figures and recalibration of values and counts, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics

from fedtwin_twins.regression import (
    count_quality,
    deviance,
    recalibrate_counts,
    recalibrate_values,
    value_quality,
)


def test_figures_of_values_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    seen = rng.normal(120, 15, 200)
    means = 60 + 0.5 * seen + rng.normal(0, 8, 200)
    found = value_quality(means, seen, float(seen.mean()))
    assert found.patients == 200
    assert found.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(seen, means))
    assert found.root_mean_squared_error == pytest.approx(
        metrics.root_mean_squared_error(seen, means)
    )
    assert found.explained == pytest.approx(metrics.r2_score(seen, means))
    assert found.calibration_slope == pytest.approx(np.polyfit(means, seen, 1)[0])
    assert (found.mean_predicted, found.mean_seen) == pytest.approx((means.mean(), seen.mean()))


def test_explained_is_measured_against_the_mean_of_others() -> None:
    seen, means = np.array([1.0, 3.0]), np.array([1.0, 2.0])
    assert value_quality(means, seen, 0.0).explained == pytest.approx(1 - 1 / 10)
    assert value_quality(np.zeros(2), seen, 0.0).explained == 0.0


def test_figures_of_counts_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    means = np.exp(rng.normal(size=300))
    seen = rng.poisson(means).astype(float)
    found = count_quality(means, seen, float(seen.mean()))
    assert deviance(means, seen) / 300 == pytest.approx(metrics.mean_poisson_deviance(seen, means))
    assert found.deviance_explained == pytest.approx(metrics.d2_tweedie_score(seen, means, power=1))
    assert found.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(seen, means))
    assert (found.mean_predicted, found.mean_seen) == pytest.approx((means.mean(), seen.mean()))


def test_what_the_patients_do_not_carry_is_none() -> None:
    nobody = np.zeros(0)
    for quality in (value_quality, count_quality):
        found = quality(nobody, nobody, float("nan"))
        assert found.patients == 0
        assert {getattr(found, name) for name in found.__slots__} == {0, None}
    same = value_quality(np.ones(3), np.ones(3), 1.0)
    assert (same.explained, same.calibration_slope) == (None, None)
    assert count_quality(np.ones(3), np.zeros(3), 0.0).deviance_explained is None
    beyond = count_quality(np.array([np.inf, 1.0]), np.ones(2), 2.0)
    assert (beyond.mean_predicted, beyond.deviance_explained) == (None, None)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        value_quality(np.ones(2), np.ones(3), 0.0)


def test_values_are_recalibrated_by_the_least_squares_line() -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(size=50)
    seen = 3 * means - 2 + rng.normal(size=50)
    line = recalibrate_values(means, seen)
    assert (line.slope, line.intercept) == pytest.approx(tuple(np.polyfit(means, seen, 1)))
    shift = recalibrate_values(np.full(50, 4.1), seen)
    assert (shift.slope, shift.intercept) == pytest.approx((1.0, seen.mean() - 4.1))
    nobody = recalibrate_values(np.zeros(0), np.zeros(0))
    assert (nobody.slope, nobody.intercept) == (1.0, 0.0)


def test_counts_are_recalibrated_on_their_logarithm() -> None:
    rng = np.random.default_rng(4)
    logs = rng.normal(size=20_000)
    found = recalibrate_counts(logs, rng.poisson(np.exp(0.5 * logs + 0.7)).astype(float))
    assert (found.slope, found.intercept) == pytest.approx((0.5, 0.7), abs=0.02)


@pytest.mark.parametrize("counts", [np.zeros(8), np.full(8, 40.0), np.array([0.0] * 7 + [300.0])])
def test_a_recalibration_of_counts_is_the_mode_of_its_posterior(counts: np.ndarray) -> None:
    logs = np.linspace(-2, 2, 8)
    found = recalibrate_counts(logs, counts)

    def posterior(slope: float, intercept: float) -> float:
        eta = slope * logs + intercept
        prior = np.log(slope) ** 2 / (2 * 0.5**2) + intercept**2 / (2 * 2.0**2)
        return float((np.exp(eta) - counts * eta).sum() + prior)

    best = posterior(found.slope, found.intercept)
    for slope, intercept in ((1.001, 0), (0.999, 0), (1, 1e-3), (1, -1e-3)):
        assert posterior(found.slope * slope, found.intercept + intercept) > best


def test_scores_that_overflow_do_not_stop_a_recalibration() -> None:
    found = recalibrate_counts(np.array([800.0, -800.0, 1.0]), np.array([3.0, 0.0, 1.0]))
    assert np.isfinite([found.slope, found.intercept]).all()
    assert recalibrate_counts(np.zeros(0), np.zeros(0)).slope == 1.0
