"""The part of a plan that says what is known of a population before, and how sites may differ.

The model is linear in the plan's columns, with a shift of each site (a linear mixed model). What is
known, such as a published algorithm, is written in the features' own units and on the scale of the
endpoint's `transform`; the sites learn what it leaves unexplained.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pydantic import Field

from fedtwin_protocol.contract import Part

if TYPE_CHECKING:
    from fedtwin_protocol.study import StudyPlan

FAMILY: Final = "linear_mixed_model"
MECHANISM: Final = "moments"


class Known(Part):
    """What is known of a number before the study: its mean and standard deviation."""

    mean: float
    sd: float = Field(gt=0, le=1e6)


class Population(Part):
    """What is known before, and how sites may differ.

    Attributes:
        coefficients: by column, change of the (transformed) outcome for one unit of the feature,
            or for a yes, a category or a missing value.
        intercept: the (transformed) outcome where all features are 0; its `sd` is that of the
            outcome where they are at their centres. Left out: the endpoint's `center`.
        spread: sd, in scaled units and around 0, of what is not named: an outcome's `scale` for a
            feature's `scale`.
        site_variance_ratio: a guess at the variance between sites over that between patients of a
            site; 0: sites are alike, and nothing is learned of their differences.
        source: of the numbers.
    """

    coefficients: dict[str, Known] = Field(default_factory=dict)
    intercept: Known | None = None
    spread: float = Field(default=1.0, gt=0, le=1000)
    site_variance_ratio: float = Field(default=0.1, ge=0, le=10)
    source: str = Field(default="", max_length=600)


def population_faults(plan: "StudyPlan") -> Iterator[str]:
    """What does not fit together in a plan about a population; nothing for one that is fine."""
    marks = {
        f"question 'population' (it is '{plan.question}')": plan.question == "population",
        "the part 'population'": plan.population is not None,
        f"mechanism '{MECHANISM}'": plan.training.mechanism == MECHANISM,
        f"model family '{FAMILY}'": plan.model.family == FAMILY,
    }
    if not any(marks.values()):
        return
    missing = [name for name, there in marks.items() if not there]
    if missing:
        yield f"a population study has all of {', '.join(marks)}; missing: {', '.join(missing)}"
    if plan.population is None:
        return
    unknown = sorted(set(plan.population.coefficients) - set(plan.contract.columns))
    if unknown:
        yield (
            f"population.coefficients names {', '.join(unknown)}; the columns are "
            f"{', '.join(plan.contract.columns)}"
        )
    if plan.privacy.sampling_rate != 1:
        yield "'moments' uses everybody: set sampling_rate to 1"
    if (plan.model.l2, plan.model.initial_intercept) != (0, 0):
        yield (
            "'moments' needs no penalty and no first intercept, which population.coefficients and "
            "intercept say: leave model.l2 and model.initial_intercept out"
        )
