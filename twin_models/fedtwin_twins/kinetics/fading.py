"""Sums over doses of what fades, with their derivatives in rates and lag worked out by hand.

With u the hours since a dose, less the lag, and over all doses that count by then,

    S_n = sum of amount u^n e^(-rate u)
    dS_n/d rate = -S_(n+1)
    dS_n/d lag = rate S_n - n S_(n-1) (for n = 0 less what is running in)

so that derivatives of every order are such sums again. They come out of the same exponentials, and
the large tensors (doses, exponentials, patients, times) are neither kept nor differentiated.

A dose that runs in over d hours is a row of small ones: u^n e^(-rate u) becomes its mean over the
hours from max(u - d, 0) to u, in proportion to what has run in. By parts,

    I_n = int u^n e^(-rate u) du = [-u^n e^(-rate u) / rate] + n I_(n-1) / rate
"""

from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

TOGETHER: Final = 262_144
"""Numbers that are worked on at a time, so that they stay in the cache of a CPU."""
DERIVATIVES: Final = 2
"""The highest power that is worked out along with the first, where derivatives are wanted."""


@dataclass(slots=True)
class FadingSums:
    """Sums of every power, worked out when one is first asked for.

    Attributes:
        rates: 1/h, (exponentials, patients, 1).
        lag: h, (patients, 1).
        amount: (patients, doses).
        start: h, (patients, doses), infinity in empty slots.
        times: h, (patients, times) or (1, times).
        included: whether a dose counts at its own time.
        duration: h over which a dose runs in, (patients, doses), 0: all at once; none: all 0.
    """

    rates: Tensor
    lag: Tensor
    amount: Tensor
    start: Tensor
    times: Tensor
    included: bool
    duration: Tensor | None = None
    _known: list[Tensor] = field(default_factory=list)

    def of(self, power: int) -> Tensor:
        """S_n, differentiable in rates and lag to any order, (exponentials, patients, times)."""
        found: Tensor = _Fading.apply(self.rates, self.lag, self, power)  # type: ignore[no-untyped-call]
        return found

    def number(self, power: int) -> Tensor:
        """The same without derivatives."""
        if power >= len(self._known):
            wanted = self.rates.requires_grad or self.lag.requires_grad
            with torch.no_grad():
                self._known = self._computed(max(power, DERIVATIVES if wanted else 0))
        return self._known[power]

    def inflow(self) -> Tensor | float:
        """What is running in at the asked times, amount/h, (patients, times)."""
        if self.duration is None:
            return 0.0
        elapsed = (self.times - (self.start + self.lag).t()[:, :, None]).detach()
        duration = self.duration.t()[:, :, None]
        runs = (elapsed > 0) & (elapsed < duration)
        rate = self.amount.t()[:, :, None] / torch.where(duration > 0, duration, 1.0)
        return torch.where(runs, rate, 0.0).sum(dim=0)

    def _computed(self, most: int) -> list[Tensor]:
        """S_0 to S_most, some doses at a time; in here patients come last: (…, times, patients)."""
        amount = self.amount.t().contiguous()[:, None]
        start = (self.start + self.lag).t().contiguous()[:, None]
        duration = None if self.duration is None else self.duration.t().contiguous()[:, None]
        times, falling = self.times.t().contiguous(), -self.rates.mT
        together = max(1, TOGETHER // max(1, falling.numel() * times.shape[0]))
        found: list[Tensor] = []
        for first in range(0, max(1, start.shape[0]), together):
            some = slice(first, first + together)
            elapsed = times - start[some]
            counts = elapsed >= 0 if self.included else elapsed > 0
            left = torch.where(counts, amount[some], 0.0)
            elapsed.clamp_(min=0.0)
            if duration is None:
                parts = _at_once(elapsed, left, falling, most)
            else:
                parts = _run_in(elapsed, left, duration[some], falling, most)
            found = parts if first == 0 else [a.add_(b) for a, b in zip(found, parts, strict=True)]
        return [one.mT for one in found]


def _at_once(elapsed: Tensor, left: Tensor, falling: Tensor, most: int) -> list[Tensor]:
    """S_0 to S_most, each (exponentials, times, patients).

    Args:
        elapsed: u, (doses, times, patients), 0 or more.
        left: amounts that count.
        falling: -rate, (exponentials, 1, patients).
        most: the highest power.
    """
    elapsed = elapsed[:, None]
    terms = (elapsed * falling).exp_().mul_(left[:, None])
    parts = [terms.sum(dim=0)]
    for _ in range(most):
        parts.append(terms.mul_(elapsed).sum(dim=0))
    return parts


def _run_in(
    elapsed: Tensor, left: Tensor, duration: Tensor, falling: Tensor, most: int
) -> list[Tensor]:
    """The same of doses that take their time, of which some may still be all at once."""
    slow = duration > 0
    flow = torch.where(slow, left / torch.where(slow, duration, 1.0), 0.0)[:, None]
    later = (elapsed - duration).clamp_(min=0.0)
    run, later, until = (elapsed - later)[:, None], later[:, None], elapsed[:, None]
    low = (later * falling).exp_().mul_(flow)
    lost = (run * falling).expm1_().mul_(low)
    high = low + lost
    terms = lost.div_(falling)
    parts = [terms.sum(dim=0)]
    for power in range(1, most + 1):
        high.mul_(until)
        low.mul_(later)
        terms = terms.mul_(-power).add_(high).sub_(low).div_(falling)
        parts.append(terms.sum(dim=0))
    if bool(slow.all()):
        return parts
    others = _at_once(elapsed, torch.where(slow, 0.0, left), falling, most)
    return [one.add_(other) for one, other in zip(parts, others, strict=True)]


class _Fading(torch.autograd.Function):
    """S_n as a function of rates and lag."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rates: Tensor, lag: Tensor, sums: FadingSums, power: int) -> Tensor:
        """The sum itself; what is kept must not become a part of any graph."""
        return sums.number(power).detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """What the derivatives need."""
        rates, _, ctx.sums, ctx.power = inputs
        ctx.save_for_backward(rates)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """See the head of the module."""
        (rates,) = ctx.saved_tensors
        sums, power = ctx.sums, ctx.power
        by_rate = by_lag = None
        if ctx.needs_input_grad[0]:
            by_rate = -(sums.of(power + 1) * slope).sum(dim=-1, keepdim=True)
        if ctx.needs_input_grad[1]:
            change = rates * sums.of(power)
            change = change - (power * sums.of(power - 1) if power else sums.inflow())
            by_lag = (change * slope).sum(dim=-1, keepdim=True).sum(dim=0)
        return by_rate, by_lag, None, None
