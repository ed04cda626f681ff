"""Glucose and insulin in type 1 diabetes.

Hovorka R et al., Physiol Meas 2004;25:905, doi 10.1088/0967-3334/25/4/010, equations 1 to 11. With
W the body weight, G = Q1 / (VG W) mmol/L and I mU/L:

    dQ1/dt = -F01c - x1 Q1 + k12 Q2 - FR + UG + EGP0 W (1 - x3)     (1 - x3 not below 0)
    dQ2/dt = x1 Q1 - (k12 + x2) Q2
    F01c = F01 W min(1, G / 4.5),   FR = 0.003 (G - 9) VG W above 9 mmol/L
    dS1/dt = u - S1/tI,  dS2/dt = (S1 - S2)/tI,  dI/dt = S2 / (tI VI W) - ke I
    dxi/dt = -kai xi + kai SIi I,  i = 1 transport, 2 disposal, 3 production
    dD1/dt = AG D - D1/tG,  dD2/dt = (D1 - D2)/tG,  UG = D2/tG

u is insulin under the skin (mU/min), D a meal's glucose (mmol). Before a patient's first event
everything stands still at the card's steady glucose under the basal insulin that holds it there;
afterwards all insulin must come from the schedule, the basal rate too. Who has no event at all
begins at hour 0.

Everything before glucose is known in closed form (`insulin_signals`), so that only Q1 and Q2 are
stepped (`glucose_steps`), and read off between steps by a cubic (Hermite's: Hairer, Norsett and
Wanner, section II.6). Where a parameter changes on the way, the whole system is stepped.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Order, Route, alike, doses_of_rows, of_rows
from fedtwin_twins.kinetics.fixed_step import solve
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.pharmacology.card_parts import RouteCard
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.pharmacology.glucose_steps import (
    COARSE,
    FEW,
    STEP,
    Drive,
    Losses,
    between,
    fastest,
    grid,
    slopes,
    walk,
)
from fedtwin_twins.pharmacology.insulin_signals import ACTIONS, Entries, Signals, signals
from fedtwin_twins.twin.batch import Doses

_MINUTES: Final = 60.0
_MOLAR_MASS: Final = 180.16
"""g/mol of glucose."""
_MILLI: Final = 1_000.0
_GLUCOSE, _INSULIN, _MEAL, _UNDER_SKIN = 0, 5, 8, 6
_FASTER: Final = 2.0
"""Insulin's action may be faster than any rate of the table, after a large bolus."""
NUMBERS: Final = 2**21
"""Moments of all patients that are held together: memory stays flat."""
FINEST: Final = STEP / 100.0
"""Minutes, a step that no believable patient needs; who does has no number."""
CACHED: Final = 2**14
"""Moments of all patients that are worked out together."""

Values = Mapping[str, Tensor]


def glucose(course: Course, times: Tensor) -> Tensor:
    """mmol/L, (patients, times)."""
    if _changes(course):
        states, volume = _stepped_whole(course, times)
        return states[_GLUCOSE] / volume
    return _in_blocks(course, times, _glucose)


def insulin(course: Course, times: Tensor) -> Tensor:
    """In plasma, m[IU]/L, (patients, times)."""
    if _changes(course):
        return _stepped_whole(course, times)[0][_INSULIN]
    return _in_blocks(course, times, _insulin)


def basal_insulin(course: Course) -> Tensor:
    """The rate under the skin that holds the steady glucose, [IU]/h, (patients,)."""
    by = {name: value[:, 0] for name, value in course.parameters.items()}
    volume = by["insulin_volume"] * by["body_weight"]
    rate = by["insulin_elimination_rate"] * _steady_insulin(by) * volume
    return rate * _MINUTES / _MILLI


def _stepped_whole(course: Course, times: Tensor) -> tuple[States, Tensor]:
    """All ten states at asked times, and the volume, with parameters that change on the way."""
    by, (doses, begin) = course.parameters, _begun(course)
    system = System(
        right_side=_change,
        start=_start({name: value[:, 0] for name, value in by.items()}),
        values=by,
        into=tuple(_ENTRIES[one.input] for one in course.card.routes),
        routes=tuple(Route(bioavailability=_fraction(one, by)) for one in course.card.routes),
        starts=course.traits.starts if course.traits.starts.shape[1] > 1 else None,
        since=float(begin.max()),
        order=Order(dose_first=course.card.record_order == "dose_before_observation"),
    )
    found = solve(system, doses, times.maximum(begin), _fastest(by))
    volume = (by["glucose_volume"] * by["body_weight"])[:, :1]
    return found, volume


def _changes(course: Course) -> bool:
    """Whether a parameter changes on the way, for anybody."""
    return any(bool((one != one[:, :1]).any()) for one in course.parameters.values())


def _begun(course: Course) -> tuple[Doses, Tensor]:
    """Doses without steady states, and when each patient's first one is, h, (patients, 1)."""
    doses = course.written_doses
    given = torch.where(doses.amount > 0, doses.time, torch.inf)
    empty = torch.full_like(course.first_dose, torch.inf)
    begin = torch.cat([given, empty], 1).amin(1, keepdim=True)
    none = begin == torch.inf
    begin = torch.where(none, 0.0, begin)
    return replace(doses, time=torch.where(none, 0.0, doses.time)), begin


