"""A site's sum of bounded second moments of its patients, and how it is read again.

A patient with columns x (d,) and outcome y, of which r = y - [x, 1] . prior is left, is the row

    z = [w x, w, clip(w r, -c_r, c_r)],   w = min(1, c_x / |[x, 1]|),
    c_x^2 = 0.6 c^2,   c_r^2 = 0.4 c^2,   so that |z| <= c,

and a row that is not finite is zero. The weight w does not look at the outcome, so that it biases
nothing; an outcome beyond its bound counts as the bound. A site of n rows with sum t sends three
parts, one after the other, each symmetric matrix as its upper triangle with sqrt(2) times what is
off the diagonal, so that the Euclidean norm is the Frobenius norm:

    T = sum z z^T,    c^2 n / 4,    B / 6 with B = lambda / (1 + lambda n) t t^T.

B is what a shift common to a site's patients, of variance lambda times the residual's, takes out
of T: T - B = Z^T (I + lambda 1 1^T)^-1 Z (Laird and Ware 1982, Biometrics 38:963, equation 2.2,
with the inverse of Sherman and Morrison). Without lambda there is no B.

Guarantee: to add or to leave out any one patient of a site moves the whole vector by at most
c^2 sqrt(1 + 1/16 + 1/4) = the clipping norm (c^2 sqrt(1 + 1/16) without B). For T moves by z z^T,
of norm c^2 at most; and B by z z^T - v v^T, because T - B grows by v v^T with v the innovation
(z - phi m) / sqrt(1 + lambda / (1 + lambda n)), phi = lambda n / (1 + lambda n), m = t / n. With
|z| = a, |phi m| = b, both at most c, |z z^T - v v^T| is largest where they are opposite and the
root is 1: (a + b)^2 - a^2 <= 3 c^2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Given = NDArray[np.floating[Any]]
COUNT_SHARE: Final = 1 / 4
SITE_SHARE: Final = 1 / 2
OUTCOME_SHARE: Final = 0.4
"""Of the square of a row's longest length."""
SITE_REACH: Final = 3.0
"""How far one patient moves B, in c^2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """What a sum over sites holds.

    Attributes:
        within: T, (columns + 2, columns + 2): of [x, 1, r].
        patients: how many rows.
        between: B, the same shape; none where the sum has none.
    """

    within: Floats
    patients: float
    between: Floats | None


def row_norm(clipping_norm: float, site_variance_ratio: float) -> float:
    """The longest row, c, whose patient moves the sum by the clipping norm at most."""
    shares = 1 + COUNT_SHARE**2 + (SITE_SHARE**2 if site_variance_ratio > 0 else 0.0)
    return sqrt(clipping_norm / sqrt(shares))


def bounded_rows(features: Given, residuals: Given, longest: float) -> Floats:
    """The rows z, (patients, columns + 2); all zeros where a number is not finite.

    Args:
        features: (patients, columns).
        residuals: what is left of the outcome, (patients,).
        longest: c.
    """
    rows = np.concatenate([features, np.ones((len(features), 1))], axis=1, dtype=np.float64)
    left = np.asarray(residuals, np.float64)
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(rows, axis=1)
        weights = np.minimum(1.0, longest * sqrt(1 - OUTCOME_SHARE) / norms)
        reach = longest * sqrt(OUTCOME_SHARE)
        whole = np.column_stack([rows * weights[:, None], np.clip(left * weights, -reach, reach)])
    whole[~(np.isfinite(norms) & np.isfinite(left))] = 0.0
    return np.asarray(whole, np.float64)


def site_sum(
    features: Given,
    outcomes: Given,
    prior: Given,
    clipping_norm: float,
    site_variance_ratio: float,
) -> Floats:
    """One site's exact sum; it may not leave the site before noise is on it.

    Args:
        features: (patients, columns).
        outcomes: (patients,).
        prior: what is expected of the outcome by column, then the intercept, (columns + 1,).
        clipping_norm: largest move of the sum by one patient (Euclidean norm).
        site_variance_ratio: lambda; 0: no part B.

    Returns:
        T, count and B, as at the top of this module, flat.
    """
    longest = row_norm(clipping_norm, site_variance_ratio)
    with np.errstate(all="ignore"):
        residuals = outcomes - features @ prior[:-1] - prior[-1]
    rows = bounded_rows(features, residuals, longest)
    counted = float(np.count_nonzero(rows.any(axis=1)))
    parts = [packed(rows.T @ rows), np.array([longest**2 * COUNT_SHARE * counted])]
    if site_variance_ratio > 0:
        total = rows.sum(axis=0)
        shrink = site_variance_ratio / (1 + site_variance_ratio * counted)
        parts.append(packed(np.outer(total, total)) * (shrink * SITE_SHARE / SITE_REACH))
    return np.concatenate(parts)


def read_moments(
    arrays: Mapping[str, Given], clipping_norm: float, site_variance_ratio: float
) -> Moments:
    """The moments in a released sum.

    Args:
        arrays: `moments`, `patients`, and `site_moments` where there is a site variance ratio.
        clipping_norm: of the study.
        site_variance_ratio: of the study.

    Raises:
        ValueError: an array is missing, or no triangle of a symmetric matrix.
    """
    names = ["moments", "patients", *(["site_moments"] if site_variance_ratio > 0 else [])]
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"expected arrays {', '.join(names)}; missing {', '.join(missing)}")
    unit = row_norm(clipping_norm, site_variance_ratio) ** 2 * COUNT_SHARE
    between = None
    if site_variance_ratio > 0:
        between = unpacked(arrays["site_moments"]) * (SITE_REACH / SITE_SHARE)
    return Moments(
        within=unpacked(arrays["moments"]),
        patients=float(arrays["patients"][0]) / unit,
        between=between,
    )


def packed(matrix: Given) -> Floats:
    """The upper triangle of a symmetric matrix, row by row, of the same Euclidean norm."""
    upper = np.triu_indices(len(matrix))
    return np.asarray(matrix[upper] * np.where(upper[0] == upper[1], 1.0, sqrt(2.0)), np.float64)


def unpacked(values: Given) -> Floats:
    """The symmetric matrix of an upper triangle.

    Raises:
        ValueError: so many numbers are no triangle.
    """
    size = round((sqrt(8 * values.size + 1) - 1) / 2)
    if size * (size + 1) // 2 != values.size:
        raise ValueError(f"expected the triangle of a symmetric matrix, got {values.size} numbers")
    upper = np.triu_indices(size)
    matrix = np.zeros((size, size))
    matrix[upper] = values / np.where(upper[0] == upper[1], 1.0, sqrt(2.0))
    return np.asarray(matrix + np.triu(matrix, 1).T, np.float64)
