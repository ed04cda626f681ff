"""Sums of clipped per-patient gradients of logistic regression, in closed form.

The gradient of one patient's loss is (p - y) [x, 1]; its norm is |p - y| sqrt(|x|^2 + 1). It is
scaled to at most the clipping norm, and a contribution that is not finite is zeroed, before
anything is summed: so one patient moves the sum by at most the clipping norm, whatever the record.
"""

import numpy as np

from fedtwin_client.training.noise import Floats
from fedtwin_twins.risk import logistic


def clipped_gradient_sum(
    features: Floats, outcomes: Floats, weights: Floats, clipping_norm: float
) -> Floats:
    """The sum over patients of their clipped gradients.

    Args:
        features: (patients, columns).
        outcomes: 0 or 1, (patients,).
        weights: columns, then the intercept, (columns + 1,).
        clipping_norm: largest Euclidean norm of a patient's contribution.

    Returns:
        (columns + 1,)
    """
    with np.errstate(all="ignore"):
        error = logistic(features @ weights[:-1] + weights[-1]) - outcomes
        norms = np.abs(error) * np.sqrt(np.einsum("ij,ij->i", features, features) + 1)
        scale = error * np.minimum(1.0, clipping_norm / np.maximum(norms, 1e-300))
    sound = np.isfinite(norms) & np.isfinite(scale) & np.isfinite(features).all(axis=1)
    scale = np.where(sound, scale, 0.0)
    rows = features if sound.all() else np.where(sound[:, None], features, 0.0)
    return np.append(scale @ rows, scale.sum())


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
    sound = np.isfinite(norms) & np.isfinite(scale) & np.isfinite(features).all(axis=1)
    scale = np.where(sound, scale, 0.0)
    rows = features if sound.all() else np.where(sound[:, None], features, 0.0)
    return np.append(scale @ rows, scale.sum())
