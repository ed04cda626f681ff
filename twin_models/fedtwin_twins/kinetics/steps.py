"""Each patient's time, cut into equal steps between the moments that matter to them.

Moments are the beginning, doses, ends of infusions, changes of parameters and asked times. Patients
with the same schedule step together; others reach their moments at steps of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Entered, alike
from fedtwin_twins.kinetics.systems import System
from fedtwin_twins.twin.batch import Doses


@dataclass(frozen=True, slots=True)
class Steps:
    """The way to the last asked time.

    Attributes:
        begin: h, (steps, patients), when each step begins; (steps, 1) if for all together.
        size: h, likewise; 0 for who has arrived.
        patients: how many.
        asked: steps before each asked time, (patients, times), or (1, times) for all together.
        arrivals: steps before which something comes in or changes its rate, ascending.
        amounts: by route, what comes in at once there, (arrivals, patients), or (arrivals, 1).
        inflow: by route, by how much what runs in changes there, amount/h; none: never.
        changes: steps before which parameters change for somebody.
    """

    patients: int
    begin: Tensor
    size: Tensor
    asked: Tensor
    arrivals: tuple[int, ...]
    amounts: tuple[Tensor, ...]
    inflow: tuple[Tensor, ...] | None
    changes: frozenset[int]


def steps(system: System, doses: Doses, times: Tensor, longest: float) -> Steps:
    """Steps of at most `longest` hours.

    Raises:
        Refusal: as `System.events`.
    """
    events = system.events(doses)
    patients = times.shape[0]
    changes = alike(system.span_starts()[:, 1:])
    clocks = [alike(one.time) for one in events]
    times = alike(times)
    lines = max(one.shape[0] for one in (changes, *clocks, times))
    changes, times = changes.expand(lines, -1), times.expand(lines, -1)
    clocks = [one.expand(lines, -1) for one in clocks]
    moments = torch.cat([changes, *clocks, times], 1)
    horizon = times.amax(1, keepdim=True)
    begin = torch.cat([torch.full_like(horizon, system.since), *clocks], 1).amin(1, keepdim=True)
    late = moments > horizon
    moments = torch.where(late, horizon, moments).maximum(begin)
    at, first, size = cut(torch.cat([begin, moments], 1), longest)
    width = changes.shape[1]
    moved = at[:, :width][~late[:, :width]].tolist()
    arrivals, amounts, inflow = _arrivals(events, at[:, width:], late[:, width:], len(system.into))
    return Steps(
        patients=patients,
        begin=first.t().contiguous(),
        size=size.t().contiguous(),
        asked=at[:, at.shape[1] - times.shape[1] :],
        arrivals=arrivals,
        amounts=amounts,
        inflow=inflow,
        changes=frozenset(moved),
    )


def cut(moments: Tensor, longest: float) -> tuple[Tensor, Tensor, Tensor]:
    """From the beginning and the moments, (patients, 1 + moments), in any order.

    Returns:
        steps before each moment, (patients, moments), and when steps begin and their sizes,
        (patients, steps).
    """
    time, order = moments.sort(dim=1, stable=True)
    gap = time.diff(dim=1)
    count = (gap.detach() / longest - 1e-9).ceil().clamp(min=1.0).long() * (gap > 0)
    before = torch.nn.functional.pad(count.cumsum(1), (1, 0))
    at = before.gather(1, order.argsort(dim=1))[:, 1:]
    most = int(before[:, -1].max())
    marks = torch.zeros(moments.shape[0], most + 1, dtype=torch.int64, device=moments.device)
    where = marks.scatter_add_(1, before[:, 1:], torch.ones_like(count)).cumsum(1)[:, :most]
    where = where.clamp(max=gap.shape[1] - 1)
    slots = torch.arange(most, device=moments.device)
    size = (gap / count.clamp(min=1)).gather(1, where)
    size = torch.where(slots < before[:, -1:], size, 0.0)
    first = time.gather(1, where) + (slots - before.gather(1, where)) * size
    return at, first, size


def _arrivals(
    events: Sequence[Entered], at: Tensor, late: Tensor, routes: int
) -> tuple[tuple[int, ...], tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """What comes in before which step: at once, and as changes of what runs in."""
    columns = sum(one.time.shape[1] for one in events)
    brought = [
        [None if one is None else alike(one) for one in (event.amount, event.inflow)]
        for event in events
    ]
    given = [one for pair in brought for one in pair if one is not None]
    lines = max((one.shape[0] for one in (late, *given)), default=1)
    known = torch.unique(at[:, :columns])
    places = torch.bucketize(at[:, :columns].t().contiguous(), known).expand(-1, lines)
    first = events[0].time if events else at.double()
    nothing = torch.zeros(known.shape[0], lines, dtype=first.dtype, device=first.device)
    amounts, inflow = [nothing] * routes, [nothing] * routes
    runs, begin = False, 0
    for event, pair in zip(events, brought, strict=True):
        span = slice(begin, begin + event.time.shape[1])
        begin = span.stop
        for one, kept in zip(pair, (amounts, inflow), strict=True):
            if one is not None:
                here = torch.where(late[:, span], 0.0, one).t().expand(-1, lines)
                kept[event.route] = kept[event.route].scatter_add(0, places[span], here)
                runs = runs or kept is inflow
    return tuple(known.tolist()), tuple(amounts), tuple(inflow) if runs else None
