"""Population values of a released study, in the features' and the endpoint's own units.

Coefficients are changes of the outcome, on the scale of the endpoint's transform, for one unit of a
feature, or for a yes, a category or a missing value; standard errors hold what sampling, the noise
and what was known before leave open. Predictions are medians, with the interval that holds nine in
ten patients of a hospital that nothing is known of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.population_design import column_units, design_of
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_population import FAMILY
from fedtwin_protocol.transforms import backward
from fedtwin_twins.population.design import Design
from fedtwin_twins.population.estimate import PopulationValues, population_values

Floats = NDArray[np.float64]
NORMAL: Final = NormalDist()
INTERCEPT: Final = "intercept"
_ENOUGH: Final = 0.9
"""Share of outcomes within their bound, below which errors are larger than they say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One population value.

    Attributes:
        name: a column, `intercept` (all features 0), or what varies.
        unit: of the number, in words; the outcome's scale by the feature's unit.
        mean: the value.
        sd: its standard error.
        known_before: what the plan knew; none for variances.
    """

    name: str
    unit: str
    mean: float
    sd: float
    known_before: float | None

    @property
    def interval(self) -> tuple[float, float]:
        """That holds the value with a chance of 95 %."""
        reach = NORMAL.inv_cdf(0.975) * self.sd
        return self.mean - reach, self.mean + reach


def learned(plan: StudyPlan, parameters: Mapping[str, NDArray[Any]]) -> PopulationValues:
    """The population values of a released sum, in scaled units.

    Raises:
        ReleaseError: the study is about something else.
    """
    if plan.model.family != FAMILY:
        raise ReleaseError(
            f"{plan.study} is of the family '{plan.model.family}', which has no population values; "
            f"studies of the family '{FAMILY}' have"
        )
    return population_values(parameters, Design(**design_of(plan, parameters)))


def population_table(plan: StudyPlan, parameters: Mapping[str, NDArray[Any]]) -> tuple[Value, ...]:
    """Every population value in its own unit.

    Raises:
        ReleaseError: the study is about something else.
    """
    values, endpoint = learned(plan, parameters), plan.endpoint
    turned = _in_own_units(plan)
    shift = np.append(np.zeros(len(values.columns)), endpoint.center)
    means = turned @ values.mean + shift
    before = turned @ design_of(plan, parameters)["prior_mean"] + shift
    errors = np.sqrt(np.diag(turned @ values.covariance @ turned.T))
    outcome = outcome_unit(plan)
    units = [_column_unit(plan, column, outcome) for column in values.columns] + [outcome]
    rows = zip((*values.columns, INTERCEPT), units, means, errors, before, strict=True)
    found = [
        Value(name=name, unit=unit, mean=float(mean), sd=float(sd), known_before=float(known))
        for name, unit, mean, sd, known in rows
    ]
    square = endpoint.scale**2
    spreads = {"variance between patients": (values.residual_variance, values.residual_variance_sd)}
    if plan.population is not None and plan.population.site_variance_ratio > 0:
        spreads["variance between sites"] = (values.site_variance, values.site_variance_sd)
    found += [
        Value(
            name=name,
            unit=f"({outcome})2",
            mean=variance * square,
            sd=error * square,
            known_before=None,
        )
        for name, (variance, error) in spreads.items()
    ]
    return tuple(found)


def foretell(
    plan: StudyPlan, parameters: Mapping[str, NDArray[Any]], features: Floats, share: float = 0.9
) -> tuple[Floats, Floats]:
    """Scores, and the central interval of the outcome in the endpoint's unit.

    Args:
        plan: the study's.
        parameters: the released sum.
        features: encoded columns, (patients, columns).
        share: of patients that the interval holds.

    Returns:
        scaled means (patients,), interval (patients, 2).
    """
    values, endpoint = learned(plan, parameters), plan.endpoint
    scores = values.expected(features)
    reach = NORMAL.inv_cdf((1 + share) / 2) * np.sqrt(values.variance(features))
    ends = np.stack([scores - reach, scores + reach], axis=1)
    return scores, backward(endpoint.transform, ends * endpoint.scale + endpoint.center)


def caution(plan: StudyPlan, parameters: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """What must be said of the values of a release; nothing if all is well."""
    within = learned(plan, parameters).within_bound
    if within >= _ENOUGH:
        return ()
    return (
        f"about {1 - within:.0%} of the outcomes lay beyond their bound: errors are larger than "
        "stated; a next study needs a larger clipping_norm, or a larger scale of the outcome",
    )


def outcome_unit(plan: StudyPlan) -> str:
    """The unit of the outcome on the scale that it is learned on."""
    words = {"none": "{}", "square_root": "sqrt({})", "logarithm": "log({})"}
    return words[plan.endpoint.transform].format(plan.endpoint.unit)


def _column_unit(plan: StudyPlan, column: str, outcome: str) -> str:
    for feature in plan.features:
        if column == feature.name and feature.kind in {"number", "age"} and feature.unit != "1":
            return f"{outcome} per {feature.unit}"
    return outcome


def _in_own_units(plan: StudyPlan) -> Floats:
    """The matrix that turns scaled coefficients and intercept into those of own units."""
    centers, scales = column_units(plan)
    slopes = plan.endpoint.scale / scales
    turned = np.diag(np.append(slopes, plan.endpoint.scale))
    turned[-1, :-1] = -slopes * centers
    return np.asarray(turned, np.float64)
