"""When a virtual patient leaves the trial: a Weibull hazard, constant by default.

The share that has left by day t is 1 - exp(-(t / scale)^shape); with shape 1 the hazard is the same
on every day. Log hazard ratios make those with other covariates leave earlier or later.
"""

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from fedtwin_twins.trials.conditions import Slope
from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats, Streams


class Dropout(Part):
    """How fast patients leave."""

    share: Annotated[float, Field(ge=0, lt=1, description="that has left by `by_day`")]
    by_day: Annotated[float, Field(gt=0)]
    shape: Annotated[float, Field(gt=0, description="below 1: early; above 1: late")] = 1.0
    slopes: Annotated[
        tuple[Slope, ...], Field(description="log hazard for each unit of a covariate")
    ] = ()
    source: Annotated[str, Field(min_length=3)] = "assumption"

    def days(self, covariates: Mapping[str, Floats], streams: Streams) -> Floats:
        """On which day each patient leaves, (patients,); infinite for who never does.

        Raises:
            ValueError: a slope speaks of a covariate that there is not.
        """
        if self.share == 0:
            return np.full(streams.patients, np.inf)
        log_hazard = np.zeros(streams.patients)
        for slope in self.slopes:
            if slope.covariate not in covariates:
                raise ValueError(f"dropout: there is no covariate {slope.covariate}")
            away = covariates[slope.covariate] - slope.centre
            log_hazard = log_hazard + slope.log_odds_per_unit * away
        gone = -np.log(streams.uniforms("dropout")) / (-np.log1p(-self.share))
        found: Floats = self.by_day * (gone / np.exp(log_hazard)) ** (1 / self.shape)
        return found
