"""The few functions that equations need, for plain numbers and for torch tensors of patients alike.

Torch is not imported here: where a tensor is given, it is there already.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from fedtwin_twins.twin.plausible import PLAUSIBLE, implausible
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any

if TYPE_CHECKING:
    from torch import Tensor

Value: TypeAlias = "float | Tensor"
"""One patient's number, or a tensor with one for each patient."""
Mark: TypeAlias = "bool | Tensor"
"""One patient's yes or no, or a tensor of them (bool, or 0 and 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What can be true of a living person; wide on purpose, it tells mistakes from people.

    Attributes:
        unit: UCUM.
        low: inclusive.
        high: inclusive.
        hint: for a value outside of it.
    """

    unit: str
    low: float
    high: float
    hint: str = ""


_OTHERS: Final[Mapping[str, Range]] = MappingProxyType(
    {
        "cystatin C": Range(unit="mg/L", low=0.1, high=15.0, hint="is it nmol/L?"),
        "bilirubin": Range(unit="mg/dL", low=0.05, high=80.0, hint="is it umol/L? divide by 17.1"),
        "bilirubin in umol/L": Range(
            unit="umol/L", low=1.0, high=1_400.0, hint="is it mg/dL? times 17.1"
        ),
        "albumin in g/L": Range(unit="g/L", low=5.0, high=70.0, hint="is it g/dL? times 10"),
        "albumin": Range(unit="g/dL", low=0.5, high=7.0, hint="is it g/L? divide by 10"),
        "sodium": Range(unit="mmol/L", low=90.0, high=200.0),
        "international normalised ratio": Range(unit="1", low=0.5, high=25.0, hint="is it %?"),
        "postmenstrual age": Range(unit="wk", low=20.0, high=6_700.0, hint="is it in years?"),
        "encephalopathy": Range(unit="{grade}", low=0.0, high=4.0),
        "ascites": Range(unit="{grade}", low=0.0, high=2.0, hint="none 0, slight 1, more 2"),
        "glomerular filtration rate": Range(unit="mL/min", low=0.0, high=400.0),
    }
)


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _torch() -> Any:
    return sys.modules["torch"]


def where(condition: Mark, yes: Value, no: Value) -> Value:
    """One of two values, by a condition."""
    if not is_tensor(condition):
        return yes if condition else no
    torch, chosen = _torch(), cast("Tensor", condition).bool()
    if not is_tensor(yes) and not is_tensor(no):
        # Two plain numbers would become a tensor of half the precision.
        yes = torch.tensor(yes, dtype=torch.float64, device=chosen.device)
    return cast(Value, torch.where(chosen, yes, no))


def at_least(value: Value, bound: float) -> Value:
    """The value, or the bound where that is higher."""
    if is_tensor(value):
        return cast("Tensor", value).clamp(min=bound)
    return max(cast(float, value), bound)


def at_most(value: Value, bound: float) -> Value:
    """The value, or the bound where that is lower."""
    if is_tensor(value):
        return cast("Tensor", value).clamp(max=bound)
    return min(cast(float, value), bound)


def log(value: Value) -> Value:
    """The natural logarithm."""
    return cast("Tensor", value).log() if is_tensor(value) else math.log(cast(float, value))


def sqrt(value: Value) -> Value:
    """The square root."""
    return cast("Tensor", value).sqrt() if is_tensor(value) else math.sqrt(cast(float, value))


def rounded(value: Value) -> Value:
    """To the nearest whole number, halves upwards."""
    if is_tensor(value):
        return (cast("Tensor", value) + 0.5).floor()
    return float(math.floor(cast(float, value) + 0.5))


def as_mark(value: Mark, argument: str = "female") -> Mark:
    """A yes or no that may also be given as 0 or 1.

    Raises:
        Refusal: it is something else, or missing.
    """
    if is_tensor(value):
        given = cast("Tensor", value)
        if bool(((given == 0) | (given == 1)).all()):
            return given.bool()
    elif value in {0, 1}:
        return bool(value)
    problem = Problem(field=argument, value=str(value), allowed="yes or no (1 or 0)")
    raise Refusal(problem)


def check_plausible(**given: tuple[Value, str]) -> None:
    """Refuse what no living person has, all of it at once.

    Args:
        given: by the argument's name: the value, and the name of what it measures.

    Raises:
        Refusal: a value is not finite or outside of what can be; says which patients of a batch.
    """
    refuse_if_any(
        problem
        for argument, (value, measured) in given.items()
        for problem in _problems(argument, value, measured)
    )


def check_range(argument: str, value: Value, allowed: Range) -> None:
    """Refuse what lies outside an equation's own range.

    Raises:
        Refusal: likewise.
    """
    refuse_if_any(_outside(argument, value, allowed))


def _problems(argument: str, value: Value, measured: str) -> Iterator[Problem]:
    known = PLAUSIBLE.get(measured)
    if known is None:
        yield from _outside(argument, value, _OTHERS[measured])
        return
    allowed = Range(unit=known.unit, low=known.range[0], high=known.range[1])
    for problem in _outside(argument, value, allowed):
        first = _first_outside(value, allowed)
        found = None
        if math.isfinite(first):
            found = implausible(measured, Quantity(first, known.unit), argument)
        yield problem if found is None else replace(problem, remedy=found.remedy)


def _outside(argument: str, value: Value, allowed: Range) -> Iterator[Problem]:
    wrong = _how_many_outside(value, allowed)
    if wrong == 0:
        return
    first = _first_outside(value, allowed)
    shown = f"{first:g}"
    if is_tensor(value) and cast("Tensor", value).numel() > 1:
        shown += f" (and {wrong - 1} more of {cast('Tensor', value).numel()} patients)"
    yield Problem(
        field=argument,
        value=shown,
        unit=allowed.unit,
        allowed=f"{allowed.low:g} to {allowed.high:g}",
        remedy=allowed.hint,
    )


def _inside(value: Value, allowed: Range) -> Any:
    """False for what is not a number."""
    if is_tensor(value):
        given = cast("Tensor", value)
        return (given >= allowed.low) & (given <= allowed.high)
    return allowed.low <= cast(float, value) <= allowed.high


def _how_many_outside(value: Value, allowed: Range) -> int:
    inside = _inside(value, allowed)
    return int((~inside).sum()) if is_tensor(value) else int(not inside)


def _first_outside(value: Value, allowed: Range) -> float:
    """Of values of which at least one is outside."""
    if not is_tensor(value):
        return float(cast(float, value))
    return float(cast("Tensor", value)[~_inside(value, allowed)][0])
