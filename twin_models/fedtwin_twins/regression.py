"""How well predicted values and counts fit what happened, and their recalibration at a site.

With seen y, predicted m, and the no-information prediction n (one number: the mean of patients who
are not among these):

- values: R^2 = 1 - sum (y - m)^2 / sum (y - n)^2; calibration slope: of y on m, 1 is best, below 1
  the predictions spread too far (Steyerberg 2019, Clinical Prediction Models, section 15.3);
- counts: deviance D(m) = 2 sum (y log(y / m) - y + m), share explained 1 - D(m) / D(n) (McCullagh
  and Nelder 1989, section 6.2; Cameron and Windmeijer 1996, doi 10.1080/07350015.1996.10524648).

Above 0 a model says more than the mean does; below 0 less.

Recalibration of values: the least-squares line. Of counts: log m' = a log m + b, the maximum a
posteriori fit with the priors of `risk`: log a ~ N(0, 0.5^2), b ~ N(0, 2^2).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedtwin_twins.risk import INTERCEPT_SD, SLOPE_SD, Array, Given, Recalibration

_MOST_STEPS: Final = 100
_LARGEST_LOG: Final = 50.0
"""Bound of the logarithm of a recalibrated count, so that no step overflows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ValueQuality:
    """How well values are predicted; none where the patients do not carry the figure.

    Attributes:
        patients: how many.
        mean_absolute_error: in the values' unit.
        root_mean_squared_error: in the values' unit.
        mean_predicted: in the values' unit.
        mean_seen: in the values' unit.
        explained: R^2 against the no-information prediction.
        calibration_slope: of seen on predicted.
    """

    patients: int
    mean_absolute_error: float | None
    root_mean_squared_error: float | None
    mean_predicted: float | None
    mean_seen: float | None
    explained: float | None
    calibration_slope: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class CountQuality:
    """How well counts are predicted; none where the patients do not carry the figure.

    Attributes:
        patients: how many.
        mean_predicted: events per patient.
        mean_seen: events per patient.
        mean_absolute_error: events per patient.
        deviance_explained: against the no-information prediction.
    """

    patients: int
    mean_predicted: float | None
    mean_seen: float | None
    mean_absolute_error: float | None
    deviance_explained: float | None


def value_quality(means: Given, seen: Given, no_information: float) -> ValueQuality:
    """All figures of predicted values.

    Args:
        means: predicted, shape (patients,); figures that overflow are none.
        seen: shape (patients,).
        no_information: what is predicted without a model; NaN where there is nothing to go by.

    Raises:
        ValueError: shapes differ.
    """
    predicted, truth = _pair(means, seen)
    with np.errstate(all="ignore"):
        error = truth - predicted
        against = float(np.sum((truth - no_information) ** 2))
        explained = 1 - float(np.sum(error**2)) / against if against > 0 else np.nan
        slope, _ = _line(predicted, truth)
        return ValueQuality(
            patients=truth.size,
            mean_absolute_error=_mean(np.abs(error)),
            root_mean_squared_error=_finite(np.sqrt(np.mean(error**2))) if truth.size else None,
            mean_predicted=_mean(predicted),
            mean_seen=_mean(truth),
            explained=_finite(explained),
            calibration_slope=_finite(slope),
        )


def count_quality(means: Given, seen: Given, no_information: float) -> CountQuality:
    """All figures of predicted counts; arguments and errors as `value_quality`."""
    predicted, truth = _pair(means, seen)
    with np.errstate(all="ignore"):
        against = deviance(np.full(truth.shape, no_information), truth)
        explained = 1 - deviance(predicted, truth) / against if against > 0 else np.nan
        return CountQuality(
            patients=truth.size,
            mean_predicted=_mean(predicted),
            mean_seen=_mean(truth),
            mean_absolute_error=_mean(np.abs(truth - predicted)),
            deviance_explained=_finite(explained),
        )


