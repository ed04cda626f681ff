"""What a signed plan and a released sum fix about population values, in scaled units.

With feature value v = c + s x of column x, and the outcome's scaled y of t = C + S y, known b per
unit of v is b s / S per unit of x, and a known intercept a is (a + sum b c - C) / S.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import SITES
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan


def column_units(plan: StudyPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and scale of each column in its feature's unit, (columns,) each."""
    pairs = [
        (0.0, 1.0) if column == f"{feature.name} missing" else (feature.center, feature.scale)
        for feature in plan.features
        for column in feature.columns
    ]
    centers, scales = np.array(pairs, np.float64).T
    return centers, scales


def prior_of(plan: StudyPlan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sd that the plan knows of coefficients and intercept, (columns + 1,) each, scaled.

    Raises:
        PlanError: the plan is not about a population.
    """
    known = plan.population
    if known is None:
        raise PlanError(f"{plan.study} is no population study: its plan has no part 'population'")
    centers, scales = column_units(plan)
    columns, outcome = plan.contract.columns, plan.endpoint
    named = [known.coefficients.get(column) for column in columns]
    slopes = np.array([0.0 if one is None else one.mean for one in named])
    means = np.append(slopes * scales / outcome.scale, 0.0)
    sds = [
        known.spread if one is None else one.sd * scale / outcome.scale
        for one, scale in zip(named, scales, strict=True)
    ]
    if known.intercept is None:
        return means, np.array([*sds, known.spread])
    at_centers = known.intercept.mean + float(slopes @ centers)
    means[-1] = (at_centers - outcome.center) / outcome.scale
    return means, np.array([*sds, known.intercept.sd / outcome.scale])


def sum_noise_sd(plan: StudyPlan, sites: int) -> float:
    """Sd of the noise in each number of the sum over so many sites."""
    privacy = plan.privacy
    one = privacy.noise_multiplier * privacy.clipping_norm
    if privacy.mode == "none":
        return 0.0
    if privacy.mode == "local":
        return one * sqrt(sites)
    return one * sqrt(sites / secure_terms(plan).honest_present)


def design_of(plan: StudyPlan, parameters: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The fields of the twins' `Design` of a population study.

    Raises:
        PlanError: the plan is not about a population.
    """
    means, sds = prior_of(plan)
    assert plan.population is not None
    sites = max(1, round(float(parameters[SITES][0])))
    return {
        "columns": plan.contract.columns,
        "prior_mean": means,
        "prior_sd": sds,
        "clipping_norm": plan.privacy.clipping_norm,
        "site_variance_ratio": plan.population.site_variance_ratio,
        "noise_sd": sum_noise_sd(plan, sites),
        "sites": sites,
    }
