"""Which doses a virtual patient takes: a Markov chain of two states, taken and missed.

Given by the share of doses taken in the long run and by how alike neighbouring doses are: with
persistence r, P(taken after taken) = s + r (1 - s), P(taken after missed) = s (1 - r). The chain
starts in its stationary state. Patients differ in s by a normal number on the logit scale.
Girard et al. 1998 (Statistics in Medicine 17:2313) describe doses by such a chain.
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedtwin_twins.trials.parts import Part
from fedtwin_twins.trials.streams import Floats, Streams

_PURPOSE = "adherence"


class Adherence(Part):
    """How reliably doses are taken."""

    taken_share: Annotated[float, Field(gt=0, le=1, description="of all doses, in the long run")]
    persistence: Annotated[
        float, Field(ge=0, lt=1, description="0: each dose by itself; near 1: long spells")
    ] = 0.0
    between_patients_sd: Annotated[
        float, Field(ge=0, description="of the logit of the share, between patients")
    ] = 0.0
    source: Annotated[str, Field(min_length=3)] = "assumption: every dose is given and taken"

    def shares(self, streams: Streams) -> Floats:
        """Share of doses that each patient takes in the long run, (patients,)."""
        if self.taken_share == 1:
            return np.ones(streams.patients)
        logit = np.log(self.taken_share / (1 - self.taken_share))
        spread = self.between_patients_sd * streams.normals(f"{_PURPOSE} of a patient")
        found: Floats = 1 / (1 + np.exp(-(logit + spread)))
        return found

    def taken(self, doses: int, streams: Streams) -> NDArray[np.bool_]:
        """Which doses are taken, (patients, doses)."""
        shares = self.shares(streams)
        found = np.zeros((streams.patients, doses), dtype=bool)
        for dose in range(doses):
            chance = shares
            if dose:
                after_taken = shares + self.persistence * (1 - shares)
                after_missed = shares * (1 - self.persistence)
                chance = np.where(found[:, dose - 1], after_taken, after_missed)
            found[:, dose] = streams.uniforms(_PURPOSE, dose) < chance
        return found
