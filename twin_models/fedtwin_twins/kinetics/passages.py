"""What a stretch of time does to modes and absorption chains, in closed form.

A chain is n stages that empty into one another, and the last one into the central compartment, all
at rate k (n = 1: first-order absorption; n > 1: serial transit, an Erlang distribution of delays;
n = 0: straight in). A mode of rate l that is fed by stage j of the chain, i = n - j + 1 steps away,
gains k^i W_i(t) for each unit there:

    W_i(t) = int_0^t e^(-l (t - s)) s^(i - 1)/(i - 1)! e^(-k s) ds

By parts W_i = (W_(i-1) - t^(i-1)/(i-1)! e^(-k t)) / (k - l), with W_0 = e^(-l t). Where z = (k - l)
t is small, that subtracts equals, and W_i = t^i e^(-k t) phi_i(z) with the functions phi_i(z) =
sum_j z^j/(i + j)! of exponential integrators (Hochbruck and Ostermann 2010, Acta Numerica 19:209,
section 2.1) is summed instead: rates that coincide are nothing special.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial
from typing import Any

import torch
from torch import Tensor

NEAR = 1e-5
"""Relative distance of two rates below which a single stage is summed as a series."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Absorption of one route: how many stages, and their rate, 1/h (none without stages)."""

    stages: int
    rate: Tensor | None


@dataclass(frozen=True, slots=True)
class State:
    """What is in the body, each tensor of the same shape.

    Attributes:
        modes: amplitude of each.
        chains: amount in each stage, by route.
        inflow: amount/h that is running in, by route; none where nothing can.
    """

    modes: tuple[Tensor, ...]
    chains: tuple[tuple[Tensor, ...], ...]
    inflow: tuple[Tensor, ...] | None

    def at(self, pick: Callable[[Tensor], Tensor]) -> "State":
        """Changed tensor by tensor."""
        return State(
            tuple(map(pick, self.modes)),
            tuple(tuple(map(pick, stages)) for stages in self.chains),
            None if self.inflow is None else tuple(map(pick, self.inflow)),
        )


@dataclass(frozen=True, slots=True)
class Passage:
    """Factors by which a stretch of time changes a state.

    Attributes:
        decay: of each mode.
        stays: by route, what a unit in a stage leaves i stages on.
        arrives: by route and mode, what a unit in the stage i + 1 steps away adds.
        fills: by route, what a unit of inflow leaves in each stage.
        feeds: by route and mode, what a unit of inflow adds.
    """

    decay: tuple[Tensor, ...]
    stays: tuple[tuple[Tensor, ...], ...]
    arrives: tuple[tuple[tuple[Tensor, ...], ...], ...]
    fills: tuple[tuple[Tensor, ...], ...]
    feeds: tuple[tuple[Tensor, ...], ...]

    def split(self) -> list["Passage"]:
        """One for each place of the first dimension."""
        parts = self.decay[0].shape[0]
        whole = (self.decay, self.stays, self.arrives, self.fills, self.feeds)
        return [Passage(*part) for part in _unbound(whole, parts)]


def _unbound(given: Any, parts: int) -> Sequence[Any]:
    """Nested tuples of tensors as a sequence of nested tuples, one for each place."""
    if isinstance(given, Tensor):
        return given.unbind(0)
    inner = [_unbound(one, parts) for one in given]
    return list(zip(*inner, strict=True)) if inner else [()] * parts


def passage(
    rates: Sequence[Tensor],
    entry: Sequence[Tensor],
    chains: Sequence[Chain],
    elapsed: Tensor,
    *,
    inflow: bool,
) -> Passage:
    """The factors of a stretch.

    Args:
        rates: of the modes, 1/h.
        entry: what a unit in the central compartment adds to each mode.
        chains: by route.
        elapsed: h, 0 or more; all tensors broadcast to its shape.
        inflow: whether anything can be running in.
    """
    decay = tuple((-rate * elapsed).exp() for rate in rates)
    each = [_of_route(rates, entry, decay, chain, elapsed, inflow) for chain in chains]
    stays, arrives, fills, feeds = zip(*each, strict=True)
    return Passage(decay, stays, arrives, fills, feeds)


def _of_route(
    rates: Sequence[Tensor],
    entry: Sequence[Tensor],
    decay: Sequence[Tensor],
    chain: Chain,
    elapsed: Tensor,
    inflow: bool,
) -> tuple[Any, Any, Any, Any]:
    """The factors of one route: stays, arrives, fills, feeds."""
    modes = list(zip(rates, entry, strict=True))
    if chain.rate is None:
        straight = [part * -(-rate * elapsed).expm1() / rate for rate, part in modes if inflow]
        return (), tuple(() for _ in modes), (), tuple(straight)
    left = _left(chain.stages, chain.rate, elapsed)
    arrives = tuple(
        _convolved(chain, rate, part, elapsed, fading, left)
        for (rate, part), fading in zip(modes, decay, strict=True)
    )
    if not inflow:
        return left, arrives, (), ()
    through = _through(chain.stages, chain.rate, elapsed, left)
    fills = tuple(share / chain.rate for share in through)
    feeds = tuple(
        (part * through[-1] - parts[-1]) / rate
        for (rate, part), parts in zip(modes, arrives, strict=True)
    )
    return left, arrives, fills, feeds


