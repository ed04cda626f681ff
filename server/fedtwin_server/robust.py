"""Sums put together so that a liar among them does little: no input or output here.

A part is the sum of one site, or of one group of sites. Each stands for its mean per patient m_i,
with its share of the patients as weight w_i; no weight exceeds a third, whatever count was
reported (with three parts or fewer all weigh the same). Then

- `none`: the sum of all parts over the number of all patients;
- `trimmed`: number by number, the mean of what is left when a third of the weight is cut off at
  either end (Yin et al. 2018, arXiv 1803.01498, definition 2, with weights): whoever has less than
  a third of the weight is cut off, or lies between honest values;
- `median`: number by number, the weighted median (definition 1 there);
- `krum`: of K parts, f = max(1, (K - 1) // 3) of them possibly false, the K - f with the smallest
  sums of squared distances to their K - f - 2 nearest (Blanchard et al. 2017, arXiv 1703.02757,
  "Multi-Krum"), averaged by weight.

All of it is post-processing of noised sums. A robust rule costs some accuracy where hospitals
differ; `none` leaves an attacker whatever its own bound admits.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Given = NDArray[np.floating[Any]]
How = Literal["none", "trimmed", "median", "krum"]
MOST_WEIGHT: Final = 1 / 3
TRIMMED: Final = 1 / 3


def mean_per_patient(sums: Mapping[str, Given], patients: Mapping[str, float], how: How) -> Numbers:
    """The mean contribution of a patient.

    Args:
        sums: by site or group, each (values,), finite.
        patients: of each of them, positive.
        how: see above.

    Returns:
        (values,)

    Raises:
        ValueError: there is no sum.
    """
    if not sums:
        raise ValueError("expected at least one sum")
    names = sorted(sums)
    counts = np.array([patients[name] for name in names], np.float64)
    parts = np.stack([np.asarray(sums[name], np.float64) for name in names])
    if how == "none" or len(names) < 3:
        return np.asarray(parts.sum(axis=0) / counts.sum(), np.float64)
    means = parts / counts[:, None]
    weights = capped_weights(counts)
    if how == "krum":
        return _krum(means, weights)
    return _trimmed(means, weights, 0.5 if how == "median" else TRIMMED)


def capped_weights(counts: Numbers) -> Numbers:
    """Shares of the patients, none above a third as far as there are parts enough, (parts,)."""
    most = max(MOST_WEIGHT, 1 / len(counts))
    weights: Numbers = counts / counts.sum()
    for _ in range(len(counts)):
        high = weights >= most
        if not (weights > most * (1 + 1e-12)).any():
            break
        low = weights[~high].sum()
        scale = (1 - most * high.sum()) / low if low > 0 else 0.0
        weights = np.where(high, most, weights * scale)
    return np.asarray(weights / weights.sum(), np.float64)


def _trimmed(means: Numbers, weights: Numbers, cut: float) -> Numbers:
    """Weighted mean of what lies between the shares `cut` and 1 - `cut`, number by number."""
    order = np.argsort(means, axis=0, kind="stable")
    values = np.take_along_axis(means, order, axis=0)
    upper = np.cumsum(weights[order], axis=0)
    lower = upper - weights[order]
    if cut >= 0.5:
        first = np.argmax(upper >= 0.5 - 1e-12, axis=0)
        after = np.argmax(upper > 0.5 + 1e-12, axis=0)
        pick = np.arange(values.shape[1])
        return np.asarray((values[first, pick] + values[after, pick]) / 2, np.float64)
    kept = np.clip(upper, cut, 1 - cut) - np.clip(lower, cut, 1 - cut)
    return np.asarray((kept * values).sum(axis=0) / kept.sum(axis=0), np.float64)


def _krum(means: Numbers, weights: Numbers) -> Numbers:
    count = len(means)
    liars = max(1, (count - 1) // 3)
    squares = (means**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * means @ means.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)[:, : max(1, count - liars - 2)]
    chosen = np.argsort(nearest.sum(axis=1), kind="stable")[: count - liars]
    shares = weights[chosen] / weights[chosen].sum()
    return np.asarray(shares @ means[chosen], np.float64)
