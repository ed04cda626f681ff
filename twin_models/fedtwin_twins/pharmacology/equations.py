"""How a covariate changes a parameter: the named relations that a model card may use.

A parameter is its typical value times one factor for each relation (times exp(eta + kappa), where
it varies). A card names the relation and gives its coefficients; the equation itself stands here,
once. With c the covariate:

| name | factor | coefficients |
|---|---|---|
| `power` | (c / reference)^exponent | reference, exponent |
| `proportional` | c / reference | reference |
| `linear` | 1 + slope (c - reference) | reference, slope |
| `hinged_linear` | the same with two slopes | reference, slope_below, slope_above |
| `exponential` | exp(slope (c - reference)) | reference, slope |
| `fold` | factor^c: the factor where c is 1, 1 where it is 0 | factor |
| `maturation` | 1 / (1 + (c / half)^-hill) | half, hill |
| `by_value` | what is listed for c, over the reference | reference, one for each value |
| `from_hour` | what is listed from that hour on; 1 before | one for each hour |
| `approach` | 1 + (final - 1) (1 - 2^(-c / half_time)); 1 before | final, half_time (h) |
| `weighted_sum` | sum of weight x covariate, over the reference | reference, the weights |

`from_hour` and `approach` read `hours_since_first_dose`, which every model knows of its patients.
The latter changes by steps, each at the mean of the curve over an equal part of the whole change.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

HOURS_SINCE_FIRST_DOSE: Final = "hours_since_first_dose"
"""A covariate that is never recorded: it follows from the doses."""

OF_FIRST_DOSE: Final = ("from_hour", "approach")
"""Relations that read it, and nothing else."""
APPROACH_STEPS: Final = 50
"""So that each step changes a parameter that doubles by 2 %."""

Coefficients = Mapping[str, float]
Values = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """One of the named relations.

    Attributes:
        coefficients: names that the card must give, and no others; none: any, see `listed`.
        listed: what further coefficients are named after: values, hours or covariates.
        factor: from the covariate's value (or all of them, by name) and the coefficients.
    """

    coefficients: frozenset[str]
    listed: str = ""
    factor: Callable[[str, Values, Coefficients], Tensor]


def _power(name: str, values: Values, by: Coefficients) -> Tensor:
    return (values[name] / by["reference"]) ** by["exponent"]


def _proportional(name: str, values: Values, by: Coefficients) -> Tensor:
    return values[name] / by["reference"]


def _linear(name: str, values: Values, by: Coefficients) -> Tensor:
    return 1.0 + by["slope"] * (values[name] - by["reference"])


def _hinged_linear(name: str, values: Values, by: Coefficients) -> Tensor:
    beyond = values[name] - by["reference"]
    return 1.0 + torch.where(beyond < 0.0, by["slope_below"], by["slope_above"]) * beyond


def _exponential(name: str, values: Values, by: Coefficients) -> Tensor:
    return (by["slope"] * (values[name] - by["reference"])).exp()


def _fold(name: str, values: Values, by: Coefficients) -> Tensor:
    return by["factor"] ** values[name]


def _maturation(name: str, values: Values, by: Coefficients) -> Tensor:
    return 1.0 / (1.0 + (values[name] / by["half"]) ** -by["hill"])


def _by_value(name: str, values: Values, by: Coefficients) -> Tensor:
    found = torch.full_like(values[name], torch.nan)
    for key, value in by.items():
        if key != "reference":
            found = torch.where(values[name] == float(key), value / by["reference"], found)
    return found


def _from_hour(name: str, values: Values, by: Coefficients) -> Tensor:
    found = torch.ones_like(values[name])
    for hour, value in sorted((float(key), value) for key, value in by.items()):
        found = torch.where(values[name] >= hour, value, found)
    return found


def approach_hours(by: Coefficients) -> list[float]:
    """Hours after the first dose at which the steps of an `approach` begin, but the first."""
    return [
        by["half_time"] * -math.log2(1.0 - place / APPROACH_STEPS)
        for place in range(1, APPROACH_STEPS)
    ]


def _approach(name: str, values: Values, by: Coefficients) -> Tensor:
    hours = values[name]
    begun = torch.zeros_like(hours)
    for hour in approach_hours(by):
        begun = begun + (hours >= hour).to(hours.dtype)
    part = (begun + 0.5) / APPROACH_STEPS
    part = torch.where(hours == torch.inf, 1.0, torch.where(hours < 0.0, 0.0, part))
    return 1.0 + (by["final"] - 1.0) * part


def _weighted_sum(name: str, values: Values, by: Coefficients) -> Tensor:
    total = [values[key] * weight for key, weight in by.items() if key != "reference"]
    return torch.stack(total).sum(dim=0) / by["reference"]


RELATIONS: Final[Mapping[str, Relation]] = MappingProxyType(
    {
        "power": Relation(coefficients=frozenset({"reference", "exponent"}), factor=_power),
        "proportional": Relation(coefficients=frozenset({"reference"}), factor=_proportional),
        "linear": Relation(coefficients=frozenset({"reference", "slope"}), factor=_linear),
        "hinged_linear": Relation(
            coefficients=frozenset({"reference", "slope_below", "slope_above"}),
            factor=_hinged_linear,
        ),
        "exponential": Relation(
            coefficients=frozenset({"reference", "slope"}), factor=_exponential
        ),
        "fold": Relation(coefficients=frozenset({"factor"}), factor=_fold),
        "maturation": Relation(coefficients=frozenset({"half", "hill"}), factor=_maturation),
        "by_value": Relation(
            coefficients=frozenset({"reference"}), listed="values", factor=_by_value
        ),
        "from_hour": Relation(coefficients=frozenset(), listed="hours", factor=_from_hour),
        "approach": Relation(coefficients=frozenset({"final", "half_time"}), factor=_approach),
        "weighted_sum": Relation(
            coefficients=frozenset({"reference"}), listed="covariates", factor=_weighted_sum
        ),
    }
)
