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

from dataclasses import dataclass
from inspect import signature
from typing import Any, Final

import torch
from torch import Tensor

TOGETHER: Final = 262_144
"""Numbers that are worked on at a time, so that they stay in the cache of a CPU."""


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
    _known: Tensor | None = None

    def of(self, first: int = 0, count: int = 1) -> Tensor:
        """S_n for n from `first`, differentiable in rates and lag to any order.

        Returns:
            (count, exponentials, patients, times).
        """
        if not torch.is_grad_enabled():
            return self.numbers(first, count)
        found: Tensor = _Fading.apply(self.rates, self.lag, self, first, count)  # type: ignore[no-untyped-call]
        return found

    def numbers(self, first: int, count: int) -> Tensor:
        """The same without derivatives."""
        end = first + count
        if self._known is None or end > len(self._known):
            # Whoever asks first, and for something to differentiate, asks for one more next.
            derived = self.rates.requires_grad or self.lag.requires_grad
            wanted = self._known is None and derived
            with torch.no_grad():
                self._known = self._computed(end + wanted)
        return self._known[first:end]

    def inflow(self) -> Tensor:
        """What is running in at the asked times, amount/h, (patients, times)."""
        elapsed = (self.times - (self.start + self.lag).t()[:, :, None]).detach()
        if self.duration is None:
            return torch.zeros_like(elapsed[0])
        duration = self.duration.t()[:, :, None]
        runs = (elapsed > 0) & (elapsed < duration)
        rate = self.amount.t()[:, :, None] / torch.where(duration > 0, duration, 1.0)
        return torch.where(runs, rate, 0.0).sum(dim=0)

    def falls(self, first: int, count: int) -> Tensor:
        """What each S_n loses by a later lag, besides what it gains from its rate; as `of`."""
        parts = [] if first else [self.inflow().expand(1, self.rates.shape[0], -1, -1)]
        lowest = max(first, 1)
        if first + count > lowest:
            powers = torch.arange(lowest, first + count, device=self.rates.device)
            lower = self.of(lowest - 1, first + count - lowest)
            parts.append(powers[:, None, None, None] * lower)
        return torch.cat(parts)

    def _computed(self, count: int) -> Tensor:
        """As many sums, some doses at a time; in here patients come last: (…, times, patients)."""
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
                parts = _at_once(elapsed, left, falling, count)
            else:
                parts = _run_in(elapsed, left, duration[some], falling, count)
            found = parts if first == 0 else [a.add_(b) for a, b in zip(found, parts, strict=True)]
        return torch.stack(found).mT


def _at_once(elapsed: Tensor, left: Tensor, falling: Tensor, count: int) -> list[Tensor]:
    """S_0 and those that follow, each (exponentials, times, patients).

    Args:
        elapsed: u, (doses, times, patients), 0 or more.
        left: amounts that count.
        falling: -rate, (exponentials, 1, patients).
        count: how many.
    """
    elapsed = elapsed[:, None]
    terms = (elapsed * falling).exp_().mul_(left[:, None])
    parts = [terms.sum(dim=0)]
    for _ in range(1, count):
        parts.append(terms.mul_(elapsed).sum(dim=0))
    return parts


def _run_in(
    elapsed: Tensor, left: Tensor, duration: Tensor, falling: Tensor, count: int
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
    for power in range(1, count):
        high.mul_(until)
        low.mul_(later)
        terms = terms.mul_(-power).add_(high).sub_(low).div_(falling)
        parts.append(terms.sum(dim=0))
    if bool(slow.all()):
        return parts
    others = _at_once(elapsed, torch.where(slow, 0.0, left), falling, count)
    return [one.add_(other) for one, other in zip(parts, others, strict=True)]


class _Fading(torch.autograd.Function):
    """S_n as a function of rates and lag."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rates: Tensor, lag: Tensor, sums: FadingSums, first: int, count: int) -> Tensor:
        """The sums themselves; what is kept must not become a part of any graph."""
        return sums.numbers(first, count).detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """What the derivatives need."""
        rates, _, *ctx.asked = inputs
        ctx.save_for_backward(rates)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """See the head of the module."""
        (rates,) = ctx.saved_tensors
        sums, first, count = ctx.asked
        by_rate = by_lag = None
        if ctx.needs_input_grad[0]:
            by_rate = -(sums.of(first + 1, count) * slope).sum(dim=(0, -1))[..., None]
        if ctx.needs_input_grad[1]:
            change = rates * sums.of(first, count) - sums.falls(first, count)
            by_lag = (change * slope).sum(dim=(0, 1, -1))[..., None]
        return by_rate, by_lag, None, None, None


# Torch asks for it at every call, and finding out what it is takes longer than the call.
_Fading.forward.__signature__ = signature(_Fading.forward)  # type: ignore[attr-defined]
