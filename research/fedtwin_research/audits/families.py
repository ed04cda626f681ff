"""The built-in model families for many models at once: clipped sums and log-odds, by hand.

Every array has the models along its first axis, so that hundreds of shadow models cost little more
than one. The arithmetic is that of the sites (a patient's gradient is scaled to the clipping norm
at most, then summed); it is written a second time here because a researcher has no site's software,
and because two writings that agree are worth more than one.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.parameters import parameter_shapes
from fedtwin_protocol.study import StudyPlan

Floats = NDArray[np.float64]
Marks = NDArray[np.bool_]

BUILT_IN: Final = ("logistic_regression", "network")
MECHANISMS: Final = ("gradient_sum", "local_steps", "mean_vector")
RIDGE: Final = 0.01
NEWTON_STEPS: Final = 15
LONGEST: Final = 5.0
DESCENT_STEPS: Final = 400
MOMENTUM: Final = 0.9


class Family(Protocol):
    """A model family, for many models at once; values are flat, in the parameters' order."""

    penalised: Floats
    """1 where the penalty applies, 0 at intercepts and biases, (values,)."""

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values).

        Args:
            models: (models, values).
            features: (patients, columns).
            outcomes: 0 or 1, (patients,).
            taken: whose gradients count in which model, (models, patients).
            clip: largest norm of a patient's contribution.
        """

    def log_odds(self, models: Floats, features: Floats) -> Floats:
        """What the models predict, (models, patients)."""

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """Weight (…, outputs, inputs) and bias (…, outputs) of the first layer."""

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """Models that were learned without clip and noise until they fit, (models, values)."""


def family_of(plan: StudyPlan) -> Family:
    """The family of a plan.

    Raises:
        ReleaseError: it is not built in, or its mechanism is not known here.
    """
    if plan.model.family not in BUILT_IN or plan.sequence is not None:
        what = " over whole records" if plan.sequence is not None else ""
        raise ReleaseError(
            f"model family '{plan.model.family}'{what} cannot be learned here; audits outside know "
            f"{', '.join(BUILT_IN)} over columns"
        )
    if plan.training.mechanism not in MECHANISMS:
        raise ReleaseError(
            f"audits outside do not know the mechanism '{plan.training.mechanism}'; they know "
            f"{', '.join(MECHANISMS)}"
        )
    shapes = parameter_shapes(plan)
    if plan.training.mechanism == "mean_vector":
        return MeanVector(shapes)
    return Logistic(shapes) if plan.model.family == "logistic_regression" else Network(shapes)


class Logistic:
    """Logistic regression: the gradient of one patient is (p - y) [x, 1]."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        (self._columns,) = shapes["weights"]
        self.penalised = np.append(np.ones(self._columns), 0.0)

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values)."""
        error = _risk(self.log_odds(models, features)) - outcomes
        norms = np.abs(error) * np.sqrt((features**2).sum(axis=1) + 1)
        scale = error * np.minimum(1, clip / np.maximum(norms, 1e-300)) * taken
        return np.concatenate([scale @ features, scale.sum(axis=1, keepdims=True)], axis=1)

    def log_odds(self, models: Floats, features: Floats) -> Floats:
        """What the models predict, (models, patients)."""
        return np.asarray(models[:, :-1] @ features.T + models[:, -1:], np.float64)

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """The whole gradient: one output."""
        return gradients[..., None, :-1], gradients[..., -1:]

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """The largest likelihood with a small ridge, by Newton's steps of bounded length."""
        design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        ridge = RIDGE * np.eye(design.shape[1])
        for _ in range(NEWTON_STEPS):
            risk = _risk(models @ design.T)
            gradient = ((risk - outcomes) * taken) @ design + RIDGE * models
            bend = risk * (1 - risk) * taken
            curvature = np.swapaxes(design[None] * bend[..., None], 1, 2) @ design + ridge
            step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
            length = np.linalg.norm(step, axis=1, keepdims=True)
            models = models - step * np.minimum(1, LONGEST / np.maximum(length, 1e-300))
        return models