def deviance(means: Given, seen: Given) -> float:
    """Twice the log-likelihood that a perfect prediction would gain over these means.

    Args:
        means: above 0, shape (patients,); 0 where something was seen makes it infinite.
        seen: counts, shape (patients,).
    """
    predicted, truth = _pair(means, seen)
    with np.errstate(all="ignore"):
        surprise = np.where(truth > 0, truth * np.log(truth / predicted), 0.0)
        return float(2 * np.sum(surprise - truth + predicted))


def recalibrate_values(means: Given, seen: Given) -> Recalibration:
    """The least-squares line; a shift alone where all predictions are one number.

    Args:
        means: predicted, shape (patients,).
        seen: shape (patients,); without patients nothing is changed.

    Raises:
        ValueError: shapes differ.
    """
    predicted, truth = _pair(means, seen)
    if not truth.size:
        return Recalibration()
    slope, intercept = _line(predicted, truth)
    if not np.isfinite(slope):
        slope, intercept = 1.0, float(truth.mean() - predicted.mean())
    return Recalibration(slope=slope, intercept=intercept)


def recalibrate_counts(log_means: Given, seen: Given) -> Recalibration:
    """The posterior mode of slope and intercept (module docstring), by damped Newton steps.

    Args:
        log_means: logarithm of the predicted counts, shape (patients,).
        seen: counts, shape (patients,); none at all is admissible, because of the priors.

    Raises:
        ValueError: shapes differ.
    """
    scores, counts = _pair(log_means, seen)
    point = np.zeros(2)
    value = _loss(point, scores, counts)
    for _ in range(_MOST_STEPS):
        gradient, curvature = _derivatives(point, scores, counts)
        # Scores of a model that ran away make a curvature that cannot be inverted.
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        if float(gradient @ step) < 1e-18:
            break
        length = 1.0
        while (trial := _loss(point - length * step, scores, counts)) > value and length > 1e-9:
            length /= 2
        if trial > value:
            break
        point, value = point - length * step, trial
    return Recalibration(slope=float(np.exp(point[0])), intercept=float(point[1]))


def _line(predicted: Array, truth: Array) -> tuple[float, float]:
    """Slope and intercept of seen on predicted; NaN where all predictions are one number."""
    centred = predicted - predicted.mean() if predicted.size else predicted
    spread = float(centred @ centred)
    if not spread > 1e-18 * float(predicted @ predicted):
        return float("nan"), float("nan")
    slope = float(centred @ truth) / spread
    return slope, float(truth.mean() - slope * predicted.mean())


def _log_counts(point: Array, scores: Array) -> Array:
    logs = np.exp(point[0]) * scores + point[1]
    return np.asarray(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG), np.float64)


def _loss(point: Array, scores: Array, counts: Array) -> float:
    """Negative log posterior, up to a constant; `point` is (log slope, intercept)."""
    logs = _log_counts(point, scores)
    prior = point[0] ** 2 / (2 * SLOPE_SD**2) + point[1] ** 2 / (2 * INTERCEPT_SD**2)
    return float((np.exp(logs) - counts * logs).sum() + prior)


def _derivatives(point: Array, scores: Array, counts: Array) -> tuple[Array, Array]:
    """Gradient, and the expected curvature (always positive definite)."""
    means = np.exp(_log_counts(point, scores))
    scaled = np.exp(point[0]) * scores
    design = np.stack([scaled, np.ones_like(scaled)])
    precision = np.array([SLOPE_SD**-2, INTERCEPT_SD**-2])
    gradient = design @ (means - counts) + precision * point
    return gradient, (design * means) @ design.T + np.diag(precision)


def _mean(values: Array) -> float | None:
    return _finite(np.mean(values)) if values.size else None


def _finite(value: float | np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None


def _pair(means: Given, seen: Given) -> tuple[Array, Array]:
    left, right = np.asarray(means, np.float64), np.asarray(seen, np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"expected two vectors of one length, got shapes {left.shape} and {right.shape}"
        )
    return left, right
