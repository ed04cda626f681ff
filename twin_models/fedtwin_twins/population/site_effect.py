"""A site's own shift, from its own patients: empirical Bayes, and nothing of it leaves the site.

With residuals e_i of n patients under the population values, their shift b ~ N(0, tau^2) has the
posterior (Lindley and Smith 1972, J R Stat Soc B 34:1, section 2)

    mean  sum e_i / (n + sigma^2 / tau^2),    variance  sigma^2 / (n + sigma^2 / tau^2).

A residual is held at 3 sqrt(sigma^2 + tau^2), so that the effect stays where most patients are.
The population values are taken as they are: their own uncertainty is not in the variance.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from fedtwin_twins.population.estimate import PopulationValues
from fedtwin_twins.population.moments import Given

_LONGEST: Final = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteEffect:
    """What a site's patients have beyond the population, in scaled units.

    Attributes:
        mean: added to what is expected of a patient of this site.
        variance: of that mean, given the site's patients.
        patients: that it was learned from.
    """

    mean: float
    variance: float
    patients: int


def site_effect(values: PopulationValues, features: Given, outcomes: Given) -> SiteEffect:
    """The posterior of a site's effect.

    Args:
        values: the population values.
        features: of the site's patients, (patients, columns); none at all leaves the prior.
        outcomes: scaled, (patients,).

    Raises:
        ValueError: as many outcomes as patients are needed.
    """
    if len(features) != len(outcomes):
        raise ValueError(f"expected {len(features)} outcomes, got {len(outcomes)}")
    if values.site_variance <= 0:
        return SiteEffect(mean=0.0, variance=0.0, patients=len(outcomes))
    reach = _LONGEST * sqrt(values.residual_variance + values.site_variance)
    residuals = np.clip(outcomes - values.expected(features), -reach, reach)
    weight = len(residuals) + values.residual_variance / values.site_variance
    return SiteEffect(
        mean=float(residuals.sum() / weight),
        variance=values.residual_variance / weight,
        patients=len(residuals),
    )
