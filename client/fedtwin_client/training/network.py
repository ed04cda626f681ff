"""Per-patient gradients of a small network, by hand, without keeping them.

For a layer with inputs a and output derivatives d of one patient, the gradient is d a^T for the
weight and d for the bias, so its squared norm is |d|^2 (|a|^2 + 1) (Goodfellow 2015, arXiv
1510.01799). One backward pass gives all d; each patient's are scaled by min(1, C / norm) and the
sum of clipped gradients is one matrix product a layer. Torch runs it, on a GPU where there is one.
"""

from collections.abc import Mapping

import numpy as np
import torch

from fedtwin_client.training.contributions import GradientOf
from fedtwin_client.training.noise import Floats
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan

Tensor = torch.Tensor


def network_gradient(plan: StudyPlan) -> GradientOf:
    """The sum that a plan of a family of networks asks for."""
    if plan.sequence is not None:
        from fedtwin_client.training.sequence_gradient import SequenceGradient  # noqa: PLC0415

        return SequenceGradient(plan)
    network = NetworkGradient(plan.privacy.clipping_norm)
    return lambda rows, parameters: network(rows.features, rows.outcomes, parameters)


class NetworkGradient:
    """Sum of clipped per-patient gradients of a rectified linear network with logistic loss.

    Args:
        clipping_norm: largest Euclidean norm of a patient's contribution.
        device: where to compute; none: a GPU if there is one.
    """

    def __init__(self, clipping_norm: float, device: str | None = None) -> None:
        self._clipping_norm = clipping_norm
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def __call__(
        self, features: Floats, outcomes: Floats, parameters: Mapping[str, Array]
    ) -> Floats:
        """(values,), float64, in the parameters' order (weight, bias, layer by layer)."""
        tensors = [
            torch.as_tensor(np.array(array), device=self._device) for array in parameters.values()
        ]
        inputs = torch.as_tensor(features, dtype=torch.float32, device=self._device)
        labels = torch.as_tensor(outcomes, dtype=torch.float32, device=self._device)
        sums = clipped_sums(tensors, inputs, labels, self._clipping_norm)
        flat = torch.cat([part.reshape(-1) for part in sums])
        return flat.to("cpu", torch.float64).numpy()


@torch.no_grad()
def clipped_sums(
    parameters: list[Tensor], features: Tensor, outcomes: Tensor, clipping_norm: float
) -> list[Tensor]:
    """Sums over patients of clipped gradients.

    Args:
        parameters: weight (outputs, inputs) and bias (outputs,), layer by layer.
        features: (patients, columns).
        outcomes: 0 or 1, (patients,).
        clipping_norm: largest norm of a patient's contribution, over all layers together.

    Returns:
        As many tensors as parameters, of their shapes.
    """
    inputs = _forward(parameters, features)
    score = torch.addmm(parameters[-1], inputs[-1], parameters[-2].T)[:, 0]
    derivative = (torch.sigmoid(score) - outcomes)[:, None]
    derivatives = _backward(parameters, inputs, derivative)
    squared = torch.zeros_like(outcomes)
    for layer_input, layer_derivative in zip(inputs, derivatives, strict=True):
        squared += _squared(layer_derivative) * (_squared(layer_input) + 1)
    scale = torch.clamp(clipping_norm / torch.sqrt(squared).clamp_min(1e-30), max=1.0)
    sound = torch.isfinite(squared)
    sums: list[Tensor] = []
    everybody = bool(sound.all())
    for layer_input, layer_derivative in zip(inputs, derivatives, strict=True):
        scaled = layer_derivative * scale[:, None]
        if not everybody:
            scaled = torch.where(sound[:, None], scaled, 0.0)
            layer_input = torch.where(sound[:, None], layer_input, 0.0)  # noqa: PLW2901 - zeroed
        sums += [scaled.T @ layer_input, scaled.sum(dim=0)]
    return sums


def _forward(parameters: list[Tensor], features: Tensor) -> list[Tensor]:
    """The inputs of every layer."""
    inputs = [features]
    for weight, bias in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
        inputs.append(torch.addmm(bias, inputs[-1], weight.T).relu_())
    return inputs


def _backward(parameters: list[Tensor], inputs: list[Tensor], last: Tensor) -> list[Tensor]:
    """Derivatives of each patient's loss by the outputs of every layer, before rectifying."""
    derivatives = [last]
    for layer in range(len(inputs) - 1, 0, -1):
        weight = parameters[2 * layer]
        before = (derivatives[0] @ weight) * (inputs[layer] > 0)
        derivatives.insert(0, before)
    return derivatives


def _squared(rows: Tensor) -> Tensor:
    squares: Tensor = torch.linalg.vecdot(rows, rows)
    return squares