def _left(stages: int, rate: Tensor, elapsed: Tensor) -> tuple[Tensor, ...]:
    """What a unit leaves i stages on: e^(-k t) (k t)^i / i!, for i from 0."""
    span = rate * elapsed
    parts = [(-span).exp()]
    for place in range(1, stages):
        parts.append(parts[-1] * span / place)
    return tuple(parts)


def _through(
    stages: int, rate: Tensor, elapsed: Tensor, left: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Share of a unit that has passed i stages, i from 1: the Erlang distribution."""
    parts = [-(-rate * elapsed).expm1()]
    for place in range(1, stages):
        parts.append((parts[-1] - left[place]).clamp(min=0.0))
    return tuple(parts)


def _convolved(
    chain: Chain,
    rate: Tensor,
    part: Tensor,
    elapsed: Tensor,
    fading: Tensor,
    left: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """A mode's part times k^i W_i(t), for i = 1 .. stages."""
    absorption = chain.rate
    assert absorption is not None
    if chain.stages == 1:
        return (_one_stage(absorption, rate, part, elapsed, fading, left[0]),)
    gap = absorption - rate
    delay = gap * elapsed
    near = delay.abs() < max(1.0, chain.stages / 2)
    ratio = absorption / torch.where(near, 1.0, gap)
    stepped = [(fading - left[0]) * ratio]
    for one in left[1:]:
        stepped.append((stepped[-1] - one) * ratio)
    summed = _phi(chain.stages, torch.where(near, delay, 0.0))
    factor = left[0] * part
    span = absorption * elapsed
    both = []
    for step, phi in zip(stepped, summed, strict=True):
        factor = factor * span
        both.append(torch.where(near, factor * phi, step * part))
    return tuple(both)


def _one_stage(
    absorption: Tensor,
    rate: Tensor,
    part: Tensor,
    elapsed: Tensor,
    fading: Tensor,
    left: Tensor,
) -> Tensor:
    """A mode's part times k W_1(t): by difference, or as a series if the rates all but coincide."""
    gap = absorption - rate
    near = gap.abs() < NEAR * (absorption + rate)
    stepped = (fading - left) * (part * absorption / torch.where(near, 1.0, gap))
    if not bool(near.any()):
        return stepped
    delay = gap * elapsed
    series = 1 + delay / 2 * (1 + delay / 3 * (1 + delay / 4 * (1 + delay / 5)))
    return torch.where(near, part * absorption * elapsed * left * series, stepped)


def _phi(most: int, delay: Tensor) -> tuple[Tensor, ...]:
    """phi_1 .. phi_most, for |delay| up to max(1, most/2)."""
    terms = 16 + 2 * most
    value = torch.full_like(delay, 1.0 / factorial(most + terms))
    for place in range(most + terms - 1, most - 1, -1):
        value = value * delay + 1.0 / factorial(place)
    parts = [value]
    for place in range(most - 1, 0, -1):
        parts.append(parts[-1] * delay + 1.0 / factorial(place))
    return tuple(reversed(parts))


def moved(state: State, factors: Passage) -> State:
    """The state after the stretch."""
    chains = []
    for route, stages in enumerate(state.chains):
        after = []
        for place in range(len(stages)):
            value = stages[place] * factors.stays[route][0]
            for before in range(place):
                value = value + stages[before] * factors.stays[route][place - before]
            if state.inflow is not None:
                value = value + state.inflow[route] * factors.fills[route][place]
            after.append(value)
        chains.append(tuple(after))
    return State(moved_modes(state, factors), tuple(chains), state.inflow)


def moved_modes(state: State, factors: Passage) -> tuple[Tensor, ...]:
    """The modes alone after the stretch."""
    after = []
    for mode, amplitude in enumerate(state.modes):
        value = amplitude * factors.decay[mode]
        for route, stages in enumerate(state.chains):
            steps = factors.arrives[route][mode]
            for stage, step in zip(stages, reversed(steps), strict=True):
                value = torch.addcmul(value, stage, step)
            if state.inflow is not None:
                value = value + state.inflow[route] * factors.feeds[route][mode]
        after.append(value)
    return tuple(after)


def delivered(before: State, after: State, elapsed: Tensor) -> Tensor:
    """What reached the central compartment during the stretch: what came in and stays nowhere."""
    total = torch.zeros_like(after.modes[0])
    for route, (had, has) in enumerate(zip(before.chains, after.chains, strict=True)):
        for one, other in zip(had, has, strict=True):
            total = total + (one - other)
        if before.inflow is not None:
            total = total + before.inflow[route] * elapsed
    return total


def steady(state: State, factors: Passage) -> State:
    """The state that a repeated input keeps before each repetition.

    Args:
        state: what one input alone leaves an interval later.
        factors: of an interval without input.

    Returns:
        x = state + x moved by an interval; without inflow.
    """
    chains = []
    for route, stages in enumerate(state.chains):
        found: list[Tensor] = []
        for place in range(len(stages)):
            value = stages[place]
            for before in range(place):
                value = value + found[before] * factors.stays[route][place - before]
            found.append(value / (1 - factors.stays[route][0]))
        chains.append(tuple(found))
    resting = State(tuple(torch.zeros_like(one) for one in state.modes), tuple(chains), None)
    gained = moved_modes(resting, factors)
    modes = tuple(
        (one + more) / (1 - decay)
        for one, more, decay in zip(state.modes, gained, factors.decay, strict=True)
    )
    return State(modes, tuple(chains), None)
