"""The scale on which a measured outcome is learned: as it is, its square root or its logarithm.

A value that has no such root or logarithm is NaN: nothing is learned from it, and it is counted.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Transform = Literal["none", "square_root", "logarithm"]
Given = NDArray[np.floating[Any]]


def forward(transform: Transform, values: Given) -> NDArray[np.float64]:
    """Values on the scale of learning; NaN where there is none."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(all="ignore"):
        if transform == "square_root":
            return np.sqrt(numbers)
        if transform == "logarithm":
            return np.where(numbers > 0, np.log(numbers), np.nan)
    return numbers


def backward(transform: Transform, values: Given) -> NDArray[np.float64]:
    """The values that `forward` makes these of; what lies below a root's range is 0.

    Monotone, so that medians and quantiles of one scale are those of the other.
    """
    numbers = np.asarray(values, np.float64)
    if transform == "square_root":
        return np.asarray(np.maximum(numbers, 0.0) ** 2, np.float64)
    if transform == "logarithm":
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(numbers), np.float64)
    return numbers
