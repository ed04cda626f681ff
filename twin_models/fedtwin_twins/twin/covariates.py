"""What is known of a patient over time, and what it is taken to be between two records.

- `last_forward`: a value holds from its record on, until the next one (LOCF);
- `next_backward`: a value holds from just after the record before it, up to its own (NOCB);
- `line`: values lie on a line between records. The equations know only spans, so the line becomes
  steps of at most 1 % of the larger value (and at most 100 between two records), each at the
  line's own value in its middle.

Before the first record its value holds, after the last one the last; whoever must know is told.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Traits
from fedtwin_twins.twin.model import CarryRule
from fedtwin_twins.twin.moments import Moment
from fedtwin_twins.twin.quantities import Quantity

_STEP = 0.01
_MOST_STEPS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class CovariateRecord:
    """A value that was found at a time.

    Attributes:
        time: of the record.
        value: with its unit, or the name of a level such as `female`.
    """

    time: Moment
    value: Quantity | str


Steps = list[tuple[float, float]]
"""(hour from which it holds, value), ascending; the first from -infinity."""


def steps_of(records: Sequence[tuple[float, float]], rule: CarryRule) -> Steps:
    """What a covariate is at every time.

    Args:
        records: (hour, value), ascending, at least one, no hour twice.
        rule: between two records.
    """
    if rule == "last_forward":
        return [(-math.inf, records[0][1]), *records[1:]]
    if rule == "next_backward":
        later = [
            (math.nextafter(before[0], math.inf), after[1]) for before, after in pairwise(records)
        ]
        return [(-math.inf, records[0][1]), *later]
    steps: Steps = [(-math.inf, records[0][1])]
    for before, after in pairwise(records):
        steps.extend(_along(before, after))
    return [*steps, records[-1]] if len(records) > 1 else steps


def _along(before: tuple[float, float], after: tuple[float, float]) -> Steps:
    larger = max(abs(before[1]), abs(after[1]))
    change = abs(after[1] - before[1])
    count = 1 if change == 0 else min(_MOST_STEPS, math.ceil(change / (_STEP * larger)))
    width = (after[0] - before[0]) / count
    slope = (after[1] - before[1]) / count
    return [
        (before[0] + place * width, before[1] + (place + 0.5) * slope) for place in range(count)
    ]


def traits_of(
    patients: Sequence[Mapping[str, Steps]], occasions: Sequence[Sequence[float]]
) -> Traits:
    """Every patient's spans, padded to one width.

    Args:
        patients: steps by covariate, the same covariates for all.
        occasions: for each patient the hours at which a new occasion begins, ascending.

    Returns:
        A new span wherever any covariate or the occasion changes.
    """
    names = list(patients[0]) if patients else []
    cuts = [
        sorted({-math.inf, *starts, *(hour for steps in one.values() for hour, _ in steps)})
        for one, starts in zip(patients, occasions, strict=True)
    ]
    width = max((len(one) for one in cuts), default=1)
    starts = torch.full((len(patients), width), math.inf, dtype=torch.float64)
    for row, one in enumerate(cuts):
        starts[row, : len(one)] = torch.tensor(one, dtype=torch.float64)
    values = {
        name: torch.tensor(
            [_at(one[name], cut, width) for one, cut in zip(patients, cuts, strict=True)],
            dtype=torch.float64,
        )
        for name in names
    }
    numbers = [
        [*(bisect_right(begins, hour) for hour in cut), *([len(begins)] * (width - len(cut)))]
        for begins, cut in zip(occasions, cuts, strict=True)
    ]
    places = torch.tensor(numbers, dtype=torch.int64).reshape(len(patients), width)
    return Traits(values=values, starts=starts, occasions=places)


def _at(steps: Steps, hours: Sequence[float], width: int) -> list[float]:
    """The value in each span; empty spans repeat the last, so that equations stay finite."""
    found, place = [], 0
    for hour in hours:
        while place + 1 < len(steps) and steps[place + 1][0] <= hour:
            place += 1
        found.append(steps[place][1])
    return found + [found[-1]] * (width - len(found))


def with_breaks(traits: Traits, hours: Tensor) -> Traits:
    """The same traits, with new spans that begin at the given hours.

    Args:
        traits: of (patients, spans).
        hours: (patients, breaks); infinity adds an empty span.

    Returns:
        (patients, spans + breaks): every value is what it was.
    """
    starts = torch.cat([traits.starts, hours], dim=1).sort(dim=1).values
    own = torch.searchsorted(traits.starts.contiguous(), starts.contiguous(), right=True) - 1
    own = own.clamp(min=0, max=traits.spans - 1)
    return Traits(
        values={name: value.gather(1, own) for name, value in traits.values.items()},
        starts=starts,
        occasions=traits.occasions.gather(1, own),
    )
