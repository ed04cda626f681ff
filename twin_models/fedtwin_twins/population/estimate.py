"""From a noised sum of moments to population values, with uncertainty that includes the noise.

Model, of patient i at site s, in the scaled outcome y (a linear mixed model; Laird and Ware 1982,
Biometrics 38:963):

    y_i = [x_i, 1] . beta + b_s + e_i,    b_s ~ N(0, tau^2),  e_i ~ N(0, sigma^2),
    beta ~ N(prior, diag(sd^2)).

With the moments of `moments` (r is what the prior leaves of y), G = T - B holds A = G_xx and
g = G_xr, and with noise E of variance v a diagonal entry (half of it off the diagonal)

    g = A delta + error,   error ~ N(0, sigma^2 A + v/2 ((1 + |delta|^2) I + delta delta^T)),

delta = beta - prior: the posterior of delta is that of a linear regression of g on A, iterated
because its error depends on it. Where noise is large, T alone may say more than T - B does, whose
noise is six times as large; then the sites' shift is an error of sites, tau^2 times the sum of
n_s^2 m_s m_s^T, for which the mean site stands. Whichever has the smaller posterior variance is
taken.

Variances by moments (Henderson 1953, Biometrics 9:226, method 1): with w = [-delta, 1], q the mean
squared row weight, N patients of K sites, Phi = K phi(N / K),

    w^T T w = q N (sigma^2 + tau^2),
    w^T B w = q (tau^2 (N - Phi / lambda) + sigma^2 Phi) (K - 1) / K;

tau^2 is weighed with the plan's guess lambda sigma^2, as uncertain as it is large.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

import numpy as np

from fedtwin_twins.population.moments import Floats, Given, Moments, read_moments

_ITERATIONS: Final = 8
_LEAST_VARIANCE: Final = 1e-4
"""Of a residual, in squared scaled units: nobody is predicted better than that."""
_LEAST_SHARE: Final = 0.02
"""Of the plan's guess, below which a variance of sites is not believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """What a plan fixes about a population study.

    Attributes:
        columns: names of the model's columns.
        prior_mean: by column, then the intercept, (columns + 1,), in scaled units.
        prior_sd: the same, above 0.
        clipping_norm: largest move of a site's sum by one patient.
        site_variance_ratio: lambda, tau^2 / sigma^2 as it was guessed; 0: sites are alike.
        noise_sd: of each number of the whole sum; 0 without noise.
        sites: K, whose patients are in the sum.
    """

    columns: tuple[str, ...]
    prior_mean: Floats
    prior_sd: Floats
    clipping_norm: float
    site_variance_ratio: float
    noise_sd: float
    sites: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PopulationValues:
    """What was learned, in scaled units.

    Attributes:
        columns: names of the columns; the intercept stands behind them.
        mean: of the coefficients, (columns + 1,).
        covariance: of the coefficients, (columns + 1, columns + 1), sampling, noise and prior.
        residual_variance: sigma^2, between patients of one site with equal columns.
        residual_variance_sd: how uncertain it is.
        site_variance: tau^2, between sites.
        site_variance_sd: how uncertain it is.
        patients: as the sum says, with its noise.
        sites: whose patients they are.
        within_sites: whether patients were compared within their sites (T - B), or all together.
    """

    columns: tuple[str, ...]
    mean: Floats
    covariance: Floats
    residual_variance: float
    residual_variance_sd: float
    site_variance: float
    site_variance_sd: float
    patients: float
    sites: int
    within_sites: bool

    @property
    def standard_errors(self) -> Floats:
        """Of the coefficients, (columns + 1,)."""
        return np.sqrt(np.diag(self.covariance))

    def expected(self, features: Given) -> Floats:
        """The outcome's mean at a typical site, (patients,), for columns (patients, columns)."""
        return np.asarray(features @ self.mean[:-1] + self.mean[-1], np.float64)

    def variance(self, features: Given, site_variance: float | None = None) -> Floats:
        """Of one new patient's outcome around what is expected, (patients,).

        Args:
            features: (patients, columns).
            site_variance: of the patient's site; none: a site that nothing is known of.
        """
        rows = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        learned = np.einsum("ij,jk,ik->i", rows, self.covariance, rows)
        site = self.site_variance if site_variance is None else site_variance
        return np.asarray(learned + site + self.residual_variance, np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Variances:
    residual: float
    residual_sd: float
    site: float
    site_sd: float


def population_values(arrays: Mapping[str, Given], design: Design) -> PopulationValues:
    """The posterior of a study's population values.

    Args:
        arrays: the released sum: `moments`, `patients` and, with sites that differ,
            `site_moments`.
        design: what the plan fixes.

    Raises:
        ValueError: the arrays are not those of the design, or not finite.
    """
    found = read_moments(arrays, design.clipping_norm, design.site_variance_ratio)
    size = len(design.columns) + 2
    if found.within.shape != (size, size):
        raise ValueError(
            f"expected moments of {size - 2} columns, an intercept and the outcome, got "
            f"{len(found.within)} numbers a patient"
        )
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("expected finite moments, got NaN or infinity")
    found = replace(found, patients=max(found.patients, 1.0))
    candidates = [_solve(found, design, within=False)]
    if found.between is not None and design.sites > 1:
        candidates.append(_solve(found, design, within=True))
    return min(candidates, key=lambda one: float(one.covariance.diagonal() @ design.prior_sd**-2))


def _solve(found: Moments, design: Design, *, within: bool) -> PopulationValues:
    """Coefficients and variances in turn, until they agree."""
    size = len(design.columns) + 1
    delta, covariance = np.zeros(size), np.diag(design.prior_sd**2)
    for _ in range(_ITERATIONS):
        counted = size - float(covariance.diagonal() @ design.prior_sd**-2)
        variances = _variances(found, design, delta, counted)
        delta, covariance = _coefficients(found, design, variances, delta, within)
    return PopulationValues(
        columns=design.columns,
        mean=design.prior_mean + delta,
        covariance=covariance,
        residual_variance=variances.residual,
        residual_variance_sd=variances.residual_sd,
        site_variance=variances.site,
        site_variance_sd=variances.site_sd,
        patients=found.patients,
        sites=design.sites,
        within_sites=within,
    )


def _coefficients(
    found: Moments, design: Design, variances: _Variances, delta: Floats, within: bool
) -> tuple[Floats, Floats]:
    """Posterior mean and covariance of delta."""
    whole, noise = found.within, design.noise_sd**2
    if within and found.between is not None:
        whole, noise = whole - found.between, noise * (1 + _BETWEEN_NOISE**2)
    seen, identity = whole[:-1, :-1], np.eye(len(delta))
    sampling = variances.residual * _positive(seen)
    blurred = noise / 2 * ((1 + delta @ delta) * identity + np.outer(delta, delta))
    error = sampling + blurred + 1e-9 * identity * max(1.0, float(np.trace(sampling)))
    weighted = np.linalg.solve(error, seen).T
    precision = weighted @ seen + np.diag(design.prior_sd**-2.0)
    covariance = np.asarray(np.linalg.inv((precision + precision.T) / 2), np.float64)
    gain = covariance @ weighted
    if not within and found.between is not None:
        covariance = covariance + gain @ _of_sites(found, design, variances.site) @ gain.T
    return gain @ whole[:-1, -1], covariance


def _of_sites(found: Moments, design: Design, site_variance: float) -> Floats:
    """What shifts of whole sites add to the error of pooled moments; noise is cut off first."""
    assert found.between is not None
    seen = found.between[:-1, :-1]
    noise = _BETWEEN_NOISE * design.noise_sd * sqrt(2 * len(seen))
    mean_site = 1 / design.site_variance_ratio + found.patients / design.sites
    return site_variance * mean_site * _positive(seen - noise * np.eye(len(seen)))


def _variances(found: Moments, design: Design, delta: Floats, counted: float) -> _Variances:
    """Residual and site variance by moments; `counted` coefficients were fitted."""
    contrast = np.append(-delta, 1.0)
    length = float(contrast @ contrast)
    weight = max(float(found.within[-2, -2]), 1.0)
    free = max(weight - counted, 1.0)
    blur = design.noise_sd * length / free
    total = max(float(contrast @ found.within @ contrast) / free, blur, _LEAST_VARIANCE)
    total_sd = sqrt(2 * total**2 / free + blur**2)
    if found.between is None or design.sites < 2:
        return _Variances(residual=total, residual_sd=total_sd, site=0.0, site_sd=0.0)
    ratio, sites = design.site_variance_ratio, design.sites
    mean_weight = min(weight / found.patients, 1.0)
    mean_size = ratio * found.patients / sites
    shrunk = sites * mean_size / (1 + mean_size)
    share = (sites - 1) / sites
    carried = max((found.patients - shrunk / ratio - shrunk) * share, 1.0)
    seen = float(contrast @ found.between @ contrast) / mean_weight
    site = (seen - total * shrunk * share) / carried
    guess = ratio * total / (1 + ratio)
    spread = max(site, guess) + total * sites / found.patients
    noise = design.noise_sd * _BETWEEN_NOISE * length / mean_weight / carried
    variance = 2 / (sites - 1) * spread**2 + noise**2
    precision = 1 / variance + 1 / guess**2
    site = max((site / variance + 1 / guess) / precision, _LEAST_SHARE * guess)
    return _Variances(
        residual=max(total - site, _LEAST_SHARE * total, _LEAST_VARIANCE),
        residual_sd=total_sd,
        site=site,
        site_sd=sqrt(1 / precision),
    )


_BETWEEN_NOISE: Final = 6.0
"""Noise of B beside that of T: what B was scaled by before it was sent."""


def _positive(matrix: Floats) -> Floats:
    """The nearest matrix without negative eigenvalues, which only noise can make."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T, np.float64)
