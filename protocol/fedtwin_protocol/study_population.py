"""The part of a plan that says what is known of a population before, and how sites may differ.

The model is linear in the plan's columns, with a shift of each site (a linear mixed model). What is
known, such as a published algorithm, is written in the features' own units and on the scale of the
endpoint's `transform`; the sites learn what it leaves unexplained.
"""

from typing import Final

from pydantic import Field

from fedtwin_protocol.contract import Part

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
