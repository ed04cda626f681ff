"""The classical Runge-Kutta method of order 4 for any right-hand side, many patients at once.

Steps follow from a bound of the rates, because the method is right only where a step is short
beside the fastest change.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fedtwin_twins.kinetics.advancing import CHAIN, Advancing, advancing, plus
from fedtwin_twins.kinetics.events import at_spans, doses_of_rows, span_places
from fedtwin_twins.kinetics.steps import Steps, steps
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal

FINE = 0.5
"""Step x fastest rate where the step is chosen here: errors of a few in 10,000."""
COARSE = 1.0
"""Step x fastest rate above which nothing is computed."""
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
        step_h: the longest step; none: `FINE` over the fastest rate.
        by: the step, if it is to be compiled, or used again.
        answers: places of the states that are answered; none: all.

    Returns:
        each of these states, (patients, times).

    Raises:
        Refusal: a step that is too coarse, or too many of them; and as `System.events`.
    """
    bound = float(torch.as_tensor(fastest).detach().max())
    longest = FINE / bound if step_h is None else step_h
    _check(longest, bound, times, system.since)
    by = by or advancing(system)
    wanted = range(len(system.start)) if answers is None else answers
    patients = times.shape[0]
    size = patients
    if times.device.type == "cpu" and patients > by.patients:
        size = -(-patients // -(-patients // by.patients))
    found = []
    for first in range(0, patients, size):
        rows = slice(first, first + size)
        some, asked = system.some(rows), times[rows]
        walk = steps(some, doses_of_rows(doses, rows), asked, longest)
        found.append(_walked(some, walk, by, wanted))
    if len(found) == 1:
        return found[0]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


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
    count = (float(times.max()) - since) / longest
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


def _walked(system: System, walk: Steps, by: Advancing, answers: Sequence[int]) -> States:
    kind = system.start[0].dtype
    patients = walk.patients
    begin, size = walk.begin.to(kind), walk.size.to(kind)
    widths: Sequence[Tensor | float] = size.unbind(0)
    if by.numbers and size.shape[1] == 1 and not size.requires_grad:
        widths = size[:, 0].tolist()
    amounts = [one.to(kind) for one in walk.amounts]
    changed = None if walk.inflow is None else [one.to(kind) for one in walk.inflow]
    arrivals = {place: number for number, place in enumerate(walk.arrivals)}
    wanted = torch.unique(walk.asked)
    asked = set(wanted.tolist())
    starts = system.span_starts().expand(patients, -1)
    states = tuple(one.expand(patients) for one in system.start)
    running = None if changed is None else tuple(torch.zeros_like(states[0]) for _ in changed)
    values = _values(system, None)
    kept: list[States] = []
    last = size.shape[0]
    stops = sorted({0, last, *arrivals, *asked, *walk.changes})
    for place, stop in zip(stops, [*stops[1:], last], strict=True):
        before = states
        if place in arrivals:
            number = arrivals[place]
            states = plus(states, system.into, [one[number] for one in amounts])
            if changed is not None and running is not None:
                running = tuple(
                    one + more[number] for one, more in zip(running, changed, strict=True)
                )
        if place in asked:
            now = states if system.order.dose_first else before
            kept.append(tuple(now[number] for number in answers))
        if starts.shape[1] > 1 and place < last and (place == 0 or place in walk.changes):
            hours = walk.begin[place].expand(patients)[:, None]
            values = _values(system, span_places(starts, hours))
        here = place
        if by.chain is not None and size.shape[1] == 1:
            # Between two moments all steps of a schedule that everybody has are equal.
            while here + CHAIN <= stop:
                states = by.chain(begin[here], widths[here], states, values, running)
                here += CHAIN
        for step in range(here, stop):
            states = by.step(begin[step], widths[step], states, values, running)
    position = torch.bucketize(walk.asked.contiguous(), wanted)
    return tuple(_picked(one, position) for one in zip(*kept, strict=True))


def _picked(kept: Sequence[Tensor], position: Tensor) -> Tensor:
    """(patients, times) of what was kept, each (patients,), by place, (patients or 1, times)."""
    if position.shape[0] == 1:
        return torch.stack([kept[place] for place in position[0].tolist()]).t()
    return torch.stack(list(kept), dim=1).gather(1, position)


def _values(system: System, spans: Tensor | None) -> Mapping[str, Tensor]:
    """In force, each (patients,)."""
    if spans is None:
        return {name: one[:, 0].contiguous() for name, one in system.values.items()}
    return {name: at_spans(one, spans)[:, 0].contiguous() for name, one in system.values.items()}
