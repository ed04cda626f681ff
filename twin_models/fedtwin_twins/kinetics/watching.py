"""Whether long steps are right, by how far two methods of different order are apart in them.

For a mode that fades or swings at the given rate the two are apart by about A (rate h)^3/6. Where
step x fastest rate is `COARSE`, nobody looks; so a longer step must not be worse than that, between
two looks together, beside the largest that its state has been.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedtwin_twins.kinetics.systems import States

COARSE = 1.0
"""Step x fastest rate above which nothing is computed unwatched."""
APART = COARSE**3 / 6
LOOKS = 40
"""Steps between looks, at least."""


class Watch:
    """Over the long steps of some patients.

    Attributes:
        sums: of squares of how far the methods are apart, since the last look, by state.
    """

    def __init__(self, states: States) -> None:
        self.sums = tuple(torch.zeros_like(one) for one in states)
        self._largest = tuple(one.detach().abs() for one in states)
        self._looked = 0

    def sees_wrong(self, place: int, last: bool) -> bool:
        """Whether somebody's steps before this place were too long, if it is time to look."""
        if place - self._looked < LOOKS and not last:
            return False
        self._looked = place
        limits = ((APART * one).square() for one in self._largest)
        right = _all([one <= most for one, most in zip(self.sums, limits, strict=True)])
        self.sums = tuple(torch.zeros_like(one) for one in self.sums)
        return not bool(right.all())

    def met(self, states: States) -> None:
        """States that have been."""
        now = (one.detach().abs() for one in states)
        pairs = zip(self._largest, now, strict=True)
        self._largest = tuple(torch.maximum(one, other) for one, other in pairs)


def _all(parts: Sequence[Tensor]) -> Tensor:
    found = parts[0]
    for one in parts[1:]:
        found = found & one
    return found
