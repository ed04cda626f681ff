"""Concentrations as a sum over doses, without a recursion: quickest where few numbers are asked.

Where no parameter changes and rates lie apart, one dose by one route leaves a few exponentials,
and doses add up. All doses, times and exponentials are then one tensor and one call each, where
the recursion takes some for every dose; that pays as long as a call costs more than its numbers.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.courses import CourseInput
from fedtwin_twins.kinetics.disposition import Disposition
from fedtwin_twins.kinetics.events import Order, Route, check_routes
from fedtwin_twins.kinetics.fading import FadingSums
from fedtwin_twins.kinetics.passages import NEAR
from fedtwin_twins.twin.batch import Doses

FEW: Final = 32_768
"""Patients times asked times times exponentials: up to so many, a sum is quicker."""
FEW_TIMES: Final = 6
"""Of each patient: up to so many, a sum is quicker for any number of patients."""
RUNNING: Final = 524_288
"""The former times doses, if their durations are parameters: every number is kept."""


@dataclass(frozen=True, slots=True)
class Response:
    """The concentration that a unit at once leaves: sum of amplitude e^(-rate t).

    Attributes:
        amplitudes: (exponentials, patients, 1), 1/volume.
        rates: of the same shape, 1/h.
    """

    amplitudes: Tensor
    rates: Tensor


def superposed(given: CourseInput, times: Tensor, order: Order) -> Tensor | None:
    """Concentrations as `LinearKinetics.concentrations`, where this is the quicker way to them.

    Args:
        given: disposition, routes and doses.
        times: h, (patients, times); (1, times) if it is the same for all.
        order: what counts at an asked time that is also the time of a dose.

    Returns:
        (patients, times), or none: parameters change, a chain has several stages or is run into,
        doses stand for a steady state, two rates all but coincide, or the numbers are many.

    Raises:
        Refusal: a dose by a route that is not there.
    """
    doses, routes = given.doses, given.routes
    if given.starts.shape[1] > 1 or not _few(given, times) or bool((doses.interval > 0).any()):
        return None
    check_routes(doses, len(routes))
    modes = _straight(given.disposition)
    found = None
    for number, route in enumerate(routes):
        mine = doses.route == number
        runs = route.duration is not None or bool(((doses.duration > 0) & mine).any())
        if route.stages + runs > 1 or (route.duration is not None and not _few_kept(given, times)):
            return None
        response = _of_route(route, modes)
        if response is None:
            return None
        amount = torch.where(mine, doses.amount, 0.0) if len(routes) > 1 else doses.amount
        part = _of_doses(route, response, doses, amount, times, order, runs=runs)
        found = part if found is None else found + part
    return found


def _numbers(given: CourseInput, times: Tensor) -> int:
    """How many exponentials there are of each dose."""
    return given.doses.time.shape[0] * times.shape[1] * (given.disposition.compartments + 1)


def _few(given: CourseInput, times: Tensor) -> bool:
    """Whether a sum takes less time than the recursion."""
    return _numbers(given, times) <= FEW or times.shape[1] <= FEW_TIMES


def _few_kept(given: CourseInput, times: Tensor) -> bool:
    """The same where everything is kept for derivatives."""
    numbers = _numbers(given, times)
    return numbers <= FEW and numbers * given.doses.time.shape[1] <= RUNNING


def _straight(disposition: Disposition) -> Response:
    """Of a unit in the central compartment."""
    rates, shares = disposition.exponentials()
    return Response(shares / disposition.volume, rates)


def _of_route(route: Route, modes: Response) -> Response | None:
    """Of a unit where a route begins; none if two rates all but coincide."""
    if route.rate is None:
        return modes
    gap = route.rate - modes.rates
    if bool((gap.detach().abs() < NEAR * (route.rate + modes.rates).detach()).any()):
        return None
    shares = modes.amplitudes * (route.rate / gap)
    depot = -shares.sum(dim=0, keepdim=True)
    rates = torch.cat([modes.rates.expand_as(shares), route.rate.expand_as(depot)])
    return Response(torch.cat([shares, depot]), rates)


def _of_doses(
    route: Route,
    response: Response,
    doses: Doses,
    amount: Tensor,
    times: Tensor,
    order: Order,
    *,
    runs: bool,
) -> Tensor:
    """What these amounts by one route have left, (patients, times)."""
    patients = amount.shape[0]
    rates = response.rates.expand(-1, patients, -1)
    lag = doses.time.new_zeros(()) if route.lag is None else route.lag
    if route.duration is None:
        given = (amount, doses.time, times, order.dose_first, doses.duration if runs else None)
        waves = FadingSums(rates, lag.expand(patients, 1), *given).of(0)
    else:
        waves = _run_in(rates, amount, doses.time + lag, route.duration, times, order)
    found = (response.amplitudes * waves).sum(dim=0)
    return found if route.bioavailability is None else found * route.bioavailability


def _run_in(
    rates: Tensor, amount: Tensor, start: Tensor, duration: Tensor, times: Tensor, order: Order
) -> Tensor:
    """Of unit exponentials, where durations are parameters, (exponentials, patients, times).

    A unit that runs in over d hours has left (1 - e^(-rate d)) / (rate d) at its end.
    """
    # (doses, patients, times): what is summed over is first, so that the sum runs side by side.
    elapsed = times - start.t()[:, :, None]
    duration = duration.t()[:, :, None]
    counts = elapsed >= 0 if order.dose_first else elapsed > 0
    left = torch.where(counts, amount.t()[:, :, None], 0.0)[:, None]
    slow = duration > 0
    whole = torch.where(slow, duration, 1.0)
    run = torch.minimum(elapsed.clamp(min=0.0), whole)[:, None]
    share = -torch.expm1(-(run * rates)) / (rates * whole[:, None])
    entered = torch.where(slow[:, None], share, 1.0)
    after = (elapsed - duration).clamp(min=0.0)[:, None]
    return (left * entered * torch.exp(-(after * rates))).sum(dim=0)
