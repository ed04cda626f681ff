"""Whether long steps are right, by how far two methods of different order are apart in them.

For a mode that fades or swings at the given rate the two are apart by about A (rate h)^3/6. Where
step x fastest rate is `COARSE`, nobody looks; so a longer step must not be worse than that, between
two looks together, beside the largest that its state has been.
"""

import torch

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
        self._size = torch.empty_like(self._largest[0])
        self._looked = 0

    def sees_wrong(self, place: int, last: bool) -> bool:
        """Whether somebody's steps before this place were too long, if it is time to look."""
        if place - self._looked < LOOKS and not last:
            return False
        self._looked = place
        for one, largest in zip(self.sums, self._largest, strict=True):
            limit = torch.mul(largest, APART, out=self._size).square_()
            if not bool((one <= limit).all()):
                return True
        self.sums = tuple(torch.zeros_like(one) for one in self.sums)
        return False

    def met(self, states: States) -> None:
        """States that have been."""
        for largest, one in zip(self._largest, states, strict=True):
            size = torch.abs(one.detach(), out=self._size)
            torch.maximum(largest, size, out=largest)
