"""The concentration after each event, as a function of the hours since.

Without stages in a row and without inflow, and if no two rates all but coincide, that is a sum with
one exponential for each mode and each depot, which is what can be worked out quickest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from fedtwin_twins.kinetics.medium import Medium
from fedtwin_twins.kinetics.passages import NEAR, State, moved_modes, passage


@dataclass(frozen=True, slots=True)
class Exponentials:
    """sum of amplitude e^(-rate t), each tensor (patients, 1) or (patients, events)."""

    amplitudes: tuple[Tensor, ...]
    rates: tuple[Tensor, ...]

    def at(self, pick: Callable[[Tensor], Tensor]) -> "Exponentials":
        """Changed tensor by tensor."""
        return Exponentials(tuple(map(pick, self.amplitudes)), tuple(map(pick, self.rates)))

    def after(self, elapsed: Tensor) -> Tensor:
        """So many hours later."""
        if elapsed.shape[-2] == 1:
            elapsed = once(elapsed)
        found = self.amplitudes[0] * outer(elapsed, -self.rates[0]).exp_()
        for amplitude, rate in zip(self.amplitudes[1:], self.rates[1:], strict=True):
            found.addcmul_(amplitude, outer(elapsed, -rate).exp_())
        return found


def once(hours: Tensor) -> Tensor:
    """One column, (..., 1), if all columns of (..., times) are equal and nobody derives by them."""
    if hours.shape[-1] == 1 or hours.requires_grad:
        return hours
    return hours[..., :1] if bool((hours == hours[..., :1]).all()) else hours


def outer(hours: Tensor, rate: Tensor) -> Tensor:
    """Hours x rate; of hours that all patients share, patients lie side by side in memory."""
    if hours.shape[-2] == 1 and rate.shape[-2] > 1:
        return (hours.mT * rate.mT).mT
    return hours * rate


@dataclass(frozen=True, slots=True)
class Passing:
    """By the factors of a passage; each mode is its part of the concentration."""

    state: State
    medium: Medium

    def at(self, pick: Callable[[Tensor], Tensor]) -> "Passing":
        """Changed tensor by tensor."""
        return Passing(self.state.at(pick), self.medium.at(pick))

    def after(self, elapsed: Tensor) -> Tensor:
        """So many hours later."""
        modes = self.medium.modes
        squares = tuple(part * part for part in modes.entry)
        inflow = self.state.inflow is not None
        factors = passage(modes.rates, squares, self.medium.chains, elapsed, inflow=inflow)
        return total(moved_modes(self.state, factors))


Curve = Exponentials | Passing


def curve(state: State, medium: Medium) -> Curve:
    """Of the concentration, from the states after events."""
    parts = tuple(mode * part for mode, part in zip(state.modes, medium.modes.entry, strict=True))
    scaled = State(parts, state.chains, state.inflow)
    return _exponentials(scaled, medium) or Passing(scaled, medium)


def _exponentials(state: State, medium: Medium) -> Exponentials | None:
    if state.inflow is not None or any(chain.stages > 1 for chain in medium.chains):
        return None
    modes = medium.modes
    amplitudes, rates = list(state.modes), list(modes.rates)
    for stages, chain in zip(state.chains, medium.chains, strict=True):
        if chain.rate is None:
            continue
        shares = []
        for place, (rate, part) in enumerate(zip(modes.rates, modes.entry, strict=True)):
            gap = chain.rate - rate
            if bool((gap.abs() < NEAR * (chain.rate + rate)).any()):
                return None
            shares.append(stages[0] * (part * part * chain.rate / gap))
            amplitudes[place] = amplitudes[place] + shares[-1]
        amplitudes.append(-total(shares))
        rates.append(chain.rate)
    return Exponentials(tuple(amplitudes), tuple(rates))


def total(parts: Sequence[Tensor]) -> Tensor:
    """The sum of tensors."""
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return found
