"""The parameters of the built-in model families: names, shapes, and public initial values.

The order of names is the order of flattening; names that end in `intercept` or `bias` bear no
penalty. With d columns, c numbers of a record's encoding, w the plan's width:

- `logistic_regression`, `linear_regression`, `poisson_regression`: `weights` (d,) and `intercept`
  (1,), float64, zeros and the plan's initial intercept.
- `discrete_hazard`: `weights` (d,) and `baseline_intercept` (intervals,), the same.
- `linear_mixed_model`: no parameters but the sum that they follow from (`moments` (m,), `patients`
  (1,) and, where sites differ, `site_moments` (m,), with m = (d + 2) (d + 3) / 2), and behind it
  `sites` (1,), which the coordinator writes and no site sends: how many are in the sum.
- `network`: for layer k from 1, `layer<k>.weight` (outputs, inputs) and `layer<k>.bias`, float32;
  the inputs are the d columns, with the record's vocabulary and numbers behind them where the plan
  has a sequence.
- `transformer`, `recurrent`: see `sequence_shapes`; float32.

Weights of layers begin as in He et al. 2015 (arXiv 1502.01852, equation 10: normal, variance
2/inputs) where a rectifier follows and with variance 1/inputs elsewhere (Glorot and Bengio 2010),
from the plan's public seed; biases at 0, the scales of normalisation at 1.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.payload import Array
from fedtwin_protocol.study import FAMILY_ENDPOINTS, StudyPlan
from fedtwin_protocol.study_population import FAMILY
from fedtwin_protocol.study_sequence import RECORD_NUMBERS

Shapes = dict[str, tuple[int, ...]]
BUILT_IN_FAMILIES = tuple(FAMILY_ENDPOINTS)
LINEAR = ("logistic_regression", "linear_regression", "poisson_regression", "discrete_hazard")
SITES = "sites"
"""The array of a population study that is no part of its sum."""
UP = 4
"""Width of a transformer's inner layer, in widths (Vaswani et al. 2017, arXiv 1706.03762)."""
_RECTIFIED = (".up.weight",)


def parameter_shapes(plan: StudyPlan) -> Shapes:
    """Shape of every parameter by name, in order.

    Raises:
        PlanError: the family is not built in.
    """
    columns, family = len(plan.contract.columns), plan.model.family
    if family == "discrete_hazard":
        intervals = len(plan.endpoint.interval_days)
        return {"weights": (columns,), "baseline_intercept": (intervals,)}
    if family in LINEAR:
        return {"weights": (columns,), "intercept": (1,)}
    if family == FAMILY:
        return _moment_shapes(plan)
    if family == "network":
        return _network_shapes(plan)
    if family in {"transformer", "recurrent"}:
        return sequence_shapes(plan)
    raise PlanError(
        f"model family '{family}' is not built in (those are {', '.join(BUILT_IN_FAMILIES)}): "
        "give its initial parameters as a safetensors file and its hash as model.initial_sha256"
    )


def sequence_shapes(plan: StudyPlan) -> Shapes:
    """Shapes of a family that reads sequences.

    Both embed a record as `embed.weight[:, code - 1] + numbers.weight @ numbers + numbers.bias`
    (w,), and end in `head.weight` (1, w + d) and `head.bias` (1,) on what is read of the sequence
    and the columns. A `transformer` has, in block k from 1, normalisation before attention
    (`attend_in` (3w, w): queries, keys, values; `attend_out` (w, w)) and before its inner layer
    (`up` (4w, w), `down` (w, 4w)). `recurrent` is a gated unit (Cho et al. 2014, arXiv 1406.1078)
    with `input` (3w, w) and `state` (3w, w): reset, update, new, as torch orders them.
    """
    assert plan.sequence is not None
    width, columns = plan.model.width, len(plan.contract.columns)
    shapes: Shapes = {
        "embed.weight": (width, len(plan.sequence.vocabulary)),
        "numbers.weight": (width, RECORD_NUMBERS),
        "numbers.bias": (width,),
    }
    if plan.model.family == "recurrent":
        layers = [("input", 3 * width, width), ("state", 3 * width, width)]
        shapes |= _layer_shapes(layers)
    else:
        for block in range(1, plan.model.layers + 1):
            name = f"block{block}"
            shapes |= {f"{name}.norm1.weight": (width,), f"{name}.norm1.bias": (width,)}
            attend = [(f"{name}.attend_in", 3 * width, width), (f"{name}.attend_out", width, width)]
            shapes |= _layer_shapes(attend)
            shapes |= {f"{name}.norm2.weight": (width,), f"{name}.norm2.bias": (width,)}
            inner = [(f"{name}.up", UP * width, width), (f"{name}.down", width, UP * width)]
            shapes |= _layer_shapes(inner)
        shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
    return shapes | _layer_shapes([("head", 1, width + columns)])


def initial_parameters(plan: StudyPlan) -> dict[str, Array]:
    """Initial values by name; the same for everybody who has the plan.

    Raises:
        PlanError: the family is not built in.
    """
    shapes = parameter_shapes(plan)
    if plan.model.family in LINEAR:
        start = plan.model.initial_intercept
        return {
            name: np.full(shape, start if name.endswith("intercept") else 0.0)
            for name, shape in shapes.items()
        }
    if plan.model.family == FAMILY:
        return {name: np.zeros(shape) for name, shape in shapes.items()}
    generator = np.random.Generator(np.random.PCG64(plan.model.seed))
    rectified = plan.model.family == "network"
    values: dict[str, Array] = {}
    for name, shape in shapes.items():
        normal = generator.standard_normal(shape)
        values[name] = (normal * _scale(name, shape, rectified)).astype(np.float32)
        if ".norm" in f".{name}" and name.endswith("weight"):
            values[name][:] = 1.0
    return values


def _scale(name: str, shape: tuple[int, ...], rectified: bool) -> float:
    """Standard deviation of a parameter's first values."""
    if len(shape) < 2:
        return 0.0
    if name == "embed.weight":
        return 1.0
    return float(np.sqrt((2 if rectified or name.endswith(_RECTIFIED) else 1) / shape[1]))


def summed_shapes(plan: StudyPlan) -> Shapes:
    """Shapes of what a training sum holds: of all parameters, but not of a count of sites.

    Raises:
        PlanError: the family is not built in.
    """
    return {name: shape for name, shape in parameter_shapes(plan).items() if name != SITES}


def _moment_shapes(plan: StudyPlan) -> Shapes:
    size = len(plan.contract.columns) + 2
    triangle = (size * (size + 1) // 2,)
    shapes: Shapes = {"moments": triangle, "patients": (1,)}
    if plan.population is not None and plan.population.site_variance_ratio > 0:
        shapes["site_moments"] = triangle
    return shapes | {SITES: (1,)}


def _layer_shapes(layers: list[tuple[str, int, int]]) -> Shapes:
    shapes: Shapes = {}
    for name, outputs, inputs in layers:
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return shapes


def _network_shapes(plan: StudyPlan) -> Shapes:
    if not plan.model.hidden:
        raise PlanError("a network needs hidden layers: set model.hidden, such as [16]")
    inputs = len(plan.contract.columns)
    if plan.sequence is not None:
        inputs += len(plan.sequence.vocabulary) + RECORD_NUMBERS
    widths = pairwise((inputs, *plan.model.hidden, 1))
    named = [(f"layer{layer}", into, out) for layer, (into, out) in enumerate(widths, start=1)]
    return _layer_shapes([(name, out, into) for name, into, out in named])


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
