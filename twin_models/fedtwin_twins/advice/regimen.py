"""A repeated dose that could be given from now on, and the patient's batch with it added."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedtwin_twins.advice.targets import Window
from fedtwin_twins.twin.batch import Batch, Doses
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any

STEADY: float = 0.0
"""The hour at which a steady state is looked at: the patient's past plays no part in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Regimen:
    """The same dose at the same interval, perhaps after a first one that is larger; or one dose.

    Attributes:
        amount: of every dose.
        interval_h: between doses.
        route: one of the model's.
        duration_h: of an infusion; 0: all at once.
        loading: the first dose, where it differs.
        once: there is no second dose; the interval is how long the one is looked at.

    Raises:
        Refusal: a number that no dose can have.
    """

    amount: Quantity
    interval_h: float
    route: str
    duration_h: float = 0.0
    loading: Quantity | None = None
    once: bool = False

    def __post_init__(self) -> None:
        loading = self.loading
        checks = (
            ("amount", self.amount.value, self.amount.value > 0, "above 0", self.amount.unit),
            ("interval_h", self.interval_h, 0 < self.interval_h < torch.inf, "above 0", "h"),
            ("duration_h", self.duration_h, 0 <= self.duration_h < torch.inf, "0 or more", "h"),
            ("loading", 1.0 if loading is None else loading.value, True, "above 0", ""),
        )
        found = [
            Problem(field=f"regimen.{name}", value=f"{value:g}", unit=unit, allowed=allowed)
            for name, value, good, allowed, unit in checks
            if not good or value < 0 or (name == "loading" and value == 0)
        ]
        if self.once and loading is not None:
            allowed = "none before a single dose"
            found.append(Problem(field="regimen.loading", value=str(loading), allowed=allowed))
        refuse_if_any(found)

    def __str__(self) -> str:
        infused = f" over {self.duration_h:g} h" if self.duration_h else ""
        first = f", first {self.loading}" if self.loading is not None else ""
        often = "once" if self.once else f"every {self.interval_h:g} h"
        return f"{self.amount}{infused} {often} {self.route}{first}"

    def daily(self, unit: str) -> float:
        """The amount in 24 h, without a loading dose."""
        amount = self.amount.to(unit, field="regimen.amount")
        return amount if self.once else amount * 24.0 / self.interval_h

    def largest(self, unit: str) -> float:
        """The largest single amount."""
        amounts = [self.amount] if self.loading is None else [self.amount, self.loading]
        return max(amount.to(unit, field="regimen.amount") for amount in amounts)


def doses_of(model: TwinModel, regimens: Sequence[Regimen], start_h: float, end_h: float) -> Doses:
    """One row of doses for each regimen, from `start_h` up to but not including `end_h`.

    Raises:
        Refusal: a route or a unit that the model does not know.
    """
    widest = max(_count(one, start_h, end_h) for one in regimens)
    shape = (len(regimens), widest)
    number = torch.arange(widest, dtype=torch.float64)
    time = torch.full(shape, torch.inf, dtype=torch.float64)
    amount, duration = torch.zeros(shape).double(), torch.zeros(shape).double()
    route = torch.zeros(shape, dtype=torch.int64)
    for row, one in enumerate(regimens):
        route[row] = _route(model, one)
        unit = model.dose_unit(one.route)
        count = _count(one, start_h, end_h)
        time[row, :count] = start_h + number[:count] * one.interval_h
        amount[row, :count] = one.amount.to(unit, field="regimen.amount")
        if one.loading is not None:
            amount[row, 0] = one.loading.to(unit, field="regimen.loading")
        duration[row, :count] = one.duration_h
    return Doses(
        time=time, amount=amount, duration=duration, route=route, interval=torch.zeros_like(time)
    )


def followed_by(batch: Batch, doses: Doses) -> Batch:
    """The same patients, with doses added behind those they have.

    Args:
        batch: (rows, ...).
        doses: (rows, ...), each later than all of the row's own.
    """
    joined = {
        name: torch.cat([getattr(batch.doses, name), getattr(doses, name)], dim=1)
        for name in ("time", "amount", "duration", "route", "interval")
    }
    order = joined["time"].argsort(dim=1, stable=True)
    kept = int((joined["time"] < torch.inf).sum(dim=1).max())
    sorted_ = {name: value.gather(1, order)[:, :kept] for name, value in joined.items()}
    return replace(batch, doses=Doses(**sorted_))


def at_steady_state(model: TwinModel, regimens: Sequence[Regimen]) -> tuple[Doses, Window]:
    """Each regimen given for ever, and the window of one of its intervals.

    Raises:
        Refusal: a single dose, or a route or a unit that the model does not know.
    """
    refuse_if_any(
        Problem(
            field="horizon.judged_h",
            value=f"steady state of {one}",
            allowed="an hour until which a single dose is judged",
        )
        for one in regimens
        if one.once
    )
    first = doses_of(model, regimens, STEADY, STEADY + min(one.interval_h for one in regimens))
    interval = torch.tensor([one.interval_h for one in regimens], dtype=torch.float64)
    amounts = [
        one.amount.to(model.dose_unit(one.route), field="regimen.amount") for one in regimens
    ]
    doses = Doses(
        time=first.time[:, :1],
        amount=torch.tensor(amounts, dtype=torch.float64)[:, None],
        duration=first.duration[:, :1],
        route=first.route[:, :1],
        interval=interval[:, None],
    )
    start = torch.full_like(interval, STEADY)
    return doses, Window(start=start, end=start + interval)


def interval_window(regimens: Sequence[Regimen], start_h: float, at_h: float) -> Window:
    """The last whole dosing interval of each regimen that ends by `at_h`, or the first one."""
    steps = torch.tensor([one.interval_h for one in regimens], dtype=torch.float64)
    whole = torch.floor((at_h - start_h) / steps + 1e-9).clamp(min=1.0)
    end = start_h + whole * steps
    return Window(start=end - steps, end=end)


def rows(tensor: Tensor, count: int) -> Tensor:
    """A single row `count` times."""
    return tensor.expand(count, *tensor.shape[1:])


def _count(one: Regimen, start_h: float, end_h: float) -> int:
    if one.once:
        return 1
    return max(1, int(torch.ceil(torch.tensor((end_h - start_h) / one.interval_h - 1e-9))))


def _route(model: TwinModel, one: Regimen) -> int:
    if one.route not in model.routes:
        known = " or ".join(model.routes)
        raise Refusal(Problem(field="regimen.route", value=one.route, allowed=known))
    return list(model.routes).index(one.route)
