"""The clipped sum of each model family and mechanism: what a site computes from its patients."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.training.gradients import clipped_gradient_sum, clipped_signed_sum
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.parameters import flatten
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan

Parameters = Mapping[str, Array]
SumOfPatients = NDArray[np.floating[Any]]


class GradientOf(Protocol):
    """The sum over patients of what each contributes, clipped one by one."""

    def __call__(self, rows: TrainingRows, parameters: Parameters) -> SumOfPatients:
        """(values,), in the parameters' order."""


def gradient_of(plan: StudyPlan) -> GradientOf:
    """The sum that a plan's mechanism and family ask for."""
    clip = plan.privacy.clipping_norm
    if plan.model.family == "network":
        from fedtwin_client.training.network import NetworkGradient  # noqa: PLC0415 - torch

        network = NetworkGradient(clip)
        return lambda rows, parameters: network(rows.features, rows.outcomes, parameters)
    if plan.training.mechanism == "mean_vector":
        return lambda rows, _: clipped_signed_sum(rows.features, rows.outcomes, clip)
    return lambda rows, parameters: clipped_gradient_sum(
        rows.features, rows.outcomes, flatten(parameters), clip
    )
