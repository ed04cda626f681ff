"""From a noised sum of moments to population values, with uncertainty that includes the noise.

Model, of patient i at site s, in the scaled outcome y (a linear mixed model; Laird and Ware 1982,
Biometrics 38:963):

    y_i = [x_i, 1] . beta + b_s + e_i,    b_s ~ N(0, tau^2),  e_i ~ N(0, sigma^2),
    beta ~ N(prior, diag(sd^2)).

What the outcome's bound took from the moments of `moments` is given back first (`clipping`). Then,
r being what the prior leaves of y, G = T - B holds A = G_xx and g = G_xr, blurred by noise. A is
cleaned (`cleaning`), which leaves each entry a variance; and with delta = beta - prior, and what
noise leaves unclear of A delta and g as a covariance N,

    g = A delta + error,    error ~ N(0, sigma^2 A + N),

so that the posterior of delta is that of a linear regression of g on A; it is iterated, because N
grows with delta. Where noise is large, T alone may say more than T - B does, whose noise is six
times as large; then the sites' shift is an error of sites, tau^2 times the sum of n_s^2 m_s m_s^T,
for which the mean site stands; in T - B what the sites' variance has beyond lambda sigma^2 is left
as such an error. Whichever has the smaller posterior variance is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

import numpy as np

from fedtwin_twins.population.cleaning import Cleaned, cleaned
from fedtwin_twins.population.clipping import kept_share, unbounded_sd
from fedtwin_twins.population.design import BETWEEN_NOISE, Design, between_intercept
from fedtwin_twins.population.moments import (
    OUTCOME_SHARE,
    Floats,
    Given,
    Moments,
    read_moments,
    row_norm,
)
from fedtwin_twins.population.variances import Variances, variances_of

_ITERATIONS: Final = 8
_MARGIN: Final = 0.8
"""Pooled moments are taken where their variance is that much smaller: the smaller of two estimates
of it is too small."""


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
        within_bound: about the share of outcomes that lay within their bound; with fewer than nine
            in ten the errors are larger than they say.
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
    within_bound: float

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
    found, kept = _given_back(replace(found, patients=max(found.patients, 1.0)), design)
    pooled = _solve(found, design, kept, within=False)
    if found.between is None or design.sites < 2:
        return pooled
    apart = _solve(found, design, kept, within=True)
    left, others = (
        float(one.covariance.diagonal() @ design.prior_sd**-2) for one in (pooled, apart)
    )
    return pooled if left < _MARGIN * others else apart


def _given_back(found: Moments, design: Design) -> tuple[Moments, float]:
    """Moments as if the outcome had no bound, and the share that the bound had left of them."""
    longest = row_norm(design.clipping_norm, design.site_variance_ratio)
    bound = longest * sqrt(OUTCOME_SHARE)
    mean_square = float(found.within[-1, -1]) / found.patients
    if mean_square <= 0:  # noise alone
        return found, 1.0
    sd = unbounded_sd(mean_square, bound)
    kept = kept_share(sd, bound)
    scale = np.append(np.ones(len(found.within) - 1), 1 / kept)
    within = found.within * np.outer(scale, scale)
    within[-1, -1] = found.patients * sd**2
    between = None if found.between is None else found.between * np.outer(scale, scale)
    return replace(found, within=within, between=between), kept


def _solve(found: Moments, design: Design, kept: float, *, within: bool) -> PopulationValues:
    """Coefficients and variances in turn, until they agree."""
    size = len(design.columns) + 1
    seen = _seen(found, design, kept, within=within)
    delta, covariance = np.zeros(size), np.diag(design.prior_sd**2)
    for _ in range(_ITERATIONS):
        variances = variances_of(found, design, delta, covariance)
        delta, covariance = _coefficients(seen, design, variances, delta, covariance)
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
        within_bound=kept,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What a regression is made of.

    Attributes:
        products: A, with what is unclear of it.
        with_outcome: g.
        outcome_variance: of the noise in g.
        of_sites: moments by which shifts of sites beyond `ratio` blur g, for a variance of 1.
        ratio: of the variances, that is allowed for in A already.
    """

    products: Cleaned
    with_outcome: Floats
    outcome_variance: float
    of_sites: Floats
    ratio: float


def _seen(found: Moments, design: Design, kept: float, *, within: bool) -> _Seen:
    whole, noise, ratio = found.within, design.noise_sd**2, 0.0
    of_sites = np.zeros((len(whole) - 1, len(whole) - 1))
    corner = float(whole[-2, -2])
    longest = row_norm(design.clipping_norm, design.site_variance_ratio)
    mean_square = found.patients * longest**2 / len(of_sites)
    if found.between is not None:
        between, guess = between_intercept(found, design), design.site_variance_ratio
        blurred = noise * BETWEEN_NOISE**2
        apart = cleaned(found.between[:-1, :-1], blurred, between, mean_square).matrix
        mean_site = 1 + guess * found.patients / design.sites
        if within:
            whole, noise, ratio = whole - found.between, noise + blurred, guess
            corner -= between
            of_sites = apart / (guess * mean_site)
        else:
            of_sites = apart * mean_site / guess
    return _Seen(
        products=cleaned(whole[:-1, :-1], noise, max(corner, 1.0), mean_square),
        with_outcome=whole[:-1, -1],
        outcome_variance=noise / 2 / kept**2,
        of_sites=of_sites,
        ratio=ratio,
    )


def _coefficients(
    seen: _Seen, design: Design, variances: Variances, delta: Floats, covariance: Floats
) -> tuple[Floats, Floats]:
    """Posterior mean and covariance of delta, from those of the last round."""
    products, identity = seen.products.matrix, np.eye(len(delta))
    square = np.outer(delta, delta) + covariance
    unclear = seen.products.variances * square
    np.fill_diagonal(unclear, seen.products.variances @ square.diagonal())
    error = variances.residual * products + unclear + seen.outcome_variance * identity
    error = error + 1e-9 * identity * max(1.0, float(np.trace(products)))
    weighted = np.linalg.solve(error, products).T
    precision = weighted @ products + np.diag(design.prior_sd**-2.0)
    spread = np.asarray(np.linalg.inv((precision + precision.T) / 2), np.float64)
    gain = spread @ weighted
    # Of few sites the variance is not well known: it may be an sd larger.
    site = variances.site + variances.site_sd
    beyond = max(site - seen.ratio * variances.residual, 0.0)
    return gain @ seen.with_outcome, spread + beyond * (gain @ seen.of_sites @ gain.T)
