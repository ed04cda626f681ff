"""Robust means of sums against their definitions, and against liars within the bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtwin_server.robust import capped_weights, mean_per_patient

RULES = ("trimmed", "median", "krum")


def parts(means: np.ndarray, counts: np.ndarray) -> tuple[dict, dict]:
    names = [f"p{place}" for place in range(len(counts))]
    sums = {name: mean * count for name, mean, count in zip(names, means, counts, strict=True)}
    return sums, dict(zip(names, map(float, counts), strict=True))


def test_none_is_the_sum_over_all_patients() -> None:
    sums, patients = parts(np.array([[1.0, 2.0], [3.0, -1.0]]), np.array([30, 10]))
    np.testing.assert_allclose(mean_per_patient(sums, patients, "none"), [1.5, 1.25])


@pytest.mark.parametrize("how", RULES)
def test_equal_parts_are_their_own_mean(how: str) -> None:
    sums, patients = parts(np.tile([0.3, -0.7, 2.0], (5, 1)), np.array([10, 200, 30, 40, 77]))
    np.testing.assert_allclose(mean_per_patient(sums, patients, how), [0.3, -0.7, 2.0], rtol=1e-12)


def test_trimmed_is_scipys_where_all_weigh_the_same() -> None:
    """Six equal parts, a third off at either end: the mean of the middle two."""
    means = np.random.default_rng(1).normal(size=(6, 9))
    found = mean_per_patient(*parts(means, np.full(6, 50)), "trimmed")
    np.testing.assert_allclose(found, np.sort(means, axis=0)[2:4].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("count", [3, 4, 5, 6, 11])
def test_median_is_numpys_where_all_weigh_the_same(count: int) -> None:
    means = np.random.default_rng(count).normal(size=(count, 9))
    found = mean_per_patient(*parts(means, np.full(count, 50)), "median")
    np.testing.assert_allclose(found, np.median(means, axis=0), rtol=1e-12)


def test_krum_leaves_the_furthest_out() -> None:
    means = np.random.default_rng(2).normal(size=(5, 4)) * 0.01
    means[3] += 4
    found = mean_per_patient(*parts(means, np.full(5, 50)), "krum")
    np.testing.assert_allclose(found, np.delete(means, 3, axis=0).mean(axis=0), rtol=1e-12)


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=12))
def test_no_weight_exceeds_a_third(counts: list[float]) -> None:
    weights = capped_weights(np.array(counts))
    assert weights.sum() == pytest.approx(1)
    assert weights.max() <= max(1 / 3, 1 / len(counts)) + 1e-9
    order = np.argsort(counts, kind="stable")
    assert (np.diff(weights[order]) >= -1e-9).all(), "a larger count never weighs less"


@given(
    st.sampled_from(["trimmed", "median"]),
    st.integers(0, 10**6),
    st.floats(1, 1e9),
    st.floats(-1e6, 1e6),
)
def test_a_liar_lies_between_honest_values(how: str, seed: int, claimed: float, lie: float) -> None:
    """Whatever it sends and whatever count it claims."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(5, 3))
    counts = rng.integers(50, 400, 5).astype(float)
    means[0], counts[0] = lie, claimed
    found = mean_per_patient(*parts(means, counts), how)
    tolerance = 1e-9 * (1 + abs(lie))
    assert (found >= means[1:].min(axis=0) - tolerance).all()
    assert (found <= means[1:].max(axis=0) + tolerance).all()


def test_nothing_to_put_together() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_per_patient({}, {}, "none")
