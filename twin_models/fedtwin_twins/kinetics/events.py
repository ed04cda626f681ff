"""Doses and changes of parameters in order of time: what enters, where, and when.

A dose at an asked time counts after it, and so does a change of parameters, unless an `Order` says
otherwise. A dose of a steady state enters as three things: one interval earlier, what all doses
before that one have left, and that dose; at its own time the dose itself. So whoever asks just
before it, or up to an interval earlier, sees the steady state; earlier than that, nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.refusals import Problem, Refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What counts at an asked time that is also the time of an event.

    Attributes:
        dose_first: a dose at that time is already in the answer.
        change_first: parameters that change then have changed already (a covariate that is
            carried forward from that very record); an answer that has the dose has the change.
    """

    dose_first: bool = False
    change_first: bool = False


OBSERVATION_FIRST = Order()


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A way in; every tensor is (patients, spans) or (patients, 1), as in force at the dose.

    Attributes:
        stages: 0: into the central compartment; 1: first-order absorption; n: serial transit
            through n compartments.
        rate: of every stage, 1/h, in force at each moment; none without stages.
        bioavailability: fraction that gets in; none: all.
        lag: h before anything happens; none: 0.
        duration: h over which a dose enters at constant rate (zero-order absorption, if stages
            is 0); none: the dose's own duration.
    """

    stages: int = 0
    rate: Tensor | None = None
    bioavailability: Tensor | None = None
    lag: Tensor | None = None
    duration: Tensor | None = None

    def __post_init__(self) -> None:
        if self.stages < 0 or (self.stages > 0) != (self.rate is not None):
            raise ValueError(f"expected a rate for each stage, got {self.stages} stages")

    def some(self, rows: slice) -> "Route":
        """Of some of the patients."""

        def cut(values: Tensor | None) -> Tensor | None:
            return None if values is None else of_rows(values, rows)

        return Route(
            stages=self.stages,
            rate=cut(self.rate),
            bioavailability=cut(self.bioavailability),
            lag=cut(self.lag),
            duration=cut(self.duration),
        )


@dataclass(frozen=True, slots=True)
class Entered:
    """One kind of event of one route, each tensor (patients, events); none where it cannot be.

    Attributes:
        time: h.
        route: place.
        amount: at once.
        inflow: change of what runs in, amount/h.
        train: what one dose of a steady state enters, and over what, with its interval: amount,
            duration h, interval h, 0 where there is none.
    """

    time: Tensor
    route: int
    amount: Tensor | None = None
    inflow: Tensor | None = None
    train: tuple[Tensor, Tensor, Tensor] | None = None


def of_rows(values: Tensor, rows: slice) -> Tensor:
    """Of some of the patients; what is the same for all, (1, ...), stays so."""
    return values if values.shape[0] == 1 else values[rows]


def doses_of_rows(doses: Doses, rows: slice) -> Doses:
    """Of some of the patients."""
    return Doses(**{one.name: getattr(doses, one.name)[rows] for one in fields(Doses)})


def alike(values: Tensor) -> Tensor:
    """One row, (1, ...), if the rows of all patients are equal and nobody derives by them."""
    if values.shape[0] == 1 or values.requires_grad:
        return values
    same = values.stride(0) == 0 or torch.equal(values[1:], values[:-1])
    return values[:1] if same else values


def at_spans(values: Tensor, places: Tensor) -> Tensor:
    """What is in force: (patients, spans) at places (patients or 1, events).

    Places that all share give an answer in which patients lie side by side in memory.
    """
    if values.shape[1] == 1:
        return values
    if places.shape[0] == 1 and values.shape[0] > 1:
        return values.t().index_select(0, places[0]).t()
    return values.expand(places.shape[0], -1).gather(1, places)


def span_places(starts: Tensor, times: Tensor) -> Tensor:
    """In which span each time lies, the start included, (patients, times)."""
    return torch.searchsorted(starts, times.detach().contiguous(), right=True).sub(1).clamp(min=0)


def entered(doses: Doses, routes: Sequence[Route], starts: Tensor) -> tuple[list[Entered], bool]:
    """Every dose as events of its route.

    Returns:
        the events, not in order, and whether anything runs in at a constant rate.

    Raises:
        Refusal: a dose by a route that is not there, or a steady state whose lag or infusion is
            longer than its interval.
    """
    check_routes(doses, len(routes))
    places = span_places(starts, doses.time) if starts.shape[1] > 1 else doses.route
    timed = any(route.duration is not None for route in routes)
    runs = timed or bool((doses.duration > 0).any())
    repeats = bool((doses.interval > 0).any())
    events: list[Entered] = []
    for number, route in enumerate(routes):
        chosen = (doses.route == number).to(doses.amount.dtype)
        amount = doses.amount * chosen if len(routes) > 1 else doses.amount
        if route.bioavailability is not None:
            amount = amount * at_spans(route.bioavailability, places)
        time = doses.time
        if route.lag is not None:
            time = time + at_spans(route.lag, places)
        duration = doses.duration
        if route.duration is not None:
            duration = at_spans(route.duration, places)
            duration = duration.expand(max(len(duration), len(time)), time.shape[1])
        events += _events(number, time, amount, duration if runs else None)
        if repeats:
            _check_repeats(doses, route, places, duration, number)
            events += _train(doses, number, time, amount, duration if runs else None)
    return events, runs


def _events(route: int, time: Tensor, amount: Tensor, duration: Tensor | None) -> list[Entered]:
    """Of doses: at once or, where the duration is above 0, running in and ending."""
    if duration is None:
        return [Entered(time, route, amount=amount)]
    slow = duration > 0
    rate = torch.where(slow, amount, 0.0) / torch.where(slow, duration, 1.0)
    return [
        Entered(time, route, amount=torch.where(slow, 0.0, amount), inflow=rate),
        Entered(time + duration, route, inflow=-rate),
    ]


def _train(
    doses: Doses, route: int, time: Tensor, amount: Tensor, duration: Tensor | None
) -> list[Entered]:
    """Of the steady states among the doses: what came before, and the last dose but one."""
    repeated = doses.interval > 0
    amount = torch.where(repeated, amount, 0.0)
    time = time - doses.interval
    train = (amount, torch.zeros_like(amount) if duration is None else duration, doses.interval)
    return [Entered(time, route, train=train), *_events(route, time, amount, duration)]


def check_routes(doses: Doses, routes: int) -> None:
    """Refuse a dose by a route that is not there.

    Raises:
        Refusal: says whose and which.
    """
    wrong = (doses.amount != 0) & ((doses.route < 0) | (doses.route >= routes))
    if bool(wrong.any()):
        patient, dose = (int(place) for place in wrong.nonzero()[0])
        raise Refusal(
            Problem(
                field=f"patients[{patient}].doses[{dose}].route",
                value=str(int(doses.route[patient, dose])),
                allowed=f"a place among the {routes} routes of the model, from 0",
            )
        )


def _check_repeats(
    doses: Doses, route: Route, places: Tensor, duration: Tensor, number: int
) -> None:
    repeated = (doses.interval > 0) & (doses.route == number)
    lag = torch.zeros_like(doses.time)
    if route.lag is not None:
        lag = at_spans(route.lag, places).expand_as(doses.time)
    for name, value in (("lag", lag), ("duration", duration)):
        wrong = repeated & (value > doses.interval)
        if bool(wrong.any()):
            patient, dose = (int(place) for place in wrong.nonzero()[0])
            raise Refusal(
                Problem(
                    field=f"patients[{patient}].doses[{dose}].{name}",
                    value=f"{float(value[patient, dose].detach()):g}",
                    unit="h",
                    allowed=f"at most the interval of {float(doses.interval[patient, dose]):g}",
                    remedy="write the doses out one by one instead of asking for steady state",
                )
            )