def _in_blocks(course: Course, times: Tensor, ask: Callable[["_Block", Tensor], Tensor]) -> Tensor:
    """(patients, times), so many patients at once that memory stays flat."""
    doses, begin = _begun(course)
    minutes = (times - begin).clamp(min=0.0) * _MINUTES
    by = {name: one[:, 0] for name, one in course.parameters.items()}
    points = 2.0 * float(minutes.detach().max()) / STEP + 2.0 * doses.time.shape[1]
    size = max(FEW, int(NUMBERS / max(points, float(times.shape[1]))))
    found = []
    for first in range(0, times.shape[0], size):
        rows = slice(first, first + size)
        own = {name: of_rows(one, rows) for name, one in by.items()}
        entries = _entries(course, doses_of_rows(doses, rows), begin[rows], own)
        block = _Block(by=own, known=signals(entries, own, _steady_insulin(own)))
        found.append(ask(block, minutes[rows]))
    return torch.cat(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Block:
    """Some patients.

    Attributes:
        by: parameters, each (patients,).
        known: what glucose is driven by.
    """

    by: Values
    known: Signals

    def where(self, rows: Tensor) -> "_Block":
        """Some of them, by place."""
        own = {name: one[rows] for name, one in self.by.items()}
        return _Block(by=own, known=self.known.where(rows))


def _insulin(block: _Block, minutes: Tensor) -> Tensor:
    return block.known.insulin(alike(minutes).t()).t()


def _glucose(block: _Block, minutes: Tensor, step: float = STEP) -> Tensor:
    """With steps of at most so many minutes; of patients who need finer ones, with those."""
    by, losses = block.by, _losses(block.by)
    asked = alike(minutes).t()
    nodes, widths = grid(block.known.time, asked, step)
    middles = (nodes[:-1] + nodes[1:]) / 2.0
    points = torch.cat([torch.stack([nodes[:-1], middles], 1).flatten(0, 1), nodes[-1:]])
    drive = _drive(block.known, points, by)
    fine = fastest(drive, losses) * step > COARSE
    if not bool(fine.any()):
        start = _start(by)
        states = walk((start[0], start[1]), drive, losses, widths)
        found = between(states[0], slopes(states, drive, losses), nodes, asked)
        return (found / (by["glucose_volume"] * by["body_weight"])).t()
    if step < FINEST:
        return torch.full_like(minutes, torch.nan)
    groups = (fine.nonzero()[:, 0], (~fine).nonzero()[:, 0])
    parts = [
        _glucose(block.where(rows), minutes[rows], size)
        for rows, size in zip(groups, (step / 2.0, step), strict=True)
        if len(rows)
    ]
    return torch.cat(parts)[torch.cat(groups).argsort()]


def _losses(by: Values) -> Losses:
    volume = by["glucose_volume"] * by["body_weight"]
    return Losses(
        used=by["noninsulin_glucose_flux"] * by["body_weight"],
        knee=by["flux_glucose_threshold"] * volume,
        spilled=by["renal_glucose_rate"],
        spill=by["renal_glucose_threshold"] * volume,
        back=by["glucose_transfer_rate"],
    )


def _drive(known: Signals, times: Tensor, by: Values) -> Drive:
    """At times, (times, patients or 1); a few of them together, so that they stay in the cache."""
    most = by["endogenous_glucose_production"] * by["body_weight"]
    parts = []
    for some in torch.split(times, max(1, CACHED // most.shape[0])):
        transport, disposal, production = known.actions(some)
        made = known.absorbed(some) + most * (1.0 - production).clamp(min=0.0)
        parts.append((made, transport, by["glucose_transfer_rate"] + disposal))
    made, moved, left = (torch.cat(one) for one in zip(*parts, strict=True))
    return Drive(made=made, moved=moved, left=left)


def _entries(course: Course, doses: Doses, begin: Tensor, by: Values) -> Entries:
    """Every dose, and the end of every one that lasts, as changes in order of time."""
    time, lasts = (doses.time - begin) * _MINUTES, doses.duration * _MINUTES
    slow = lasts > 0
    rate = torch.where(slow, doses.amount / torch.where(slow, lasts, 1.0), 0.0)
    at_once = torch.where(slow, 0.0, doses.amount)
    nothing = torch.zeros_like(rate)
    # The beginning is the first event; what never happens stands at the end and brings nothing.
    moments = torch.cat([torch.zeros_like(begin), time, torch.where(slow, time + lasts, 0.0)], 1)
    moments = torch.where(moments.isfinite(), moments, 0.0)
    moments = torch.where(moments > 0, moments, 0.0)
    ordered, order = alike(moments).sort(dim=1, stable=True)
    places = order.expand(moments.shape[0], -1)
    parts: dict[str, Tensor] = {}
    for into, name in _PARTS.items():
        scale = nothing
        for number, route in enumerate(course.card.routes):
            if route.input == into:
                scale = scale + (doses.route == number) * _fraction(route, by)[:, None]
        for kind, given in (("", (at_once, nothing)), ("_rate", (rate, -rate))):
            brought = torch.cat([torch.zeros_like(begin), *(scale * one for one in given)], 1)
            parts[name + kind] = brought.gather(1, places).t()
    return Entries(time=ordered.t(), **parts)


_ENTRIES: Final = {
    "meal": _MEAL,
    "subcutaneous_insulin": _UNDER_SKIN,
    "intravenous_insulin": _INSULIN,
}
_PARTS: Final = {
    "meal": "meal",
    "subcutaneous_insulin": "insulin",
    "intravenous_insulin": "plasma",
}


def _fraction(route: RouteCard, by: Values) -> Tensor:
    """What part of a dose gets where: grams to mmol, [IU] to m[IU], or to m[IU]/L of plasma."""
    whole = torch.full_like(by["body_weight"], route.dose_scale)
    if route.input == "meal":
        fraction = whole * by["carbohydrate_bioavailability"] * _MILLI / _MOLAR_MASS
    elif route.input == "subcutaneous_insulin":
        fraction = whole * _MILLI
    else:
        fraction = whole * _MILLI / (by["insulin_volume"] * by["body_weight"])
    return fraction


def _fastest(by: Values) -> float:
    """1/h."""
    rates = [by[name] for name in by if name.endswith("_rate") and name != "renal_glucose_rate"]
    rates += [1.0 / by[name] for name in by if name.endswith("_time_to_peak")]
    return _FASTER * _MINUTES * max(float(rate.detach().max()) for rate in rates)


def _change(hours: Tensor, states: States, by: Values) -> States:
    """Rates of change, 1/h."""
    del hours
    first, second, transport, disposal, production, level, skin, depot, meal, gut = states
    weight, peak = by["body_weight"], by["insulin_time_to_peak"]
    volume = by["glucose_volume"] * weight
    made = by["endogenous_glucose_production"] * weight * (1.0 - production).clamp(min=0.0)
    used, lost = _used_and_lost(first / volume, volume, by)
    exchanged = by["glucose_transfer_rate"] * second
    moved = transport * first
    eaten = by["carbohydrate_time_to_peak"]
    per_minute = (
        exchanged - moved - used - lost + gut / eaten + made,
        moved - exchanged - disposal * second,
        *(
            by[f"{name}_deactivation_rate"] * (by[f"{name}_insulin_sensitivity"] * level - action)
            for name, action in zip(ACTIONS, (transport, disposal, production), strict=True)
        ),
        depot / (peak * by["insulin_volume"] * weight) - by["insulin_elimination_rate"] * level,
        -skin / peak,
        (skin - depot) / peak,
        -meal / eaten,
        (meal - gut) / eaten,
    )
    return tuple(_MINUTES * one for one in per_minute)


def _used_and_lost(level: Tensor, volume: Tensor, by: Values) -> tuple[Tensor, Tensor]:
    """What tissue takes without insulin, and what the kidneys lose, mmol/min."""
    used = by["noninsulin_glucose_flux"] * by["body_weight"]
    used = used * (level / by["flux_glucose_threshold"]).clamp(0.0, 1.0)
    beyond = (level - by["renal_glucose_threshold"]).clamp(min=0.0)
    return used, by["renal_glucose_rate"] * beyond * volume


def _steady_insulin(by: Values) -> Tensor:
    """m[IU]/L at which the steady glucose stands still, each (patients,); 0 if none is needed.

    The positive root of (E (1 - S3 I) - F) (k12 + S2 I) - S1 S2 Q1 I^2 = 0, with E what the liver
    makes and F what is used and lost.
    """
    weight = by["body_weight"]
    volume = by["glucose_volume"] * weight
    used, lost = _used_and_lost(by["steady_glucose"], volume, by)
    made, spent = by["endogenous_glucose_production"] * weight, used + lost
    back = by["glucose_transfer_rate"]
    s1, s2, s3 = (by[f"{name}_insulin_sensitivity"] for name in ACTIONS)
    square = -(made * s3 * s2 + s1 * s2 * by["steady_glucose"] * volume)
    linear = made * s2 - made * s3 * back - spent * s2
    constant = (made - spent) * back
    root = (linear**2 - 4.0 * square * constant).clamp(min=0.0).sqrt()
    return ((-linear - root) / (2.0 * square)).clamp(min=0.0)


def _start(by: Values) -> States:
    """Everything at rest under basal insulin, each (patients,)."""
    level = _steady_insulin(by)
    first = by["steady_glucose"] * by["glucose_volume"] * by["body_weight"]
    actions = tuple(by[f"{name}_insulin_sensitivity"] * level for name in ACTIONS)
    second = actions[0] * first / (by["glucose_transfer_rate"] + actions[1])
    rate = by["insulin_elimination_rate"] * level * by["insulin_volume"] * by["body_weight"]
    depot = rate * by["insulin_time_to_peak"]
    nothing = torch.zeros_like(level)
    return (first, second, *actions, level, depot, depot, nothing, nothing)
