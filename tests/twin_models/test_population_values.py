"""Population values from sums of moments: right without noise, honest about it with noise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedtwin_twins.population.design import Design
from fedtwin_twins.population.estimate import PopulationValues, population_values
from fedtwin_twins.population.moments import site_sum
from fedtwin_twins.population.site_values import site_values

COLUMNS = ("a", "b", "c")
BETA = np.array([0.5, -0.3, 0.2, 0.1])
SITE_SD, SD = 0.3, 0.8
FREE = 1e5


def design(**changes: Any) -> Design:
    values: dict[str, Any] = {
        "columns": COLUMNS,
        "prior_mean": np.zeros(4),
        "prior_sd": np.full(4, 3.0),
        "clipping_norm": FREE,
        "site_variance_ratio": 0.1,
        "noise_sd": 0.0,
        "sites": 12,
    }
    return Design(**values | changes)


def hospitals(seed: int, sites: int = 12, size: int = 120) -> list[tuple[Any, Any]]:
    """Sites of unequal size whose patients differ in the first column, too."""
    generator = np.random.default_rng(seed)
    found = []
    for site in range(sites):
        patients = size + (site % 4) * size // 2
        features = generator.standard_normal((patients, 3))
        features[:, 0] += generator.normal(0, 0.7)
        shift = generator.normal(0, SITE_SD)
        errors = generator.normal(0, SD, patients)
        found.append((features, features @ BETA[:-1] + BETA[-1] + shift + errors))
    return found


def learned(parts: list[tuple[Any, Any]], asked: Design, seed: int = 0) -> PopulationValues:
    generator = np.random.default_rng(seed)
    ratio = asked.site_variance_ratio
    total = sum(site_sum(*part, asked.prior_mean, asked.clipping_norm, ratio) for part in parts)
    total = total + asked.noise_sd * generator.standard_normal(np.shape(total))
    triangle = (len(asked.columns) + 2) * (len(asked.columns) + 3) // 2
    arrays = {"moments": total[:triangle], "patients": total[triangle : triangle + 1]}
    if ratio > 0:
        arrays["site_moments"] = total[triangle + 1 :]
    return population_values(arrays, asked)


def test_without_noise_they_are_those_of_generalised_least_squares() -> None:
    parts = hospitals(1)
    found = learned(parts, design(prior_sd=np.full(4, 1e4)))
    normal, right = np.zeros((4, 4)), np.zeros(4)
    for features, outcomes in parts:
        rows = np.column_stack([features, np.ones(len(features))])
        weights = np.linalg.inv(np.eye(len(rows)) + 0.1)
        normal += rows.T @ weights @ rows
        right += rows.T @ weights @ outcomes
    assert found.within_sites
    assert found.mean == pytest.approx(np.linalg.solve(normal, right), rel=1e-5, abs=1e-6)
    assert found.patients == pytest.approx(sum(len(rows) for rows, _ in parts))


def test_variances_are_found_where_sites_are_many() -> None:
    found = learned(hospitals(2, sites=150, size=60), design(sites=150))
    assert found.residual_variance == pytest.approx(SD**2, rel=0.05)
    assert found.site_variance == pytest.approx(SITE_SD**2, rel=0.25)
    assert abs(found.site_variance - SITE_SD**2) < 3 * found.site_variance_sd


def test_what_bounds_took_is_given_back() -> None:
    """Rows are shortened, and a tenth of the outcomes lie beyond their bound."""
    free, tight = (learned(hospitals(3), design(clipping_norm=clip)) for clip in (FREE, 6.0))
    assert (free.within_bound, tight.within_bound) == (1.0, pytest.approx(0.89, abs=0.03))
    assert tight.mean == pytest.approx(free.mean, abs=0.04)
    assert tight.residual_variance == pytest.approx(free.residual_variance, rel=0.1)


@pytest.mark.parametrize(
    ("noise", "clip", "ratio"),
    [(0.0, FREE, 0.1), (5.0, 20.0, 0.1), (60.0, 20.0, 0.1), (40.0, 20.0, 0.0)],
    ids=["none", "little", "much", "much, sites alike"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    noise: float, clip: float, ratio: float
) -> None:
    """Coverage of 90 % intervals over 120 studies; the truth is drawn from what the plan knows."""
    inside, studies, sd = [], 120, 0.5
    for seed in range(studies):
        generator = np.random.default_rng(1000 + seed)
        beta = generator.normal(0, sd, 4)
        parts = []
        for _ in range(12):
            features = generator.standard_normal((100, 3))
            shift = generator.normal(0, SITE_SD if ratio else 0.0)
            errors = generator.normal(0, SD, 100)
            parts.append((features, features @ beta[:-1] + beta[-1] + shift + errors))
        asked = design(
            noise_sd=noise, clipping_norm=clip, prior_sd=np.full(4, sd), site_variance_ratio=ratio
        )
        found = learned(parts, asked, seed)
        inside += list(np.abs(found.mean - beta) <= 1.645 * found.standard_errors)
    share = float(np.mean(inside))
    assert 0.85 <= share <= 0.96  # 480 intervals: the sd of the share is 0.014


def test_noise_that_drowns_all_leaves_what_was_known() -> None:
    asked = design(prior_mean=BETA + 0.4, prior_sd=np.full(4, 0.2), noise_sd=1e6, clipping_norm=8.0)
    found = learned(hospitals(4), asked)
    assert found.mean == pytest.approx(asked.prior_mean, abs=0.05)
    assert found.standard_errors == pytest.approx(asked.prior_sd, rel=0.05)


def test_noise_widens_every_error() -> None:
    parts = hospitals(5)
    quiet, loud = (learned(parts, design(noise_sd=sd, clipping_norm=20.0)) for sd in (0.0, 150.0))
    assert (loud.standard_errors > quiet.standard_errors).all()
    assert loud.site_variance_sd > quiet.site_variance_sd


def test_one_site_has_nobody_to_differ_from() -> None:
    found = learned(hospitals(6, sites=1, size=900), design(sites=1))
    assert (found.within_sites, found.site_variance) == (False, 0.0)
    assert site_values(found, *hospitals(6, sites=1)[0]).shift == pytest.approx(0.0, abs=1e-6)


def test_where_values_are_certain_a_sites_shift_is_its_shrunken_mean() -> None:
    found = learned(hospitals(7), design())
    values = replace(found, covariance=1e-12 * np.eye(4))
    features = np.zeros((20, 3))
    outcomes = np.full(20, values.mean[-1] + 0.5)
    own = site_values(values, features, outcomes)
    weight = 20 + values.residual_variance / values.site_variance
    assert own.shift == pytest.approx(20 * 0.5 / weight, rel=1e-6)
    assert own.shift_sd**2 == pytest.approx(values.residual_variance / weight, rel=1e-6)
    assert own.expected(features) == pytest.approx(values.expected(features) + own.shift)
    nobody = site_values(values, features[:0], outcomes[:0])
    assert (nobody.shift, nobody.patients) == (0.0, 0)
    assert nobody.shift_sd**2 == pytest.approx(values.site_variance)


def test_what_noise_left_uncertain_a_sites_own_patients_settle() -> None:
    parts = hospitals(11, size=300)
    values = learned(parts, design(noise_sd=2000.0, clipping_norm=20.0))
    features, outcomes = parts[0]
    own = site_values(values, features[:200], outcomes[:200])
    left = [np.abs(outcomes[200:] - one.expected(features[200:])).mean() for one in (values, own)]
    assert left[1] < 0.95 * left[0]
    assert left[1] < 1.1 * SD * np.sqrt(2 / np.pi)  # which nobody goes below
    assert np.abs(own.coefficients[:-1] - BETA[:-1]).max() < 0.25


def test_one_wild_outcome_does_not_carry_a_site_away() -> None:
    values = learned(hospitals(8), design())
    wild = np.full(30, values.mean[-1])
    wild[0] = 1e6
    assert abs(site_values(values, np.zeros((30, 3)), wild).shift) < 0.15


def test_a_new_patients_interval_holds_nine_in_ten() -> None:
    values = learned(hospitals(9, sites=60), design(sites=60))
    held = []
    for features, outcomes in hospitals(10, sites=60):
        reach = 1.645 * np.sqrt(values.variance(features))
        held += list(np.abs(outcomes - values.expected(features)) <= reach)
    assert np.mean(held) == pytest.approx(0.9, abs=0.03)


def test_arrays_of_another_study_are_refused() -> None:
    total = site_sum(np.ones((9, 2)), np.ones(9), np.zeros(3), FREE, 0.1)
    arrays = {"moments": total[:10], "patients": total[10:11], "site_moments": total[11:]}
    with pytest.raises(ValueError, match="expected moments of 3 columns"):
        population_values(arrays, design())
    broken = {name: np.full(values.shape, np.nan) for name, values in arrays.items()}
    small = design(columns=("a", "b"), prior_mean=np.zeros(3), prior_sd=np.ones(3))
    with pytest.raises(ValueError, match="finite moments"):
        population_values(broken, small)
    with pytest.raises(ValueError, match="expected 3 outcomes, got 2"):
        site_values(learned(hospitals(1), design()), np.zeros((3, 3)), np.zeros(2))
