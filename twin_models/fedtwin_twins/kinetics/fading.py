"""Sums over doses of what fades, with their derivatives in rates and lag worked out by hand.

With u the hours since a dose, less the lag, and over all doses that count by then,

    S_n = sum of amount u^n e^(-rate u)
    dS_n/d rate = -S_(n+1)
    dS_n/d lag = rate S_n - n S_(n-1)

so that derivatives of every order are such sums again. They come out of the same exponentials, and
the large tensors (doses, exponentials, patients, times) are neither kept nor differentiated.
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
    """

    rates: Tensor
    lag: Tensor
    amount: Tensor
    start: Tensor
    times: Tensor
    included: bool
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

    def _computed(self, most: int) -> list[Tensor]:
        """S_0 to S_most, some doses at a time; in here patients come last: (…, times, patients)."""
        amount = self.amount.t().contiguous()[:, None]
        start = (self.start + self.lag).t().contiguous()[:, None]
        times, falling = self.times.t().contiguous(), -self.rates.mT
        numbers = falling.numel() * times.shape[0]
        together = max(1, TOGETHER // max(1, numbers))
        found: list[Tensor] = []
        for first in range(0, max(1, start.shape[0]), together):
            some = slice(first, first + together)
            elapsed = times - start[some]
            counts = elapsed >= 0 if self.included else elapsed > 0
            left = torch.where(counts, amount[some], 0.0)[:, None]
            elapsed = elapsed.clamp_(min=0.0)[:, None]
            terms = (elapsed * falling).exp_().mul_(left)
            parts = [terms.sum(dim=0)]
            for _ in range(most):
                parts.append(terms.mul_(elapsed).sum(dim=0))
            found = parts if first == 0 else [a.add_(b) for a, b in zip(found, parts, strict=True)]
        return [one.mT for one in found]


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
            if power > 0:
                change = change - power * sums.of(power - 1)
            by_lag = (change * slope).sum(dim=-1, keepdim=True).sum(dim=0)
        return by_rate, by_lag, None, None
