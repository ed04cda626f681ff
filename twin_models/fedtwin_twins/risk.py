"""Risk models: what a set of trained parameters predicts, and how well.

Equations, with x a patient's columns:

- logistic regression: log-odds = weights . x + intercept;
- network: a_0 = x, a_k = f(W_k a_(k-1) + b_k) with f = ReLU or tanh, log-odds = the last layer
  without f;
- risk = 1 / (1 + exp(-log-odds)).

Recalibration at a site: log-odds' = a * log-odds + b, the maximum a posteriori fit on the site's
own patients with log a ~ N(0, 0.5^2) and b ~ N(0, 2^2) (Cox 1958, Biometrika 45:562, with priors
that keep a small or one-sided site in place). Two numbers; they never need to leave the site.

Calibration: `expected_over_observed`; `integrated_calibration_index`, the mean over patients of
|risk - observed risk at that prediction| (Austin and Steyerberg 2019, doi 10.1002/sim.8281), with
the observed risk from the same two-parameter logistic curve in place of a smoother: it is steady in
few patients, and sees level and slope, but no waves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Given = NDArray[np.floating[Any]]

SLOPE_SD: Final = 0.5
"""Prior sd of the logarithm of the recalibration slope."""
INTERCEPT_SD: Final = 2.0
"""Prior sd of the recalibration intercept, in log-odds."""
_MOST_STEPS: Final = 100
_SMALLEST_RISK: Final = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalibration:
    """log-odds' = slope * log-odds + intercept."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, scores: Given) -> Array:
        """Recalibrated risks of a model's log-odds, of the same shape."""
        return logistic(np.asarray(self.slope * scores + self.intercept, np.float64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """How well risks fit what happened; none where the patients do not carry the figure.

    Attributes:
        patients: how many.
        outcomes: how many had the endpoint.
        accuracy: share rightly classified when a risk above one half counts as a yes.
        auroc: see `auroc`.
        brier: see `brier_score`.
        expected_over_observed: see `expected_over_observed`.
        calibration_index: see `integrated_calibration_index`.
    """

    patients: int
    outcomes: int
    accuracy: float | None
    auroc: float | None
    brier: float | None
    expected_over_observed: float | None
    calibration_index: float | None


def quality(probabilities: Given, labels: Given) -> Quality:
    """All figures of quality for some patients.

    Args:
        probabilities: risks between 0 and 1, shape (patients,).
        labels: 0 or 1, shape (patients,).

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    risks, outcomes = _pair(probabilities, labels)
    return Quality(
        patients=risks.size,
        outcomes=int((outcomes > 0.5).sum()),
        accuracy=_or_none(accuracy(risks, outcomes)),
        auroc=_or_none(auroc(risks, outcomes)),
        brier=_or_none(brier_score(risks, outcomes)),
        expected_over_observed=_or_none(expected_over_observed(risks, outcomes)),
        calibration_index=_or_none(integrated_calibration_index(risks, outcomes)),
    )


def logistic(log_odds: Given) -> Array:
    """Probability of log-odds, without overflow for any finite number."""
    shrunk = np.exp(-np.abs(log_odds))
    return np.asarray(np.where(log_odds >= 0, 1.0, shrunk) / (1.0 + shrunk), np.float64)


def predict_score(
    parameters: Mapping[str, Given],
    matrix: Given,
    activation: Literal["relu", "tanh"] = "relu",
) -> Array:
    """Log-odds of the endpoint.

    Args:
        parameters: `weights` (columns,) and `intercept` (1,); or, for each layer k of a network,
            `layer<k>.weight` (out, in) and `layer<k>.bias` (out,), k from 1.
        matrix: encoded columns, shape (patients, columns).
        activation: of a network's hidden layers.

    Returns:
        shape (patients,).

    Raises:
        ValueError: names or shapes that are neither family's, or do not fit the matrix.
    """
    if set(parameters) == {"weights", "intercept"}:
        weights, intercept = parameters["weights"], parameters["intercept"]
        _fits(matrix, weights.shape, "weights")
        return np.asarray(matrix @ weights + intercept[0], np.float64)
    return _network(parameters, matrix, activation)


def predict_probability(
    parameters: Mapping[str, Given],
    matrix: Given,
    activation: Literal["relu", "tanh"] = "relu",
) -> Array:
    """Risk of the endpoint, between 0 and 1; arguments and errors as `predict_score`."""
    return logistic(predict_score(parameters, matrix, activation))


def recalibrate(scores: Given, labels: Given) -> Recalibration:
    """The posterior mode of slope and intercept (module docstring), by damped Newton steps.

    Args:
        scores: log-odds of a model, shape (patients,).
        labels: 0 or 1, shape (patients,); one class alone is admissible, because of the priors.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    values, outcomes = _pair(scores, labels)
    point = np.zeros(2)
    value = _loss(point, values, outcomes)
    for _ in range(_MOST_STEPS):
        gradient, curvature = _derivatives(point, values, outcomes)
        step = np.linalg.solve(curvature, gradient)
        if float(gradient @ step) < 1e-18:
            break
        length = 1.0
        while (trial := _loss(point - length * step, values, outcomes)) > value and length > 1e-9:
            length /= 2
        if trial > value:
            break
        point, value = point - length * step, trial
    return Recalibration(slope=float(np.exp(point[0])), intercept=float(point[1]))


def accuracy(probabilities: Given, labels: Given) -> float:
    """Share of patients rightly classified when a risk above one half counts as a yes."""
    risks, outcomes = _pair(probabilities, labels)
    return float(np.mean((risks > 0.5) == (outcomes > 0.5))) if risks.size else float("nan")


def auroc(scores: Given, labels: Given) -> float:
    """Chance that a patient with the outcome scores higher than one without; ties count half.

    Returns:
        the area, or NaN where one of the two classes is absent.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    values, outcomes = _pair(scores, labels)
    positive = outcomes > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    ordered = np.sort(values[~positive])
    below = np.searchsorted(ordered, values[positive], "left")
    not_above = np.searchsorted(ordered, values[positive], "right")
    return float((below + not_above).sum() / (2.0 * positives * negatives))


def brier_score(probabilities: Given, labels: Given) -> float:
    """Mean squared difference of risk and outcome (Brier 1950)."""
    risks, outcomes = _pair(probabilities, labels)
    return float(np.mean((risks - outcomes) ** 2)) if risks.size else float("nan")


def expected_over_observed(probabilities: Given, labels: Given) -> float:
    """Number of outcomes the model expects over the number seen; NaN where none was seen."""
    risks, outcomes = _pair(probabilities, labels)
    seen = float(outcomes.sum())
    return float(risks.sum() / seen) if seen > 0 else float("nan")


def integrated_calibration_index(probabilities: Given, labels: Given) -> float:
    """Mean distance of risk and observed risk (module docstring); 0 is best.

    Args:
        probabilities: risks between 0 and 1, shape (patients,).
        labels: 0 or 1, shape (patients,).

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    risks, outcomes = _pair(probabilities, labels)
    if not risks.size:
        return float("nan")
    kept = np.clip(risks, _SMALLEST_RISK, 1 - _SMALLEST_RISK)
    scores = np.log(kept) - np.log1p(-kept)
    return float(np.mean(np.abs(risks - recalibrate(scores, outcomes).apply(scores))))


def _network(
    parameters: Mapping[str, Given], matrix: Given, activation: Literal["relu", "tanh"]
) -> Array:
    layers = len(parameters) // 2
    names = {f"layer{k}.{part}" for k in range(1, layers + 1) for part in ("weight", "bias")}
    if not layers or set(parameters) != names:
        raise ValueError(
            "expected the parameters 'weights' and 'intercept', or 'layer1.weight', "
            f"'layer1.bias' and so on; got {sorted(parameters)[:20]}"
        )
    values: Given = matrix
    for layer in range(1, layers + 1):
        weight, bias = parameters[f"layer{layer}.weight"], parameters[f"layer{layer}.bias"]
        _fits(values, weight.shape[1:], f"layer{layer}.weight")
        values = values @ weight.T + bias
        if layer < layers:
            values = np.maximum(values, 0) if activation == "relu" else np.tanh(values)
    if values.shape[1] != 1:
        raise ValueError(f"expected one output of the last layer, got {values.shape[1]}")
    return np.asarray(values[:, 0], np.float64)


def _or_none(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _fits(matrix: Given, columns: tuple[int, ...], name: str) -> None:
    if matrix.ndim != 2 or (matrix.shape[1],) != tuple(columns):
        raise ValueError(
            f"expected a matrix of shape (patients, {columns[0] if columns else '?'}) for "
            f"'{name}', got {matrix.shape}"
        )


def _pair(values: Given, labels: Given) -> tuple[Array, Array]:
    left, right = np.asarray(values, np.float64), np.asarray(labels, np.float64)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"expected two vectors of one length, got shapes {left.shape} and {right.shape}"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("expected finite numbers, got NaN or infinity")
    return left, right


def _loss(point: Array, scores: Array, outcomes: Array) -> float:
    """Negative log posterior, up to a constant; `point` is (log slope, intercept)."""
    logits = np.exp(point[0]) * scores + point[1]
    prior = point[0] ** 2 / (2 * SLOPE_SD**2) + point[1] ** 2 / (2 * INTERCEPT_SD**2)
    return float((np.logaddexp(0.0, logits) - outcomes * logits).sum() + prior)


def _derivatives(point: Array, scores: Array, outcomes: Array) -> tuple[Array, Array]:
    """Gradient, and the expected curvature (always positive definite)."""
    scaled = np.exp(point[0]) * scores
    risks = logistic(scaled + point[1])
    design = np.stack([scaled, np.ones_like(scaled)])
    precision = np.array([SLOPE_SD**-2, INTERCEPT_SD**-2])
    gradient = design @ (risks - outcomes) + precision * point
    curvature = (design * (risks * (1 - risks))) @ design.T + np.diag(precision)
    return gradient, curvature
