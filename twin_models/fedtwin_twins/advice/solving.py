"""The dose, the interval or the waiting time at which one known patient reaches a value exactly.

What is reached is a monotone function of each of them; the root is found by Brent's method (1973,
Algorithms for Minimization without Derivatives, chapter 4). Doses that exist come first (`search`);
these numbers say where to look.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from scipy.optimize import brentq
from torch import Tensor

from fedtwin_twins.advice.regimen import Regimen, doses_of, followed_by
from fedtwin_twins.advice.targets import Target, Window, place_of, range_of, reached
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Unreachable

_EXACT = 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """One patient without uncertainty.

    Attributes:
        model: whose equations.
        batch: one row, the past.
        effects: (1, effects).
    """

    model: TwinModel
    batch: Batch
    effects: Tensor

    def under(self, regimen: Regimen, start_h: float, end_h: float) -> Batch:
        """The patient with a regimen from one hour to another."""
        return followed_by(self.batch, doses_of(self.model, [regimen], start_h, end_h))


def dose_reaching(
    known: Known,
    regimen: Regimen,
    target: Target,
    value: float,
    hours: tuple[float, float, float],
    between: tuple[Quantity, Quantity],
) -> Quantity:
    """The amount of every dose of a regimen at which a target's value is reached.

    Args:
        known: the patient.
        regimen: whose amount is sought; a loading dose is left out.
        target: what is measured; its limits play no part.
        value: in the target's unit.
        hours: when the regimen starts, and from when to when the target is measured.
        between: the smallest and the largest amount to consider.

    Raises:
        Unreachable: no amount between the two reaches it.
    """
    start_h, first_h, last_h = hours
    unit = known.model.dose_unit(regimen.route)
    window = _window(first_h, last_h)

    def missed(amount: float) -> float:
        given = replace(regimen, amount=Quantity(amount, unit), loading=None)
        batch = known.under(given, start_h, last_h)
        return float(reached(known.model, batch, known.effects, target, window)[0]) - value

    low, high = (one.to(unit, field="between") for one in between)
    wanted = f"{value:g} {range_of(known.model, target).unit}"
    return Quantity(_root(missed, (low, high), f"dose for {target.kind} {wanted}", unit), unit)


def interval_reaching(
    known: Known,
    regimen: Regimen,
    observable: str,
    value: float,
    doses: int,
    before_h: float = 0.0,
    between_h: tuple[float, float] = (1.0, 168.0),
) -> float:
    """The interval, in hours, at which an observable falls to a value before the last dose.

    Args:
        known: the patient.
        regimen: whose interval is sought, from hour 0.
        observable: by name.
        value: in the observable's unit.
        doses: how many; it is measured before the last of them.
        before_h: how long before it.
        between_h: the shortest and the longest interval to consider.

    Raises:
        Unreachable: no interval between the two reaches it.
    """
    place = place_of(known.model, observable)

    def missed(interval: float) -> float:
        last = (doses - 1) * interval
        batch = known.under(replace(regimen, interval_h=interval), 0.0, last)
        return _at(known, batch, last - before_h, place) - value

    return _root(missed, between_h, f"interval for {observable} {value:g}", "h")


def time_reaching(
    known: Known,
    batch: Batch,
    observable: str,
    value: float,
    between_h: tuple[float, float],
) -> float:
    """The hour at which a falling (or rising) observable passes a value.

    Args:
        known: the patient.
        batch: one row, with all doses that count.
        observable: by name.
        value: in the observable's unit.
        between_h: within which it passes the value once.

    Raises:
        Unreachable: it does not pass it.
    """
    place = place_of(known.model, observable)

    def missed(hour: float) -> float:
        return _at(known, batch, hour, place) - value

    return _root(missed, between_h, f"time for {observable} {value:g}", "h")


def _at(known: Known, batch: Batch, hour: float, place: int) -> float:
    times = torch.tensor([[hour]], dtype=torch.float64)
    return float(known.model.predict(batch, known.effects, times, place)[0, 0])


def _window(first_h: float, last_h: float) -> Window:
    ends = torch.tensor([[first_h], [last_h]], dtype=torch.float64)
    return Window(start=ends[0], end=ends[1])


def _root(
    missed: Callable[[float], float], between: tuple[float, float], what: str, unit: str
) -> float:
    low, high = between
    at_low, at_high = missed(low), missed(high)
    if not at_low * at_high <= 0.0:
        raise Unreachable(
            Problem(
                field=what,
                value="out of reach",
                allowed=f"a solution from {low:g} to {high:g}",
                unit=unit,
                remedy="widen what may be considered, or ask for another value",
            )
        )
    return float(brentq(missed, low, high, xtol=_EXACT * max(1.0, high), rtol=_EXACT))
