"""A step of the classical Runge-Kutta method of order 4, by operations or as machine code.

With k1 = f(t, y), k2 = f(t + h/2, y + h/2 k1), k3 = f(t + h/2, y + h/2 k2) and
k4 = f(t + h, y + h k3), y(t + h) = y + h/6 (k1 + 2 k2 + 2 k3 + k4) (Hairer, Norsett and Wanner,
Solving Ordinary Differential Equations I, 1993, table II.1.2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.kinetics.machine_code import MachineCode
from fedtwin_twins.kinetics.systems import Advance, RightSide, States, System
from fedtwin_twins.twin.refusals import Problem

CHAIN = 4
"""Steps in one piece of machine code: what a call costs is shared, and states stay in registers."""
CACHED, CALLED = 5_120, 16_384
"""Patients that are stepped together on a CPU: by operations, which leave every intermediate
result in memory, and by machine code, which leaves none there."""


@dataclass(frozen=True, slots=True)
class Advancing:
    """One step of a right-hand side, and what must be known of it.

    Attributes:
        step: one step.
        chain: `CHAIN` steps of one size; none: they are taken one by one.
        patients: how many are best stepped together on a CPU.
        caution: what a caller should hear.
        numbers: whether a size may be a number, which is quicker than a tensor of one.
    """

    step: Advance
    chain: Advance | None = None
    patients: int = CACHED
    caution: Problem | None = None
    numbers: bool = False


def advancing(system: System) -> Advancing:
    """One step, operation by operation."""
    return Advancing(_step(system.right_side, system.into), numbers=True)


def compiled(system: System) -> Advancing:
    """Steps as machine code, which takes up to a minute to make and a C++ compiler.

    Returns:
        it; or, with a caution, the step that needs none, where there is no compiler.
    """
    plain = _step(system.right_side, system.into)
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
        return Advancing(plain, caution=caution, numbers=True)
    return Advancing(MachineCode(plain), chain=MachineCode(_chained(plain, CHAIN)), patients=CALLED)


def plus(states: States, into: Sequence[int], amounts: Sequence[Tensor]) -> States:
    """States after amounts have entered some of them."""
    found = list(states)
    for place, amount in zip(into, amounts, strict=True):
        found[place] = found[place] + amount
    return tuple(found)


def _chained(step: Advance, count: int) -> Advance:
    def steps(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        for number in range(count):
            states = step(hours + number * width, width, states, values, inflow)
        return states

    return steps


def _step(right_side: RightSide, into: tuple[int, ...]) -> Advance:
    def change(
        hours: Tensor,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        rates = right_side(hours, states, values)
        return rates if inflow is None else plus(rates, into, inflow)

    def step(
        hours: Tensor,
        width: Tensor | float,
        states: States,
        values: Mapping[str, Tensor],
        inflow: tuple[Tensor, ...] | None,
    ) -> States:
        half = width / 2
        middle = hours + half
        rates = change(hours, states, values, inflow)
        total = rates
        rates = change(middle, _onwards(states, half, rates), values, inflow)
        total = _onwards(total, 2.0, rates)
        rates = change(middle, _onwards(states, half, rates), values, inflow)
        total = _onwards(total, 2.0, rates)
        rates = change(hours + width, _onwards(states, width, rates), values, inflow)
        return _onwards(states, width / 6, _onwards(total, 1.0, rates))

    return step


def _onwards(states: States, width: Tensor | float, rates: States) -> States:
    if isinstance(width, float):
        return tuple(one.add(rate, alpha=width) for one, rate in zip(states, rates, strict=True))
    if torch.compiler.is_compiling():  # addcmul would multiply once more
        return tuple(one + width * rate for one, rate in zip(states, rates, strict=True))
    return tuple(torch.addcmul(one, width, rate) for one, rate in zip(states, rates, strict=True))
