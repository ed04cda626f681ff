"""The clipped sum of each model family and mechanism: what a site computes from its patients."""

from fedtwin_client.training.contributions import GradientOf, Parameters, SumOfPatients
from fedtwin_client.training.gradients import clipped_gradient_sum, clipped_signed_sum
from fedtwin_client.training.hazard import clipped_hazard_sum, person_intervals
from fedtwin_client.training.population import moments_of
from fedtwin_client.training.training_rows import TrainingRows
from fedtwin_protocol.parameters import flatten
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_population import MECHANISM as MOMENTS

OF_LAYERS = frozenset({"network", "transformer", "recurrent"})
"""Families of layers: computed by torch, in float32."""


def gradient_of(plan: StudyPlan) -> GradientOf:
    """The sum that a plan's mechanism and family ask for."""
    clip, family = plan.privacy.clipping_norm, plan.model.family
    if family in OF_LAYERS:
        from fedtwin_client.training.network import network_gradient  # noqa: PLC0415 - torch

        return network_gradient(plan)
    if family == "discrete_hazard":
        return _hazard_gradient(clip, plan.endpoint.interval_days)
    if plan.training.mechanism == MOMENTS:
        return lambda rows, _: moments_of(plan, rows)
    if plan.training.mechanism == "mean_vector":
        return lambda rows, _: clipped_signed_sum(rows.features, rows.outcomes, clip)
    return lambda rows, parameters: clipped_gradient_sum(
        rows.features, rows.outcomes, flatten(parameters), clip, family
    )


def _hazard_gradient(clip: float, interval_days: tuple[int, ...]) -> GradientOf:
    def gradient(rows: TrainingRows, parameters: Parameters) -> SumOfPatients:
        assert rows.days is not None
        at_risk, event = person_intervals(rows.days, rows.outcomes, interval_days)
        return clipped_hazard_sum(rows.features, at_risk, event, flatten(parameters), clip)

    return gradient
