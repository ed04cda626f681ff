"""Generalised linear models for audits: yes or no, values and counts; and the mean vector."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from fedtwin_research.audits.family import Floats, Marks, clipped
from fedtwin_twins.audits.membership import confidence
from fedtwin_twins.risk import logistic

RIDGE: Final = 0.01
NEWTON_STEPS: Final = 15
LONGEST: Final = 5.0
_LARGEST: Final = 50.0
"""Linear predictor beyond which a Newton step does not look; no mean of a count is near."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """The mean of an outcome by its linear predictor, and how fast it rises there."""

    mean: Callable[[Floats], Floats]
    slope: Callable[[Floats], Floats]


def _exp(scores: Floats) -> Floats:
    with np.errstate(over="ignore"):  # who is beyond all numbers is zeroed by `clipped`
        return np.asarray(np.exp(scores), np.float64)


LOGISTIC: Final = Link(
    mean=logistic, slope=lambda scores: np.asarray(logistic(scores) * logistic(-scores))
)
IDENTITY: Final = Link(mean=lambda scores: scores, slope=np.ones_like)
EXPONENTIAL: Final = Link(mean=_exp, slope=_exp)
LINKS: Final[Mapping[str, Link]] = {
    "logistic_regression": LOGISTIC,
    "linear_regression": IDENTITY,
    "poisson_regression": EXPONENTIAL,
}
"""By family (McCullagh and Nelder 1989, section 2.5)."""


class Linear:
    """A generalised linear model with its canonical link: a patient's gradient is (m - y) [x, 1].

    Args:
        columns: how many.
        family: one of `LINKS`.
    """

    def __init__(self, columns: int, family: str = "logistic_regression") -> None:
        self._link, self._binary = LINKS[family], family == "logistic_regression"
        self.penalised = np.append(np.ones(columns), 0.0)

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values)."""
        error = self._link.mean(scores(models, features)) - outcomes
        norms = np.abs(error) * np.sqrt((features**2).sum(axis=1) + 1)
        return weighted_sums(features, clipped(error, norms, taken, clip))

    def confidence(self, models: Floats, features: Floats, outcomes: Floats) -> Floats:
        """See `Family.confidence`."""
        found = scores(models, features)
        return confidence(found, outcomes) if self._binary else found

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """The whole gradient: one output."""
        return gradients[..., None, :-1], gradients[..., -1:]

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """The largest likelihood with a small ridge."""
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        return newton(models, design, outcomes, taken, self._link)


class MeanVector(Linear):
    """The mean vector: the sum is of the columns themselves, with the sign of the outcome."""

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Minus the sums of (2 y - 1) clip([x, 1]), (models, values)."""
        sign = np.broadcast_to(1 - 2 * outcomes, taken.shape)
        norms = np.broadcast_to(np.sqrt((features**2).sum(axis=1) + 1), taken.shape)
        return weighted_sums(features, clipped(sign, norms, taken, clip))


def scores(models: Floats, features: Floats) -> Floats:
    """The linear predictors, (models, patients)."""
    return np.asarray(models[:, :-1] @ features.T + models[:, -1:], np.float64)


def weighted_sums(features: Floats, scale: Floats) -> Floats:
    """Sums of scale [x, 1] over patients, (models, columns + 1)."""
    return np.concatenate([scale @ features, scale.sum(axis=1, keepdims=True)], axis=1)


def newton(
    models: Floats, design: Floats, outcomes: Floats, taken: Marks | Floats, link: Link
) -> Floats:
    """The largest likelihood with a small ridge, by Newton's steps of bounded length.

    Args:
        models: where to begin, (models, values).
        design: (rows, values).
        outcomes: (rows,).
        taken: which rows count in which model, (models, rows).
        link: of the outcomes.
    """
    ridge = RIDGE * np.eye(design.shape[1])
    for _ in range(NEWTON_STEPS):
        found = np.minimum(models @ design.T, _LARGEST)
        gradient = ((link.mean(found) - outcomes) * taken) @ design + RIDGE * models
        bend = link.slope(found) * taken
        curvature = np.stack([(design * row[:, None]).T @ design for row in bend]) + ridge
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        models = models - step * np.minimum(1, LONGEST / np.maximum(length, 1e-300))
    return models
