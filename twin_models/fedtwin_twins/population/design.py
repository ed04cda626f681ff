"""What a plan fixes about a population study, and what follows from it and the sum's own sizes.

With q the mean squared weight of a row, N patients of K sites, phi(n) = lambda n / (1 + lambda n):
Phi = K phi(N / K) stands for the sum of phi over the sites, and the intercept's entry of B is
q (N - Phi / lambda).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedtwin_twins.population.moments import Floats, Moments

BETWEEN_NOISE: Final = 6.0
"""Noise of B beside that of T: what B was scaled by before it was sent."""
_LEAST_WEIGHT: Final = 0.05
"""Of a row, beside one that is not shortened; less is noise."""


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


def between_intercept(found: Moments, design: Design) -> float:
    """B's entry of the intercept, q (N - Phi / lambda)."""
    ratio = design.site_variance_ratio
    patients = found.patients - shrunk_sites(found, design) / ratio
    return mean_weight(found) * max(patients, 1.0)


def mean_weight(found: Moments) -> float:
    """q, of a patient's squared row weight."""
    return float(np.clip(found.within[-2, -2] / found.patients, _LEAST_WEIGHT, 1.0))


def shrunk_sites(found: Moments, design: Design) -> float:
    """Phi, from sites of mean size."""
    mean_size = design.site_variance_ratio * found.patients / design.sites
    return design.sites * mean_size / (1 + mean_size)
