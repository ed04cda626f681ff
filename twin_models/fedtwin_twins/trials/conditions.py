"""Conditions of virtual patients: how common they are, and what they change.

The chance follows a logistic function: the prevalence at the centre of its covariates, and log odds
for each unit away from it. A condition multiplies covariates and the true parameters of the drug.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats, Streams

Flags = NDArray[np.bool_]
Positive = Annotated[float, Field(gt=0)]


class Slope(Part):
    """How the odds of a condition change with a covariate."""

    covariate: str
    centre: Annotated[float, Field(description="where the prevalence holds, in its unit")]
    log_odds_per_unit: float


class Condition(Part):
    """A condition that some patients have."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    code: Annotated[str | None, Field(description="such as ICD10//E11.9 or SNOMED//44054006")] = (
        None
    )
    prevalence: Annotated[float, Field(ge=0, le=1)]
    slopes: tuple[Slope, ...] = ()
    covariate_factors: Annotated[
        dict[str, Positive],
        Field(default_factory=dict, description="covariates of those who have it, times this"),
    ]
    parameter_factors: Annotated[
        dict[str, Positive],
        Field(default_factory=dict, description="true parameters of those who have it, times this"),
    ]
    source: Annotated[str, Field(min_length=3)]

    def chance(self, covariates: Mapping[str, Floats], patients: int) -> Floats:
        """Of each patient, (patients,)."""
        if self.prevalence in (0, 1):
            return np.full(patients, self.prevalence)
        odds = np.full(patients, np.log(self.prevalence / (1 - self.prevalence)))
        for slope in self.slopes:
            odds = odds + slope.log_odds_per_unit * (covariates[slope.covariate] - slope.centre)
        found: Floats = 1 / (1 + np.exp(-odds))
        return found


def draw_conditions(
    conditions: Sequence[Condition], covariates: Mapping[str, Floats], streams: Streams
) -> tuple[dict[str, Flags], dict[str, Floats]]:
    """Who has which condition, and the covariates after it.

    Conditions follow one another in the order of the plan: the covariates that one has changed are
    those that the next one sees.

    Returns:
        Flags by condition and covariates by name, (patients,) each.

    Raises:
        ValueError: a condition speaks of a covariate that there is not.
    """
    changed = dict(covariates)
    flags = {}
    for condition in conditions:
        named = {slope.covariate for slope in condition.slopes} | set(condition.covariate_factors)
        if unknown := sorted(named - set(changed)):
            raise ValueError(f"condition {condition.name}: there is no covariate {unknown[0]}")
        has = streams.uniforms(f"condition {condition.name}") < condition.chance(
            changed, streams.patients
        )
        for name, factor in condition.covariate_factors.items():
            changed[name] = np.where(has, changed[name] * factor, changed[name])
        flags[condition.name] = has
    return flags, changed
