"""What a site makes of population values with its own patients; nothing of it leaves the site.

The released posterior of the coefficients, N(m, S), and the site's shift b ~ N(0, tau^2) are the
prior of a Bayesian linear regression (Lindley and Smith 1972, J R Stat Soc B 34:1, section 2) on
the residuals e of its n patients under m, with rows Z = [x, 1, 1] for (beta - m, b):

    precision  P = blockdiag(S^-1, 1 / tau^2) + Z^T Z / sigma^2,    mean  P^-1 Z^T e / sigma^2.

Where the values are certain this is the site's shrunken mean residual. Where noise has left them
uncertain, the site's patients, who need no noise here, settle more than a shift. They were in the
released sum once already: with k sites of equal size they count as 1 + 1 / k of themselves.

A residual is held at three times its own sd, so that the effect stays where most patients are.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from fedtwin_twins.population.estimate import PopulationValues
from fedtwin_twins.population.moments import Floats, Given

_LONGEST: Final = 3.0
_NO_VARIANCE: Final = 1e-12
"""Of sites that are taken to be alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteValues:
    """A site's own values, in scaled units.

    Attributes:
        coefficients: of the columns, then the intercept with the site's shift, (columns + 1,).
        shift: the site's part of that intercept.
        shift_sd: how uncertain it is, given the site's patients.
        patients: that it was learned from.
    """

    coefficients: Floats
    shift: float
    shift_sd: float
    patients: int

    def expected(self, features: Given) -> Floats:
        """The outcome's mean at this site, (patients,), for columns (patients, columns)."""
        return np.asarray(features @ self.coefficients[:-1] + self.coefficients[-1], np.float64)


def site_values(values: PopulationValues, features: Given, outcomes: Given) -> SiteValues:
    """The posterior of a site's own values.

    Args:
        values: the population values.
        features: of the site's patients, (patients, columns); none at all leaves the population's.
        outcomes: scaled, (patients,).

    Raises:
        ValueError: as many outcomes as patients are needed.
    """
    if len(features) != len(outcomes):
        raise ValueError(f"expected {len(features)} outcomes, got {len(outcomes)}")
    reach = _LONGEST * np.sqrt(values.variance(features))
    residuals = np.clip(outcomes - values.expected(features), -reach, reach)
    ones = np.ones((len(features), 1))
    rows = np.concatenate([features, ones, ones], axis=1)
    size = len(values.mean)
    site_variance = max(values.site_variance, _NO_VARIANCE)
    precision = rows.T @ rows / values.residual_variance
    precision[:size, :size] += np.linalg.inv(values.covariance)
    precision[-1, -1] += 1 / site_variance
    covariance = np.linalg.inv(precision)
    moved = covariance @ (rows.T @ residuals) / values.residual_variance
    coefficients = values.mean + moved[:-1]
    coefficients[-1] += moved[-1]
    return SiteValues(
        coefficients=coefficients,
        shift=float(moved[-1]),
        shift_sd=sqrt(float(covariance[-1, -1])),
        patients=len(residuals),
    )
