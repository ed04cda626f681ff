"""The parameters of the built-in model families: names, shapes, and public initial values.

`logistic_regression`: `weights` (columns,) and `intercept` (1,), float64, zeros. `network`: for
layer k from 1, `layer<k>.weight` (outputs, inputs) and `layer<k>.bias` (outputs,), float32, with
the initial weights of He et al. 2015 (arXiv 1502.01852, equation 10; normal, variance 2/inputs)
from the plan's public seed, and zero biases. The order of names is the order of flattening.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import StudyPlan


def parameter_shapes(plan: StudyPlan) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by name, in order.

    Raises:
        PlanError: the family is not built in.
    """
    columns = len(plan.contract.columns)
    if plan.model.family == "logistic_regression":
        return {"weights": (columns,), "intercept": (1,)}
    if plan.model.family != "network":
        raise PlanError(
            f"model family '{plan.model.family}' is not built in: give its initial parameters as a "
            "safetensors file and its hash as model.initial_sha256"
        )
    if not plan.model.hidden:
        raise PlanError("a network needs hidden layers: set model.hidden, such as [16]")
    widths = (columns, *plan.model.hidden, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths), start=1):
        shapes[f"layer{layer}.weight"] = (outputs, inputs)
        shapes[f"layer{layer}.bias"] = (outputs,)
    return shapes


def initial_parameters(plan: StudyPlan) -> dict[str, Array]:
    """Initial values by name; the same for everybody who has the plan.

    Raises:
        PlanError: the family is not built in.
    """
    shapes = parameter_shapes(plan)
    if plan.model.family == "logistic_regression":
        return {name: np.zeros(shape) for name, shape in shapes.items()}
    generator = np.random.Generator(np.random.PCG64(plan.model.seed))
    values: dict[str, Array] = {}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / shape[1]) if len(shape) == 2 else 0.0
        values[name] = (generator.standard_normal(shape) * scale).astype(np.float32)
    return values


def flatten(parameters: Mapping[str, Array]) -> NDArray[np.float64]:
    """All values one after another, float64, in the order of the names given."""
    return np.concatenate([np.ravel(array) for array in parameters.values()]).astype(np.float64)


def unflatten(flat: Array, like: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of the shapes and types of `like` from their flat values.

    Raises:
        ValueError: the number of values is another.
    """
    expected = sum(array.size for array in like.values())
    if flat.shape != (expected,):
        raise ValueError(f"expected {expected} values, got shape {flat.shape}")
    values, offset = {}, 0
    for name, array in like.items():
        part = flat[offset : offset + array.size]
        values[name] = part.reshape(array.shape).astype(array.dtype)
        offset += array.size
    return values
