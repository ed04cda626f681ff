"""Rectified networks for audits, layer by layer, by hand."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from fedtwin_research.audits.family import Floats, Marks, clipped
from fedtwin_twins.audits.membership import confidence
from fedtwin_twins.risk import logistic

DESCENT_STEPS: Final = 400
MOMENTUM: Final = 0.9


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
        derivative = (logistic(score) - outcomes)[..., None]
        derivatives = [derivative]
        for place in range(len(layers) - 1, 0, -1):
            derivative = (derivative @ layers[place][0]) * (inputs[place] > 0)
            derivatives.insert(0, derivative)
        squared = np.zeros(taken.shape)
        for values, slopes in zip(inputs, derivatives, strict=True):
            squared += (slopes**2).sum(axis=-1) * ((values**2).sum(axis=-1) + 1)
        scale = clipped(np.ones(taken.shape), np.sqrt(squared), taken, clip)
        parts = []
        for values, slopes in zip(inputs, derivatives, strict=True):
            scaled = slopes * scale[..., None]
            weight = np.swapaxes(scaled, -1, -2) @ values
            parts += [weight.reshape(len(models), -1), scaled.sum(axis=-2)]
        return np.concatenate(parts, axis=1)

    def confidence(self, models: Floats, features: Floats, outcomes: Floats) -> Floats:
        """The log-odds that the models give to what became of each patient."""
        return confidence(self._forward(self._layers(models), features)[1], outcomes)

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
