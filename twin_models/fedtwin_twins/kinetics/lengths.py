"""How long steps are: short after what happens, longer later.

After a dose every mode of a body fades as e^(-rate t), the fastest soonest. The error of a step of
h hours at hour t is about A (rate h)^5/120 e^(-rate t). At a given t it is largest for rate = 5/t,
where it is A (5 h/t)^5/120 e^-5; so steps that grow with the hours since,

    h = growth t, where 5 growth = e (fastest rate x first step),

are nowhere more wrong than the first one, whatever the rates below the fastest are. What does not
fade (an oscillation, a rhythm) breaks the assumption: whoever takes such steps must watch them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of steps, by the hours since something last happened.

    Attributes:
        first: h, right after it.
        longest: h, at last; the same as `first`: all steps are alike.
        growth: hours by which steps are longer for each hour since.
    """

    first: float
    longest: float
    growth: float = 1.0

    @property
    def even(self) -> bool:
        """Whether all steps are alike."""
        return self.longest <= self.first

    def taken(self, since: Tensor) -> Tensor:
        """Steps, whole or not, that lie in so many hours."""
        if self.even:
            return since / self.first
        grows, grown = self.first / self.growth, self.longest / self.growth
        growing = (since.clamp(min=grows, max=grown) / grows).log() / self.growth
        return since.clamp(max=grows) / self.first + growing + _above(since, grown) / self.longest

    def since(self, taken: Tensor) -> Tensor:
        """Hours in which so many steps lie."""
        if self.even:
            return taken * self.first
        grows = self.first / self.growth
        most = math.log(self.longest / self.first) / self.growth
        growing = _above(taken, 1 / self.growth)
        at_first = taken.clamp(max=1 / self.growth) * self.first
        later = grows * ((growing.clamp(max=most) * self.growth).exp() - 1)
        return at_first + later + _above(growing, most) * self.longest


def all_alike(hours: float) -> Lengths:
    """Steps of at most so many hours."""
    return Lengths(hours, hours)


def _above(values: Tensor, limit: float) -> Tensor:
    return torch.clamp(values - limit, min=0.0)
