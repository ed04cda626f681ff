"""Does the model explain this patient at all? Checks of each measurement and of all together.

1. Prior predictive. At the mode, Q = sum of squared residuals + eta' Omega^-1 eta. If a model is
   true, linear and normal, Q is the squared Mahalanobis distance of the n measurements from what
   the population predicts, so that it is chi-square with n degrees of freedom, whatever the
   effects are. For other models that is an approximation.
2. Posterior predictive (Gelman, Meng and Stern, Stat Sinica 1996;6:733). For each draw of the
   effects, the squared residuals of measurements that the model would make are chi-square with n
   degrees of freedom; the weighted mean of the chances to exceed the observed sum is the p-value.
   It is cautious: a model that bends far enough to explain anything passes.

A value below the limit of quantification counts as the middle of the probability that is left
for it: far above 0 where the model expected a value well above the limit.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence, standardised
from fedtwin_twins.belief.resampling import ROWS, Draws, pieces

SURPRISING: Final = 0.01
"""Under this p-value, the data do not fit the model."""
FAR: Final = 3.0
"""A measurement so many deviations from the model is pointed out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How well a model explains its patients.

    Attributes:
        residual: deviations of each measurement from the model at the mode, (patients,
            observations); 0 in empty slots.
        far: measurements more than `FAR` deviations off, or, where slips are expected, more
            likely one of those than not; (patients, observations).
        prior_p: see 1 above, (patients,); 1 without data.
        posterior_p: see 2 above, (patients,); 1 without data.
    """

    residual: Tensor
    far: Tensor
    prior_p: Tensor
    posterior_p: Tensor

    @property
    def p(self) -> Tensor:
        """The more worrying of both, (patients,)."""
        return torch.minimum(self.prior_p, self.posterior_p)


def check_fit(evidence: Evidence, mode: Tensor, draws: Draws) -> Fit:
    """Check patients against their model.

    Args:
        evidence: patients and their measurements.
        mode: (patients, effects).
        draws: from their posteriors.
    """
    with torch.no_grad():
        residual = _residuals(evidence, mode)
        far = residual.abs() > FAR
        if evidence.outliers is not None:
            slips = evidence.outliers.chance(residual) > 0.5
            far = (slips & ~evidence.observed.below) | (far & evidence.observed.below)
        count = evidence.observed.present.sum(dim=1).to(torch.float64)
        factor = torch.linalg.cholesky(evidence.covariance)
        points = torch.linalg.solve_triangular(factor, mode.mT, upper=False)
        prior = evidence.flattening * (points**2).sum(dim=0)
        distance = (residual**2).sum(dim=1) + prior
        return Fit(
            residual=residual,
            far=far & evidence.observed.present,
            prior_p=chi_square_beyond(distance, count),
            posterior_p=_posterior_p(evidence, draws, count),
        )


def chi_square_beyond(value: Tensor, degrees: Tensor) -> Tensor:
    """The chance of a chi-square variable above a value; 1 without degrees of freedom."""
    positive = degrees > 0
    shape = torch.where(positive, degrees, 1.0) / 2.0
    beyond = torch.special.gammaincc(shape, value.clamp(min=0.0) / 2.0)
    return torch.where(positive, beyond, 1.0)


def _residuals(evidence: Evidence, effects: Tensor) -> Tensor:
    """Normalised residuals at effects, (patients, observations)."""
    residual, _ = standardised(evidence.errors, evidence.observed, evidence.predicted(effects))
    if not bool(evidence.observed.below.any()):
        return residual
    half_below = torch.special.ndtr(residual) / 2.0
    middle = torch.special.ndtri(half_below.clamp(min=1e-300)).clamp(max=0.0)
    return torch.where(evidence.observed.below & evidence.observed.present, middle, residual)


def _posterior_p(evidence: Evidence, draws: Draws, count: Tensor) -> Tensor:
    number = draws.weights.shape[1]
    parts = []
    for rows in pieces(evidence.patients, ROWS // number):
        many = evidence.where(rows).repeated(number)
        residual = _residuals(many, draws.effects[rows].reshape(-1, evidence.effects))
        squares = (residual**2).sum(dim=1).view(len(rows), number)
        beyond = chi_square_beyond(squares, count[rows, None].expand_as(squares))
        parts.append((draws.weights[rows] * beyond.nan_to_num(nan=0.0)).sum(dim=1))
    return torch.cat(parts)
