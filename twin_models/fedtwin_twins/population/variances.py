"""Variances between patients and between sites, by moments (Henderson 1953, Biometrics 9:226).

With w = [-delta, 1], s = (K - 1) / K for the mean that was fitted, and the sizes of `design`,

    w^T T w = q N (sigma^2 + s tau^2),
    w^T B w = q s (tau^2 (N - Phi / lambda) + sigma^2 Phi).

tau^2 follows from both, and is weighed with the plan's guess lambda sigma^2, which is taken to be
as uncertain as it is large. sigma^2 follows from the first, or from their difference, in which
tau^2 hardly counts and noise counts for more: whichever is surer.
"""

from dataclasses import dataclass
from math import hypot, sqrt
from typing import Final

import numpy as np

from fedtwin_twins.population.design import BETWEEN_NOISE, Design, mean_weight, shrunk_sites
from fedtwin_twins.population.moments import Floats, Moments

_LEAST_VARIANCE: Final = 1e-4
"""Of a residual, in squared scaled units: nobody is predicted better than that."""
_LEAST_SHARE: Final = 0.02
"""Of the plan's guess, below which a variance of sites is not believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variances:
    """sigma^2 and tau^2, each with its sd."""

    residual: float
    residual_sd: float
    site: float
    site_sd: float


def variances_of(found: Moments, design: Design, delta: Floats, covariance: Floats) -> Variances:
    """Both variances, given the coefficients beyond the prior and their covariance."""
    contrast = np.append(-delta, 1.0)
    length = float(contrast @ contrast + np.trace(covariance))
    fitted = max(len(delta) - float(covariance.diagonal() @ design.prior_sd**-2), 0.0)
    free = max(float(found.within[-2, -2]) - fitted, 1.0)
    blur = design.noise_sd * length / free
    square = float(contrast @ found.within @ contrast)
    total = max(square / free, blur, _LEAST_VARIANCE)
    total_sd = sqrt(2 * total**2 / free + blur**2)
    if found.between is None or design.sites < 2:
        return Variances(residual=total, residual_sd=total_sd, site=0.0, site_sd=0.0)
    between, noise = float(contrast @ found.between @ contrast), design.noise_sd * length
    site, site_sd = _of_sites(found, design, total, between, noise)
    share = (design.sites - 1) / design.sites
    ways = [
        (total - share * site, hypot(total_sd, share * site_sd)),
        _within_sites(found, design, (site, site_sd), square - between, noise),
    ]
    residual, residual_sd = min(ways, key=lambda way: way[1])
    return Variances(
        residual=max(residual, _LEAST_SHARE * total, _LEAST_VARIANCE),
        residual_sd=residual_sd,
        site=site,
        site_sd=site_sd,
    )


def _of_sites(
    found: Moments, design: Design, total: float, between: float, noise: float
) -> tuple[float, float]:
    """tau^2 and its sd, from w^T B w and what patients of all sites together vary by."""
    ratio, sites, weight = design.site_variance_ratio, design.sites, mean_weight(found)
    share, shrunk = (sites - 1) / sites, shrunk_sites(found, design)
    carried = max(found.patients - shrunk / ratio - share * shrunk, 1.0)
    site = (between / weight / share - total * shrunk) / carried
    guess = ratio * total / (1 + ratio)
    spread = max(site, guess) + total * sites / found.patients
    blurred = noise * BETWEEN_NOISE / weight / share / carried
    variance = 2 / (sites - 1) * spread**2 + blurred**2
    precision = 1 / variance + 1 / guess**2
    site = max((site / variance + 1 / guess) / precision, _LEAST_SHARE * guess)
    return site, sqrt(1 / precision)


def _within_sites(
    found: Moments, design: Design, site: tuple[float, float], square: float, noise: float
) -> tuple[float, float]:
    """sigma^2 and its sd from w^T (T - B) w, given tau^2 with its sd."""
    weight, shrunk = mean_weight(found), shrunk_sites(found, design)
    share = (design.sites - 1) / design.sites
    left = share * shrunk / design.site_variance_ratio
    free = max(found.patients - share * shrunk - len(found.within) + 2, 1.0)
    residual = (square / weight - site[0] * left) / free
    sampling = 2 * residual**2 / free
    blur = noise * sqrt(1 + BETWEEN_NOISE**2) / weight / free
    return residual, sqrt(sampling + blur**2 + (site[1] * left / free) ** 2)
