"""How far a measurement may lie from the truth: the error models, with their conventions named.

With f what the model says, a the additive and b the proportional part:

- `additive`: sd = a
- `proportional`: sd = b f
- `sum_of_deviations`: sd = a + b f (Monolix calls it combined1)
- `sum_of_variances`: sd = sqrt(a^2 + b^2 f^2) (combined2; NONMEM's usual W)
- `on_logarithm`: log y is normal around log f with sd a
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fedtwin_twins.twin.refusals import Problem, Refusal

Convention = Literal[
    "additive", "proportional", "sum_of_deviations", "sum_of_variances", "on_logarithm"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualError:
    """The error of one observable.

    Attributes:
        convention: which of the formulas above.
        additive: a, in the observable's unit (or of its logarithm).
        proportional: b, a fraction.
        at_zero: the sd where a proportional error meets f = 0, in the observable's unit: a
            measurement of nothing must not weigh infinitely.

    Raises:
        Refusal: a part that is negative or not finite, or all of them 0.
    """

    convention: Convention
    additive: float = 0.0
    proportional: float = 0.0
    at_zero: float = 1.0

    def __post_init__(self) -> None:
        if self.convention not in get_args(Convention):
            raise Refusal(
                Problem(
                    field="residual.convention",
                    value=repr(self.convention),
                    allowed=" or ".join(get_args(Convention)),
                )
            )
        numbers = {"additive": self.additive, "proportional": self.proportional}
        for name, value in numbers.items():
            if not (value >= 0.0 and value < float("inf")):
                raise Refusal(
                    Problem(field=f"residual.{name}", value=f"{value:g}", allowed="0 or more")
                )
        needed = self.proportional if self.convention == "proportional" else sum(numbers.values())
        if needed == 0.0:
            raise Refusal(
                Problem(field="residual", value="0", allowed="an error above 0 in some part")
            )

    def scaled(self, predicted: Tensor) -> Tensor:
        """What is compared: f itself, or its logarithm."""
        return predicted.log() if self.convention == "on_logarithm" else predicted

    def deviation(self, predicted: Tensor) -> Tensor:
        """The standard deviation on the compared scale, of the shape of `predicted`."""
        return deviation(
            self.convention, predicted, self.additive, self.proportional, at_zero=self.at_zero
        )


def deviation(
    convention: Convention,
    predicted: Tensor,
    additive: float | Tensor,
    proportional: float | Tensor,
    *,
    at_zero: float = 1.0,
) -> Tensor:
    """The standard deviation by one of the formulas above, also of parts yet to be estimated.

    Args:
        convention: which formula.
        predicted: what the model says, of any shape.
        additive: a number, or a scalar tensor whose gradient is wanted.
        proportional: the same.
        at_zero: the sd where a proportional error meets f = 0.

    Returns:
        As many numbers as `predicted`, differentiable in all three.
    """
    spread = proportional * predicted
    if convention == "proportional":
        return torch.where(predicted == 0.0, at_zero, _size(spread))
    if convention == "sum_of_deviations":
        return additive + _size(spread)
    if convention == "sum_of_variances":
        return (additive**2 + spread**2).sqrt()
    return torch.zeros_like(predicted) + additive


def _size(value: Tensor) -> Tensor:
    """The absolute value; torch's own has second derivatives that take seconds of imports."""
    return value * value.detach().sign()
