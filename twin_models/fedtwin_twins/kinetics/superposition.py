"""Concentrations as a sum over doses, without a recursion: quickest where few numbers are asked.

Where no parameter changes and rates lie apart, one dose by one route leaves a few exponentials,
and doses add up. All doses, times and exponentials are then one tensor and one call each, where
the recursion takes some for every dose; that pays as long as a call costs more than its numbers.
"""

from dataclasses import dataclass
from math import factorial
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


LOST: Final = 1e-10
"""Of a concentration and its second derivatives, that much may be lost to rounding."""


@dataclass(frozen=True, slots=True)
class Waves:
    """A part of the concentration that a unit at once leaves: sum of amplitude t^n e^(-rate t).

    Attributes:
        amplitudes: (powers from 0, exponentials, patients, 1), 1/volume.
        rates: (exponentials, patients, 1), 1/h.
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
        (patients, times), or none: parameters change, a chain is run into, doses stand for a
        steady state, rates are too near each other, or the numbers are many.

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
        kept = route.duration is not None and not _few_kept(given, times)
        if runs and (route.stages > 0 or kept):
            return None
        amount = torch.where(mine, doses.amount, 0.0) if len(routes) > 1 else doses.amount
        response = [modes]
        if route.rate is not None:
            if not _apart(route, modes.rates, doses, amount, times):
                return None
            response = _absorbed(route.stages, route.rate, modes)
        for waves in response:
            part = _of_doses(route, waves, doses, amount, times, order, runs=runs)
            found = part if found is None else found + part
    return found


def _numbers(given: CourseInput, times: Tensor) -> int:
    """How many exponentials there are of each dose."""
    each = given.disposition.compartments + max([1, *(route.stages for route in given.routes)])
    return given.doses.time.shape[0] * times.shape[1] * each


def _few(given: CourseInput, times: Tensor) -> bool:
    """Whether a sum takes less time than the recursion."""
    return _numbers(given, times) <= FEW or times.shape[1] <= FEW_TIMES


def _few_kept(given: CourseInput, times: Tensor) -> bool:
    """The same where everything is kept for derivatives."""
    numbers = _numbers(given, times)
    return numbers <= FEW and numbers * given.doses.time.shape[1] <= RUNNING


def _straight(disposition: Disposition) -> Waves:
    """Of a unit in the central compartment."""
    rates, shares = disposition.exponentials()
    return Waves((shares / disposition.volume)[None], rates)


def _apart(route: Route, rates: Tensor, doses: Doses, amount: Tensor, times: Tensor) -> bool:
    """Whether a chain's rate lies so far from the modes' that no digits cancel that matter.

    With several stages, a chain fills a mode by a difference that is of the order (gap u)^n, u
    hours after a dose: what is left of it must be right, and so must its second derivatives.
    """
    assert route.rate is not None
    stages, chain, modes = route.stages, route.rate.detach(), rates.detach()
    gap = (chain - modes).abs()
    if bool((gap < NEAR * (chain + modes)).any()):
        return False
    if stages == 1:
        return True
    elapsed = times - doses.time.t()[:, :, None]
    if route.lag is not None:
        elapsed = elapsed - route.lag.detach()
    matters = (elapsed > 0) & (amount.t()[:, :, None] != 0)
    least = (factorial(stages) * torch.finfo(gap.dtype).eps / LOST) ** (1 / (stages + 2))
    return not bool((matters & (elapsed * gap.amin(dim=0) < least)).any())


def _absorbed(stages: int, rate: Tensor, modes: Waves) -> list[Waves]:
    """Of a unit that goes through a chain of stages: of the modes, and of the chain itself.

    With k the chain's rate, g its distance from a mode's and n stages, what has reached the mode is

        (k / g)^n (e^(-(k - g) t) - sum over j < n of (g t)^j / j! e^(-k t))
    """
    ratio = rate / (rate - modes.rates)
    if stages == 1:
        shares = modes.amplitudes * ratio
        depot = -shares.sum(dim=1, keepdim=True)
        rates = torch.cat([modes.rates.expand_as(ratio), rate.expand_as(depot[0])])
        return [Waves(torch.cat([shares, depot], dim=1), rates)]
    left = torch.arange(stages, 0, -1, dtype=rate.dtype, device=rate.device)
    shares = modes.amplitudes * ratio ** left[:, None, None, None]
    sizes = rate.new_tensor([factorial(place) for place in range(stages)])[:, None, None, None]
    chain = -shares.sum(dim=1, keepdim=True) * rate ** (stages - left)[:, None, None, None] / sizes
    return [Waves(shares[:1], modes.rates.expand_as(ratio)), Waves(chain, rate.expand_as(chain[0]))]


def _of_doses(
    route: Route,
    waves: Waves,
    doses: Doses,
    amount: Tensor,
    times: Tensor,
    order: Order,
    *,
    runs: bool,
) -> Tensor:
    """What these amounts by one route have left, (patients, times)."""
    patients = amount.shape[0]
    rates, powers = waves.rates.expand(-1, patients, -1), len(waves.amplitudes)
    lag = doses.time.new_zeros(()) if route.lag is None else route.lag
    if route.duration is None:
        given = (amount, doses.time, times, order.dose_first, doses.duration if runs else None)
        sums = FadingSums(rates, lag.expand(patients, 1), *given).of(0, powers)
    else:
        sums = _run_in(rates, amount, doses.time + lag, route.duration, times, order)
    found = (waves.amplitudes * sums).sum(dim=(0, 1))
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