class MeanVector(Logistic):
    """The mean vector: the sum is of the columns themselves, with the sign of the outcome."""

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Minus the sums of (2 y - 1) clip([x, 1]), (models, values)."""
        norms = np.sqrt((features**2).sum(axis=1) + 1)
        scale = (1 - 2 * outcomes) * np.minimum(1, clip / norms) * taken
        return np.concatenate([scale @ features, scale.sum(axis=1, keepdims=True)], axis=1)


class Network:
    """A rectified linear network, layer by layer.

    For inputs a and output derivatives d of one patient, a layer's gradient is d a^T and d, so its
    squared norm is |d|^2 (|a|^2 + 1) (Goodfellow 2015, arXiv 1510.01799).
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._shapes = list(shapes.values())
        self._ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        self.penalised = np.concatenate(
            [np.full(int(np.prod(shape)), float(len(shape) == 2)) for shape in self._shapes]
        )

    def clipped_sums(
        self, models: Floats, features: Floats, outcomes: Floats, taken: Marks, clip: float
    ) -> Floats:
        """Sums of clipped gradients, (models, values)."""
        layers = self._layers(models)
        inputs, score = self._forward(layers, features)
        derivative = (_risk(score) - outcomes)[..., None]
        derivatives = [derivative]
        for place in range(len(layers) - 1, 0, -1):
            derivative = (derivative @ layers[place][0]) * (inputs[place] > 0)
            derivatives.insert(0, derivative)
        squared = np.zeros(taken.shape)
        for values, slopes in zip(inputs, derivatives, strict=True):
            squared += (slopes**2).sum(axis=-1) * ((values**2).sum(axis=-1) + 1)
        scale = np.minimum(1, clip / np.sqrt(np.maximum(squared, 1e-300))) * taken
        parts = []
        for values, slopes in zip(inputs, derivatives, strict=True):
            scaled = slopes * scale[..., None]
            weight = np.swapaxes(scaled, -1, -2) @ values
            parts += [weight.reshape(len(models), -1), scaled.sum(axis=-2)]
        return np.concatenate(parts, axis=1)

    def log_odds(self, models: Floats, features: Floats) -> Floats:
        """What the models predict, (models, patients)."""
        return self._forward(self._layers(models), features)[1]

    def first_layer(self, gradients: Floats) -> tuple[Floats, Floats]:
        """The first layer's part of a flat gradient."""
        weight = gradients[..., : self._ends[0]]
        shaped = weight.reshape(*gradients.shape[:-1], *self._shapes[0])
        return shaped, gradients[..., self._ends[0] : self._ends[1]]

    def fit(self, models: Floats, features: Floats, outcomes: Floats, taken: Marks) -> Floats:
        """Gradient descent with momentum; the step suits the mean squared length of the columns."""
        rate = 4 / float(((features**2).sum(axis=1) + 1).mean())
        velocity, patients = np.zeros_like(models), taken.sum(axis=1, keepdims=True)
        for _ in range(DESCENT_STEPS):
            total = self.clipped_sums(models, features, outcomes, taken, np.inf)
            velocity = MOMENTUM * velocity + total / patients
            models = models - rate * velocity
        return models

    def _layers(self, models: Floats) -> list[tuple[Floats, Floats]]:
        parts = np.split(models, self._ends[:-1], axis=1)
        shaped = [
            part.reshape(len(models), *shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        ]
        return list(zip(shaped[::2], shaped[1::2], strict=True))

    @staticmethod
    def _forward(
        layers: list[tuple[Floats, Floats]], features: Floats
    ) -> tuple[list[Floats], Floats]:
        """The inputs of every layer, (…, patients, width), and the log-odds."""
        inputs = [features[None]]
        for weight, bias in layers[:-1]:
            values = inputs[-1] @ np.swapaxes(weight, -1, -2) + bias[:, None, :]
            inputs.append(np.maximum(values, 0))
        weight, bias = layers[-1]
        score = inputs[-1] @ np.swapaxes(weight, -1, -2) + bias[:, None, :]
        return inputs, np.asarray(score[..., 0], np.float64)


def _risk(log_odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(log_odds, -700, 700))), np.float64)
