"""A population study at a site: its sum of bounded moments, and its own effect, which stays."""

from collections.abc import Mapping

from fedtwin_client.training.noise import Floats
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.payload import Array
from fedtwin_protocol.population_design import design_of, prior_of
from fedtwin_protocol.study import StudyPlan
from fedtwin_twins.population.design import Design
from fedtwin_twins.population.estimate import PopulationValues, population_values
from fedtwin_twins.population.moments import site_sum


def moments_of(plan: StudyPlan, rows: TrainingRows) -> Floats:
    """The exact sum over a site's patients; one of them moves it by the clipping norm at most.

    Raises:
        PlanError: the plan is not about a population.
    """
    prior, _ = prior_of(plan)
    assert plan.population is not None
    return site_sum(
        rows.features,
        rows.outcomes,
        prior,
        plan.privacy.clipping_norm,
        plan.population.site_variance_ratio,
    )


def values_of(plan: StudyPlan, parameters: Mapping[str, Array]) -> PopulationValues:
    """The population values of a released sum.

    Raises:
        PlanError: the plan is not about a population.
    """
    return population_values(parameters, Design(**design_of(plan, parameters)))
