"""Effects of arms: differences of means and risks, adjusted for a frozen prognostic score or not.

Both are least squares of the outcome on the arm (and the centred score), with standard errors that
hold although the variance differs between arms or with the score (HC3; MacKinnon and White 1985,
doi 10.1016/0304-4076(85)90158-7; Long and Ervin 2000, doi 10.1080/00031305.2000.10474549). For a
yes-or-no outcome the effect is a difference of risks. With randomised arms the adjusted estimate is
as unbiased as the other one, and more precise the better the score (PROCOVA; Schuler et al. 2022,
doi 10.1515/ijb-2021-0072; Lin 2013, doi 10.1214/12-AOAS583).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from fedtwin_twins.trials.allocation import Allocation
from fedtwin_twins.trials.population import VirtualPatients
from fedtwin_twins.trials.prognosis import FrozenScore, check_unchanged
from fedtwin_twins.trials.streams import Floats

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """An effect with its uncertainty.

    Attributes:
        effect: treated minus control, in the outcome's unit.
        error: its standard error.
        low: lower end of the confidence interval.
        high: upper end.
        p_value: two-sided, against no effect.
        patients: with an outcome.
    """

    effect: float
    error: float
    low: float
    high: float
    p_value: float
    patients: int


def difference(outcome: Floats, treated: Flags, confidence: float = 0.95) -> Estimate:
    """Difference of means, or of risks; patients without an outcome (NaN) are left out.

    Args:
        outcome: (patients,).
        treated: in the arm that is compared, (patients,); the others are the control.
        confidence: of the interval.

    Raises:
        ValueError: an arm has fewer than two patients with an outcome.
    """
    return _fitted(outcome, treated, [], confidence)


def procova(
    outcome: Floats,
    patients: VirtualPatients,
    arms: tuple[int, int],
    allocation: Allocation,
    score: FrozenScore,
    confidence: float = 0.95,
) -> Estimate:
    """The difference between two arms, adjusted for the prognostic score.

    Args:
        outcome: of all patients, (patients,).
        patients: all that were randomised.
        arms: the arm that is compared, and the control.
        allocation: of all patients.
        score: frozen before the allocation.
        confidence: of the interval.

    Raises:
        ValueError: the score is not the one that was frozen before randomisation.
    """
    if allocation.score_digest != score.digest:
        raise ValueError("expected the prognostic score that was frozen before randomisation")
    check_unchanged(score, patients)
    chosen = np.isin(allocation.arm, arms)
    treated = allocation.arm[chosen] == arms[0]
    return adjusted(outcome[chosen], treated, [score.values[chosen]], confidence)


def adjusted(
    outcome: Floats, treated: Flags, columns: Sequence[Floats], confidence: float = 0.95
) -> Estimate:
    """The difference, adjusted for columns that were known before randomisation (ANCOVA).

    Args:
        outcome: (patients,).
        treated: in the arm that is compared, (patients,).
        columns: known before, (patients,) each; one that does not vary is left out.
        confidence: of the interval.

    Raises:
        ValueError: an arm has fewer than two patients with an outcome.
    """
    return _fitted(outcome, treated, columns, confidence)


def _fitted(
    outcome: Floats, treated: Flags, columns: Sequence[Floats], confidence: float
) -> Estimate:
    seen = np.isfinite(outcome)
    y, arm = outcome[seen], treated[seen]
    if min(arm.sum(), (~arm).sum()) < 2:
        raise ValueError("expected at least two patients with an outcome in each arm")
    kept = [column[seen] - column[seen].mean() for column in columns if np.ptp(column[seen]) > 0]
    matrix = np.stack([np.ones(len(y)), arm.astype(np.float64), *kept], axis=1)
    inverse = np.linalg.pinv(matrix.T @ matrix)
    weights = inverse @ (matrix.T @ y)
    left = y - matrix @ weights
    leverage = np.einsum("ij,jk,ik->i", matrix, inverse, matrix)
    scaled = (left / np.maximum(1 - leverage, 1e-9)) ** 2
    covariance = inverse @ (matrix.T * scaled) @ matrix @ inverse
    error = sqrt(max(float(covariance[1, 1]), 0.0))
    freedom = len(y) - matrix.shape[1]
    effect = float(weights[1])
    width = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    chance = 2 * float(stdtr(freedom, -abs(effect) / error)) if error > 0 else float(effect == 0)
    return Estimate(
        effect=effect,
        error=error,
        low=effect - width,
        high=effect + width,
        p_value=chance,
        patients=len(y),
    )


def risk_interval(events: int, patients: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a share by Wilson's score (1927, doi 10.1080/01621459.1927.10502953).

    Raises:
        ValueError: there is nobody, or there are more events than patients.
    """
    if patients < 1 or not 0 <= events <= patients:
        raise ValueError(f"expected 0 to {patients} events of at least one patient, found {events}")
    z = float(ndtri((1 + confidence) / 2))
    share = events / patients
    middle = share + z**2 / (2 * patients)
    width = z * sqrt(share * (1 - share) / patients + z**2 / (4 * patients**2))
    whole = 1 + z**2 / patients
    return max((middle - width) / whole, 0.0), min((middle + width) / whole, 1.0)


def mean_interval(
    mean: float, sd: float, patients: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Interval of a mean by Student's t; without bounds where there are fewer than two patients."""
    if patients < 2:
        return -np.inf, np.inf
    width = float(stdtrit(patients - 1, (1 + confidence) / 2)) * sd / sqrt(patients)
    return mean - width, mean + width


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        found[place] = highest
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class OverReplicates:
    """A figure over the replicates of a trial.

    Attributes:
        mean: over replicates.
        monte_carlo_error: standard error of that mean, from the spread between replicates.
        sd: the spread between replicates.
        replicates: with a finite figure.
    """

    mean: float
    monte_carlo_error: float
    sd: float
    replicates: int


def over_replicates(values: Sequence[float]) -> OverReplicates:
    """Mean with its Monte-Carlo error (Morris et al. 2019, doi 10.1002/sim.8086, Table 6)."""
    there = np.array([value for value in values if np.isfinite(value)])
    if not len(there):
        return OverReplicates(mean=np.nan, monte_carlo_error=np.nan, sd=np.nan, replicates=0)
    sd = float(there.std(ddof=1)) if len(there) > 1 else float("nan")
    return OverReplicates(
        mean=float(there.mean()),
        monte_carlo_error=sd / sqrt(len(there)),
        sd=sd,
        replicates=len(there),
    )
