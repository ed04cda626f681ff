"""Which families audits can learn outside the hospitals, and why not the others."""

from typing import Final

from fedtwin_protocol.errors import ReleaseError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES, parameter_shapes
from fedtwin_protocol.study import NEED_SEQUENCE, StudyPlan
from fedtwin_protocol.study_population import FAMILY as POPULATION
from fedtwin_protocol.study_population import MECHANISM as MOMENTS
from fedtwin_research.audits.family import Family
from fedtwin_research.audits.hazards import Hazards
from fedtwin_research.audits.linear import Linear, MeanVector
from fedtwin_research.audits.networks import Network

MECHANISMS: Final = ("gradient_sum", "local_steps", "mean_vector", MOMENTS)
MOST_INPUTS: Final = 2000
"""Inputs of a network over records beyond which hundreds of them take hours."""


def family_of(plan: StudyPlan) -> Family | None:
    """The family of a plan; none where it is built in, and cannot be learned here (`why_not`).

    Raises:
        ReleaseError: it is not built in, or its mechanism is not known here.
    """
    family, columns = plan.model.family, len(plan.contract.columns)
    if family not in BUILT_IN_FAMILIES:
        raise ReleaseError(
            f"model family '{family}' was installed by the sites themselves, so that nothing about "
            f"it can be repeated here; audits outside know {', '.join(BUILT_IN_FAMILIES)}"
        )
    if plan.training.mechanism not in MECHANISMS:
        raise ReleaseError(
            f"audits outside do not know the mechanism '{plan.training.mechanism}'; they know "
            f"{', '.join(MECHANISMS)}"
        )
    if why_not(plan):
        return None
    if family == "network":
        return Network(parameter_shapes(plan))
    if family == "discrete_hazard":
        return Hazards(columns, plan.endpoint.interval_days)
    if plan.training.mechanism == "mean_vector":
        return MeanVector(columns)
    return Linear(columns, family)


def why_not(plan: StudyPlan) -> str:
    """Why shadow models of a built-in family are not learned here; empty where they are."""
    family = plan.model.family
    if family == POPULATION:
        what, why = (
            "a sum of moments",
            "it is one sum that is released as it is, with no steps of a model to repeat and no "
            "patient's gradient to invert",
        )
    elif family in NEED_SEQUENCE:
        what, why = (
            "a transformer" if family == "transformer" else "a recurrent network",
            "hundreds of them would have to be learned by every patient's own gradient, for which "
            "a researcher's software has no engine",
        )
    elif plan.sequence is not None and (inputs := parameter_inputs(plan)) > MOST_INPUTS:
        what, why = (
            f"a network with {inputs} inputs",
            f"hundreds of them would have to be learned, which with more than {MOST_INPUTS} inputs "
            "takes hours",
        )
    else:
        return ""
    instead = (
        "the plan is priced, and the bound from one run is taken, which depends on clip, noise, "
        "sampling and steps and not on the family"
        if plan.privacy.mode != "none"
        else "nothing, because the plan promises no privacy"
    )
    return (
        f"membership and inversion of {what}: {why}; instead: {instead}; the software itself is "
        "tested at each hospital by 'fedtwin client check --privacy'"
    )


def parameter_inputs(plan: StudyPlan) -> int:
    """Inputs of a network's first layer."""
    return int(parameter_shapes(plan)["layer1.weight"][1])
