"""Each patient's time, cut into steps between the moments that matter to them.

Moments are the beginning, doses, ends of infusions, changes of parameters and asked times. Patients
with the same schedule step together; others reach their moments at steps of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Entered, alike
from fedtwin_twins.kinetics.lengths import Lengths
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


def steps(system: System, doses: Doses, times: Tensor, lengths: Lengths) -> Steps:
    """Steps of at most these lengths.

    Raises:
        Refusal: as `System.events`.
    """
    patients = times.shape[0]
    starts = system.span_starts()
    events = system.events(_once(doses) if starts.shape[1] == 1 else doses)
    changes = alike(starts[:, 1:])
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
    at, first, size = cut(torch.cat([begin, moments], 1), lengths, times.shape[1])
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


def cut(moments: Tensor, lengths: Lengths, looks: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """From the beginning and the moments, (patients, 1 + moments), in any order.

    Args:
        moments: h.
        lengths: of steps.
        looks: how many of the moments, the last ones, are those at which nothing happens.

    Returns:
        steps before each moment, (patients, moments), and when steps begin and their sizes,
        (patients, steps).
    """
    time, order = moments.sort(dim=1, stable=True)
    gap = time.diff(dim=1)
    known = time.detach()
    happens = order < moments.shape[1] - looks
    since = torch.where(happens, known, -torch.inf).cummax(dim=1).values[:, :-1]
    low, high = lengths.taken(known[:, :-1] - since), lengths.taken(known[:, 1:] - since)
    count = (high - low - 1e-9).ceil().clamp(min=1.0).long() * (gap > 0)
    before = torch.nn.functional.pad(count.cumsum(1), (1, 0))
    at = before.gather(1, order.argsort(dim=1))[:, 1:]
    most = int(before[:, -1].max())
    marks = torch.zeros(moments.shape[0], most + 1, dtype=torch.int64, device=moments.device)
    where = marks.scatter_add_(1, before[:, 1:], torch.ones_like(count)).cumsum(1)[:, :most]
    where = where.clamp(max=gap.shape[1] - 1)
    slots = torch.arange(most, device=moments.device)
    lasting = gap.gather(1, where)
    whole = count.clamp(min=1).gather(1, where).to(time.dtype)
    done = (slots - before.gather(1, where)) / whole
    after = done + 1 / whole
    if not lengths.even:
        begun = (known[:, :-1] - since).gather(1, where)
        low, high = low.gather(1, where), high.gather(1, where)
        done, after = (
            ((lengths.since(low + (high - low) * one) - begun) / lasting.detach()).nan_to_num()
            for one in (done, after)
        )
    size = torch.where(slots < before[:, -1:], (after - done) * lasting, 0.0)
    first = time.gather(1, where) + done * lasting
    return at, first, size


def _once(doses: Doses) -> Doses:
    """As one row, (1, doses), if everybody has the same and no steady state."""
    rows = {one.name: alike(getattr(doses, one.name)) for one in fields(Doses)}
    same = all(one.shape[0] == 1 for one in rows.values())
    return Doses(**rows) if same and not bool((rows["interval"] > 0).any()) else doses


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
