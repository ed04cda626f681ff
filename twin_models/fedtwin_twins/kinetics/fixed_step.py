"""The classical Runge-Kutta method of order 4 for any right-hand side, many patients at once.

Steps follow from a bound of the rates, because the method is right only where a step is short
beside the fastest change. Where nobody names their length they grow as what came in fades
(`lengths`), and are watched; if they turn out too long, all are taken anew as short as the first.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fedtwin_twins.kinetics.advancing import Advancing, advancing
from fedtwin_twins.kinetics.events import alike, doses_of_rows
from fedtwin_twins.kinetics.lengths import Lengths, all_alike
from fedtwin_twins.kinetics.steps import steps
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.kinetics.walking import walked
from fedtwin_twins.kinetics.watching import COARSE
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal

FINE = 0.5
"""Step x fastest rate where the step is chosen here: errors of a few in 10,000."""
LONGEST = 2.3
"""The same of a step at last; above 2.785 the method is not stable (Hairer and Wanner, Solving
Ordinary Differential Equations II, 1996, section IV.2)."""
MOST = 200_000
"""Steps above which a system is one for an implicit solver."""


def solve(
    system: System,
    doses: Doses,
    times: Tensor,
    fastest: float | Tensor,
    *,
    step_h: float | None = None,
    by: Advancing | None = None,
    answers: Sequence[int] | None = None,
) -> States:
    """States at every asked time.

    Args:
        system: equations and start. Its dtype is that of the answer: float32 serves display.
        doses: (patients, doses).
        times: h, (patients, times), in any order, none before the start.
        fastest: 1/h, a bound of every rate in the equations; the largest of a tensor counts.
        step_h: the longest step, all alike; none: `FINE` over the fastest rate after whatever
            happens, later up to `LONGEST` over it.
        by: the step, if it is to be compiled, or used again.
        answers: places of the states that are answered; none: all.

    Returns:
        each of these states, (patients, times).

    Raises:
        Refusal: a step that is too coarse, or too many of them; and as `System.events`.
    """
    bound = float(torch.as_tensor(fastest).detach().max())
    first = FINE / bound if step_h is None else step_h
    _check(first, bound, times, system.since)
    by = by or advancing(system)
    lengths = all_alike(first)
    if step_h is None and by.watched is not None:
        lengths = Lengths(first, LONGEST / bound, growth=math.e * FINE / 5)
    wanted = range(len(system.start)) if answers is None else answers
    patients = times.shape[0]
    size = patients
    if times.device.type == "cpu" and patients > by.patients:
        size = -(-patients // -(-patients // by.patients))
    found = []
    for begin in range(0, patients, size):
        rows = slice(begin, begin + size)
        some = system.some(rows)
        found.append(_solved(some, doses_of_rows(doses, rows), times[rows], lengths, by, wanted))
    if len(found) == 1:
        return found[0]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _solved(
    system: System,
    doses: Doses,
    times: Tensor,
    lengths: Lengths,
    by: Advancing,
    answers: Sequence[int],
) -> States:
    if not lengths.even:
        fine = lengths.first * COARSE / FINE
        found = walked(system, steps(system, doses, times, lengths), by, answers, fine)
        if found is not None:
            return found
    walk = steps(system, doses, times, all_alike(lengths.first))
    found = walked(system, walk, by, answers, None)
    assert found is not None
    return found


def _check(longest: float, bound: float, times: Tensor, since: float) -> None:
    if not longest * bound <= COARSE:
        raise Refusal(
            Problem(
                field="step_h",
                value=f"{longest:g}",
                unit="h",
                allowed=f"at most {COARSE / bound:g}, 1 over the fastest rate",
                remedy="leave the step out, or use the solver for stiff systems",
            )
        )
    count = (float(alike(times).max()) - since) / longest
    if count > MOST:
        raise Refusal(
            Problem(
                field="fastest",
                value=f"{bound:g}",
                unit="/h",
                allowed=f"a rate that needs at most {MOST} steps, not {count:.0f}",
                remedy="use the solver for stiff systems",
            )
        )
