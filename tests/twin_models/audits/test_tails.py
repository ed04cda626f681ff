"""Tail probabilities of our own against SciPy's."""

import pytest
from scipy import stats

from fedtwin_twins.audits.tails import (
    binomial_chances,
    chi_square_tails,
    normal_quantile,
    normal_tail,
    two_sided,
)


@pytest.mark.parametrize("freedom", [1, 2, 7, 399, 5600, 400_000])
@pytest.mark.parametrize("ratio", [0.3, 0.9, 0.99, 1.0, 1.01, 1.2, 4.0])
def test_chi_square(freedom: int, ratio: float) -> None:
    below, above = chi_square_tails(freedom * ratio, freedom)
    law = stats.chi2(freedom)
    assert min(below, above) == pytest.approx(
        min(law.cdf(freedom * ratio), law.sf(freedom * ratio)), rel=1e-7, abs=1e-290
    )
    assert below + above == pytest.approx(1.0)


def test_ends() -> None:
    assert chi_square_tails(0.0, 3) == (0.0, 1.0)
    assert chi_square_tails(float("inf"), 3) == (1.0, 0.0)
    assert two_sided(3.0, 3) == pytest.approx(2 * stats.chi2.sf(3.0, 3))
    with pytest.raises(ValueError, match="freedom"):
        chi_square_tails(1.0, 0)


@pytest.mark.parametrize("chance", [1e-9, 0.01, 0.5, 0.99])
def test_normal(chance: float) -> None:
    assert normal_quantile(chance) == pytest.approx(stats.norm.ppf(chance))
    assert normal_tail(stats.norm.isf(chance)) == pytest.approx(chance)


@pytest.mark.parametrize(("trials", "chance"), [(1, 0.5), (100, 0.7), (4000, 0.95), (5, 1.0)])
def test_binomial(trials: int, chance: float) -> None:
    found = binomial_chances(trials, chance)
    assert found == pytest.approx(stats.binom.pmf(range(trials + 1), trials, chance), abs=1e-12)
