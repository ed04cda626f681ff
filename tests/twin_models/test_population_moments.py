"""Sums of bounded moments: nobody moves one beyond the clipping norm, and it is read as written."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtwin_twins.population.moments import (
    bounded_rows,
    packed,
    read_moments,
    row_norm,
    site_sum,
    unpacked,
)

CLIP = 2.0


def arrays_of(total: np.ndarray, columns: int, between: bool) -> dict[str, np.ndarray]:
    triangle = (columns + 2) * (columns + 3) // 2
    found = {"moments": total[:triangle], "patients": total[triangle : triangle + 1]}
    return found | ({"site_moments": total[triangle + 1 :]} if between else {})


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    patients=st.integers(0, 40),
    size=st.sampled_from([0.1, 1.0, 10.0, 1e6]),
    ratio=st.sampled_from([0.0, 1e-3, 0.1, 1.0, 10.0]),
)
def test_one_patient_moves_the_sum_by_the_clipping_norm_at_most(
    seed: int, patients: int, size: float, ratio: float
) -> None:
    generator = np.random.default_rng(seed)
    features = size * generator.standard_normal((patients + 1, 3))
    outcomes = size * generator.standard_normal(patients + 1)
    prior = generator.standard_normal(4)
    whole, without = (
        site_sum(features[:some], outcomes[:some], prior, CLIP, ratio)
        for some in (patients + 1, patients)
    )
    assert np.linalg.norm(whole - without) <= CLIP * (1 + 1e-9)


def test_the_bound_is_nearly_reached_by_the_worst_patient() -> None:
    """No looser than what is paid for: all others are alike, and one is the opposite."""
    sign = np.append(np.ones(499), -1.0)
    features, outcomes = 1e6 * sign[:, None], 1e15 * sign
    for ratio, least in ((0.0, 0.99), (10.0, 0.95)):
        whole, without = (
            site_sum(features[:some], outcomes[:some], np.zeros(2), CLIP, ratio)
            for some in (500, 499)
        )
        assert np.linalg.norm(whole - without) >= least * CLIP


def test_a_sum_is_read_as_it_was_made() -> None:
    generator = np.random.default_rng(1)
    features, outcomes = generator.standard_normal((30, 2)), generator.standard_normal(30)
    prior = np.array([0.3, -0.2, 0.1])
    total = site_sum(features, outcomes, prior, 1e4, 0.5)
    found = read_moments(arrays_of(total, 2, True), 1e4, 0.5)
    left = outcomes - features @ prior[:-1] - prior[-1]
    rows = np.column_stack([features, np.ones(30), left])
    assert found.within == pytest.approx(rows.T @ rows)
    assert found.patients == pytest.approx(30)
    whitened = rows.T @ np.linalg.solve(np.eye(30) + 0.5, rows)
    assert found.between is not None
    assert found.within - found.between == pytest.approx(whitened)


def test_without_sites_that_differ_there_is_no_third_part() -> None:
    total = site_sum(np.ones((5, 2)), np.ones(5), np.zeros(3), CLIP, 0.0)
    assert total.size == 10 + 1
    assert read_moments(arrays_of(total, 2, False), CLIP, 0.0).between is None
    assert row_norm(CLIP, 0.0) > row_norm(CLIP, 0.1)


def test_a_row_that_is_no_number_counts_as_nobody() -> None:
    features = np.array([[1.0], [np.nan], [np.inf], [1e308], [2.0]])
    outcomes = np.array([1.0, 1.0, 1.0, 1e308, np.nan])
    rows = bounded_rows(features, outcomes, 1.5)
    assert np.linalg.norm(rows, axis=1)[[1, 2, 4]].tolist() == [0, 0, 0]
    assert np.linalg.norm(rows, axis=1).max() <= 1.5 * (1 + 1e-12)
    whole = site_sum(features, outcomes, np.zeros(2), CLIP, 0.1)
    sound = site_sum(features[[0, 3]], outcomes[[0, 3]], np.zeros(2), CLIP, 0.1)
    assert np.isfinite(whole).all()
    assert np.linalg.norm(whole - sound) <= CLIP


def test_a_packed_matrix_keeps_its_norm_and_comes_back() -> None:
    square = np.random.default_rng(2).standard_normal((4, 4))
    symmetric = square + square.T
    assert np.linalg.norm(packed(symmetric)) == pytest.approx(np.linalg.norm(symmetric))
    assert unpacked(packed(symmetric)) == pytest.approx(symmetric)
    assert packed(np.ones((2, 2))) == pytest.approx([1, sqrt(2), 1])


def test_what_is_no_sum_of_moments_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the triangle of a symmetric matrix, got 4"):
        unpacked(np.zeros(4))
    with pytest.raises(ValueError, match="missing site_moments"):
        read_moments({"moments": np.zeros(6), "patients": np.zeros(1)}, CLIP, 0.1)
