"""Sums of clipped per-patient gradients of generalised linear models, in closed form.

With the canonical link the gradient of one patient's loss is (m - y) [x, 1], m the model's mean:
1 / (1 + exp(-z)) for yes or no, z for a value with normal errors, exp(z) for a count (McCullagh and
Nelder 1989, section 2.5); its norm is |m - y| sqrt(|x|^2 + 1). It is scaled to at most the clipping
norm, and a contribution that is not finite is zeroed, before anything is summed: so one patient
moves the sum by at most the clipping norm, whatever the record.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from fedtwin_client.training.noise import Floats
from fedtwin_twins.risk import logistic

MEANS: Final[Mapping[str, Callable[[Floats], Floats]]] = {
    "logistic_regression": logistic,
    "linear_regression": lambda scores: scores,
    "poisson_regression": np.exp,
}
"""The mean of an outcome by its linear predictor."""


def clipped_gradient_sum(
    features: Floats,
    outcomes: Floats,
    weights: Floats,
    clipping_norm: float,
    family: str = "logistic_regression",
) -> Floats:
    """The sum over patients of their clipped gradients.

    Args:
        features: (patients, columns).
        outcomes: (patients,): 0 or 1, a value or a count.
        weights: columns, then the intercept, (columns + 1,).
        clipping_norm: largest Euclidean norm of a patient's contribution.
        family: one of `MEANS`.

    Returns:
        (columns + 1,)
    """
    with np.errstate(all="ignore"):
        error = MEANS[family](features @ weights[:-1] + weights[-1]) - outcomes
        norms = np.abs(error) * np.sqrt(np.einsum("ij,ij->i", features, features) + 1)
        scale = error * np.minimum(1.0, clipping_norm / np.maximum(norms, 1e-300))
    return _weighted(features, scale, norms)


def clipped_signed_sum(features: Floats, outcomes: Floats, clipping_norm: float) -> Floats:
    """Minus the sum over patients of (2y - 1) clip([x, 1]), the direction of the mean vector.

    One step of length s from zero along it divided by the number of patients gives the model
    s mean((2y - 1) clip([x, 1])): the difference of the classes' means, which for equal classes and
    equal spherical covariances is the discriminant (Fisher 1936). Arguments and result as
    `clipped_gradient_sum`.
    """
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", features, features) + 1)
        scale = (1 - 2 * outcomes) * np.minimum(1.0, clipping_norm / norms)
    return _weighted(features, scale, norms)


def _weighted(features: Floats, scale: Floats, norms: Floats) -> Floats:
    """The sum of scale [x, 1] over the patients for whom all is finite."""
    sound = np.isfinite(norms) & np.isfinite(scale) & np.isfinite(features).all(axis=1)
    scale = np.where(sound, scale, 0.0)
    rows = features if sound.all() else np.where(sound[:, None], features, 0.0)
    return np.append(scale @ rows, scale.sum())
