"""What every model family computes at a site: a sum of what its patients contribute."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.payload import Array

Parameters = Mapping[str, Array]
SumOfPatients = NDArray[np.floating[Any]]


class GradientOf(Protocol):
    """The sum over patients of what each contributes, clipped one by one."""

    def __call__(self, rows: TrainingRows, parameters: Parameters) -> SumOfPatients:
        """(values,), in the parameters' order."""
