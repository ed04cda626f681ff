"""The attacks' arithmetic on cases whose answer is known."""

import numpy as np
import pytest
from scipy import stats

from fedtwin_twins.audits.inversion import cosines, inversion_finding, read_record
from fedtwin_twins.audits.membership import (
    attack,
    confidence,
    curve_of,
    membership_finding,
    most_found,
    most_found_gaussian,
    points_for_plot,
    random_halves,
)
from fedtwin_twins.audits.one_run import (
    best_guesses,
    chance_of_guesses,
    epsilon_bound,
    one_run_finding,
    right_guesses,
)


def test_halves_are_halves() -> None:
    taken = random_halves(16, 500, seed=1)
    assert (taken.sum(axis=0) == 8).all()
    assert taken.mean(axis=1) == pytest.approx(0.5, abs=0.1)
    assert (random_halves(16, 500, seed=1) == taken).all()
    with pytest.raises(ValueError, match="4 shadow"):
        random_halves(3, 5, seed=1)


def test_confidence_is_the_log_odds_of_what_happened() -> None:
    found = confidence(np.array([[2.0, 2.0, -1.0]]), np.array([1.0, 0.0, 0.0]))
    assert found.tolist() == [[2.0, -2.0, 1.0]]


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, 3.0])
def test_lira_reaches_what_is_best_for_gaussians(shift: float) -> None:
    """Scores with a mean of each patient's own, moved by membership: no test beats the shift."""
    generator = np.random.default_rng(4)
    taken = random_halves(128, 400, seed=2)
    own = generator.normal(size=400) * 5
    scores = own + shift * taken + generator.normal(size=taken.shape)
    curve = attack(scores, taken)
    best = most_found_gaussian(shift)
    assert curve.found_at() == pytest.approx(best, rel=0.12, abs=0.002)
    assert curve.area == pytest.approx(stats.norm.cdf(shift / 2**0.5), abs=0.015)
    assert curve.members == taken.size // 2


def test_a_patient_seen_too_rarely_is_refused() -> None:
    taken = np.ones((6, 3), np.bool_)
    with pytest.raises(ValueError, match="in and out twice"):
        attack(np.zeros((6, 3)), taken)


def test_the_curve_counts_ties_once() -> None:
    curve = curve_of(np.array([2.0, 1.0, 1.0]), np.array([1.0, 1.0, 0.0]))
    assert curve.false_positives.tolist() == pytest.approx([0, 0, 2 / 3, 1])
    assert curve.true_positives.tolist() == pytest.approx([0, 1 / 3, 1, 1])
    assert len(points_for_plot(curve)) == 60


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_privacy_allows_gaussian_privacy_of_the_same_epsilon(epsilon: float) -> None:
    from fedtwin_protocol.privacy import gaussian_mu

    mu = gaussian_mu(epsilon, 1e-5)
    assert most_found_gaussian(mu) <= most_found(epsilon, 1e-5)
    assert most_found(0.0, 0.0) == pytest.approx(0.01)
    assert most_found(float("inf"), 1e-5) == 1.0


def test_a_finding_says_whether_the_attack_works() -> None:
    generator = np.random.default_rng(1)
    weak, strong = (
        curve_of(generator.normal(size=5000) + m, generator.normal(size=5000)) for m in (0, 3)
    )
    assert membership_finding(weak, strong, 0.027, "membership").passed
    assert not membership_finding(strong, strong, 0.027, "membership").passed
    assert "shows nothing" not in membership_finding(weak, strong, 0.027, "membership").reading
    assert "shows nothing" in membership_finding(weak, weak, 0.027, "membership").reading


def test_a_record_is_read_exactly_and_a_mixture_is_not() -> None:
    generator = np.random.default_rng(3)
    record, other = generator.normal(size=(2, 9))
    slopes, more = generator.normal(size=(2, 5))
    alone = read_record(np.outer(slopes, record), slopes)
    assert alone == pytest.approx(record)
    mixed = read_record(np.outer(slopes, record) + np.outer(more, other), slopes + more)
    assert cosines(mixed, record) < 0.99
    assert cosines(record[None], -record[None]) == pytest.approx(-1)


def test_inversion_passes_only_where_records_are_not_seen() -> None:
    assert inversion_finding(np.ones(5), np.full(5, 0.1), "inversion").passed
    assert not inversion_finding(np.ones(5), np.full(5, 0.4), "inversion").passed


@pytest.mark.parametrize("guesses", [5, 40, 200])
def test_the_bound_of_perfect_guesses_is_that_of_randomised_response(guesses: int) -> None:
    """Without delta: (e^epsilon / (1 + e^epsilon))^r = 0.05."""
    found = epsilon_bound(guesses, guesses, guesses, 0.0)
    chance = 0.05 ** (1 / guesses)
    assert found == pytest.approx(np.log(chance / (1 - chance)), abs=1e-6)


def _as_published(m: int, r: int, v: int, eps: float, delta: float) -> float:
    """The authors' program (arXiv 2305.08846, appendix D), with SciPy."""
    q = 1 / (1 + np.exp(-eps))
    beta = stats.binom.sf(v - 1, r, q)
    alpha = total = 0.0
    for i in range(1, v + 1):
        total += stats.binom.pmf(v - i, r, q)
        alpha = max(alpha, total / i)
    return float(min(beta + alpha * delta * 2 * m, 1))


@pytest.mark.parametrize(
    ("m", "r", "v"), [(10, 10, 9), (1000, 200, 123), (1000, 100, 100), (5, 4, 0)]
)
@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
def test_the_chance_is_that_of_the_authors_program(m: int, r: int, v: int, delta: float) -> None:
    for epsilon in (0.0, 0.5, 3.0):
        expected = _as_published(m, r, v, epsilon, delta)
        assert chance_of_guesses(m, r, v, epsilon, delta) == pytest.approx(expected, abs=1e-12)


def test_bounds_of_honest_runs_exceed_the_truth_no_more_often_than_stated() -> None:
    generator = np.random.default_rng(5)
    mu, epsilon, delta = 0.26805, 1.0, 1e-5
    guesses = best_guesses(1000, mu, delta)
    exceeded = 0
    for _ in range(200):
        taken = (generator.random(1000) < 0.5).astype(float)
        scores = mu * taken + generator.normal(size=1000)
        right = right_guesses(scores, taken, guesses)
        exceeded += epsilon_bound(1000, guesses, right, delta) > epsilon
    assert exceeded <= 10


def test_wrong_counts_are_refused_and_findings_compare() -> None:
    with pytest.raises(ValueError, match="guesses"):
        epsilon_bound(10, 5, 6, 0.0)
    assert one_run_finding(0.4, 1.0, 10, 5, 4).passed
    assert not one_run_finding(1.4, 1.0, 10, 5, 4).passed
