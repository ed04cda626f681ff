"""A step of the classical Runge-Kutta method of order 4, by operations or as machine code.

With k1 = f(t, y), k2 = f(t + h/2, y + h/2 k1), k3 = f(t + h/2, y + h/2 k2) and
k4 = f(t + h, y + h k3), y(t + h) = y + h/6 (k1 + 2 k2 + 2 k3 + k4) (Hairer, Norsett and Wanner,
Solving Ordinary Differential Equations I, 1993, table II.1.2). Runge's method of order 2 would say
y + h k2 with the same rates, so a step knows for nothing how far the two are apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedtwin_twins.kinetics.machine_code import MachineCode
from fedtwin_twins.kinetics.systems import Advance, RightSide, States, System
from fedtwin_twins.twin.refusals import Problem

CHAINS = (5, 2)
"""Steps in one piece of machine code: what a call costs is shared, and states stay in registers."""
CACHED, CALLED = 5_120, 16_384
"""Patients that are stepped together on a CPU: by operations, which leave every intermediate
result in memory, and by machine code, which leaves none there."""


@dataclass(frozen=True, slots=True)
class Advancing:
    """One step of a right-hand side, and what must be known of it.

    Attributes:
        step: one step.
        watched: the same for states followed by as many sums, to which it adds the square of how
            far the methods of order 4 and 2 are apart; none: nobody can watch.
        chains: so many steps at once, hours and sizes (steps, 1); the longest first.
        watched_chains: the same, every second step of them watched.
        patients: how many are best stepped together on a CPU.
        caution: what a caller should hear.
        numbers: whether a size may be a number, which is quicker than a tensor of one.
    """

    step: Advance
    watched: Advance | None = None
    chains: Mapping[int, Advance] = field(default_factory=dict)
    watched_chains: Mapping[int, Advance] = field(default_factory=dict)
    patients: int = CACHED
    caution: Problem | None = None
    numbers: bool = False


def advancing(system: System) -> Advancing:
    """One step, operation by operation."""
    plain, watched = _steps(system.right_side, system.into)
    return Advancing(plain, watched, numbers=True)


def compiled(system: System) -> Advancing:
    """Steps as machine code, which takes up to a minute to make and a C++ compiler.

    Returns:
        it; or, with a caution, the step that needs none, where there is no compiler.
    """
    plain, watched = _steps(system.right_side, system.into)
    probe: Callable[[Tensor], Tensor] = torch.compile(torch.neg)
    try:
        probe(torch.ones(2))
    except RuntimeError as failure:
        reason = str(failure).strip().splitlines() or ["no reason given"]
        caution = Problem(
            field="engine",
            value=f"not compiled ({reason[0][:120]})",
            allowed="a C++ compiler such as g++",
            remedy="the numbers stand, they only take longer",
        )
        return Advancing(plain, watched, caution=caution, numbers=True)
    return Advancing(
        MachineCode(plain),
        MachineCode(watched),
        chains={count: MachineCode(_repeated(plain, count)) for count in CHAINS},
        watched_chains={count: MachineCode(_chained(plain, watched, count)) for count in CHAINS},
        patients=CALLED,
    )


def plus(states: States, into: Sequence[int], amounts: Sequence[Tensor]) -> States:
    """States after amounts have entered some of them."""
    found = list(states)
    for place, amount in zip(into, amounts, strict=True):
        found[place] = found[place] + amount
    return tuple(found)


def _repeated(step: Advance, count: int) -> Advance:
    def steps(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        widths = torch.as_tensor(width)
        for number in range(count):
            states = step(hours[number], widths[number], states, values, inflow)
        return states

    return steps


def _chained(plain: Advance, watched: Advance, count: int) -> Advance:
    """So many steps, every second of them watched, the last one among them."""

    def steps(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        widths, sums = torch.as_tensor(width), states[len(states) // 2 :]
        states = states[: len(states) // 2]
        for number in range(count):
            now, size = hours[number], widths[number]
            if (count - number) % 2:
                both = watched(now, size, (*states, *sums), values, inflow)
                states, sums = both[: len(states)], both[len(states) :]
            else:
                states = plain(now, size, states, values, inflow)
        return (*states, *sums)

    return steps


def _steps(right_side: RightSide, into: tuple[int, ...]) -> tuple[Advance, Advance]:
    """A step, and one that is watched."""

    def change(
        hours: Tensor,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        rates = right_side(hours, states, values)
        return rates if inflow is None else plus(rates, into, inflow)

    def both(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> tuple[States, States]:
        """Six times the mean rate of change, and k2."""
        half = width / 2
        middle = hours + half
        rates = change(hours, states, values, inflow)
        total = rates
        second = rates = change(middle, _onwards(states, half, rates), values, inflow)
        total = _onwards(total, 2.0, rates)
        rates = change(middle, _onwards(states, half, rates), values, inflow)
        _add(total, 2.0, rates)
        rates = change(hours + width, _onwards(states, width, rates), values, inflow)
        _add(total, 1.0, rates)
        return total, second

    def plain(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        return _onwards(states, width / 6, both(hours, width, states, values, inflow)[0])

    def watched(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        states, sums = states[: len(states) // 2], states[len(states) // 2 :]
        total, second = both(hours, width, states, values, inflow)
        found = _onwards(states, width / 6, total)
        derived = torch.is_grad_enabled()
        with torch.no_grad():
            if derived:  # whoever derives needs the mean rate itself
                total = _onwards(total, -6.0, second)
            else:
                _add(total, -6.0, second)
            return (*found, *_with_squares(sums, width / 6, total))

    return plain, watched


def _with_squares(sums: States, width: Tensor | float, rates: States) -> States:
    square = width * width
    if isinstance(square, float):
        return tuple(torch._foreach_addcmul(sums, rates, rates, square))
    return tuple(one + square * rate * rate for one, rate in zip(sums, rates, strict=True))


def _onwards(states: States, width: Tensor | float, rates: States) -> States:
    if isinstance(width, float):
        return tuple(torch._foreach_add(states, rates, alpha=width))
    if torch.compiler.is_compiling():  # addcmul would multiply once more
        return tuple(one + width * rate for one, rate in zip(states, rates, strict=True))
    return tuple(torch.addcmul(one, width, rate) for one, rate in zip(states, rates, strict=True))


def _add(sums: States, times: float, rates: States) -> None:
    """In place: to what nobody else holds."""
    torch._foreach_add_(sums, rates, alpha=times)
