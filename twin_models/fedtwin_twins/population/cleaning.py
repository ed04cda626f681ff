"""A noised matrix of second moments, cleaned by what every such matrix has in common.

Noise has variance v on the diagonal and v / 2 off it. With m the mean of the columns' squares and p
the intercept's own entry, which is known from the number of patients, an entry is taken to be
normal around m with sd m (a square), around 0 with sd m / 2 (a product of two columns, of a
correlation between -1 and 1), or around 0 with sd sqrt(m p) / 2 (a column with the intercept). Its
posterior shrinks it by as much as the noise outweighs that, and leaves it a variance. Where noise
is small nothing changes. Then the nearest matrix without negative eigenvalues is taken.

Without this, large noise would pass for large moments, that is for information.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_twins.population.moments import Floats

_CORRELATION: Final = 0.5
"""Sd of the correlation of two columns, before anything is seen of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """A matrix and what is left unclear of each of its entries, as variances of equal shape."""

    matrix: Floats
    variances: Floats


def cleaned(matrix: Floats, noise_variance: float, corner: float, largest_mean: float) -> Cleaned:
    """Shrink a noised matrix of moments.

    Args:
        matrix: symmetric, the intercept last, (values, values).
        noise_variance: v, of an entry on the diagonal.
        corner: p, above 0.
        largest_mean: the columns' squares have no larger mean.
    """
    shrunk, variances = matrix.copy(), np.zeros(matrix.shape)
    columns = len(matrix) - 1
    if noise_variance > 0 and columns:
        squares = matrix.diagonal()[:-1]
        mean = float(np.clip(squares.mean(), 1e-6 * largest_mean, largest_mean))
        sds = np.full(matrix.shape, _CORRELATION * mean)
        sds[-1, :] = sds[:, -1] = _CORRELATION * sqrt(mean * corner)
        np.fill_diagonal(sds, mean)
        noise = np.full(matrix.shape, noise_variance / 2)
        np.fill_diagonal(noise, noise_variance)
        centers = np.diag(np.append(np.full(columns, mean), corner))
        share = sds**2 / (sds**2 + noise)
        shrunk = centers + share * (matrix - centers)
        variances = share * noise
        shrunk[-1, -1], variances[-1, -1] = corner, 0.0
    return Cleaned(matrix=_positive(shrunk), variances=variances)


def _positive(matrix: NDArray[np.float64]) -> Floats:
    """The nearest matrix without negative eigenvalues, which only noise can make."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T, np.float64)
