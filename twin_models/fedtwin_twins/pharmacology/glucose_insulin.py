"""Glucose and insulin in type 1 diabetes.

Hovorka R et al., Physiol Meas 2004;25:905, doi 10.1088/0967-3334/25/4/010, equations 1 to 11. With
W the body weight, G = Q1 / (VG W) mmol/L and I mU/L:

    dQ1/dt = -F01c - x1 Q1 + k12 Q2 - FR + UG + EGP0 W (1 - x3)     (1 - x3 not below 0)
    dQ2/dt = x1 Q1 - (k12 + x2) Q2
    F01c = F01 W min(1, G / 4.5),   FR = 0.003 (G - 9) VG W above 9 mmol/L
    dS1/dt = u - S1/tI,  dS2/dt = (S1 - S2)/tI,  dI/dt = S2 / (tI VI W) - ke I
    dxi/dt = -kai xi + kai SIi I,  i = 1 transport, 2 disposal, 3 production
    dD1/dt = AG D - D1/tG,  dD2/dt = (D1 - D2)/tG,  UG = D2/tG

u is insulin under the skin (mU/min), D a meal's glucose (mmol). Before the first event everything
stands still at the card's steady glucose under the basal insulin that holds it there; afterwards
all insulin must come from the schedule, the basal rate too.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import Order, Route
from fedtwin_twins.kinetics.fixed_step import solve
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.pharmacology.card_parts import RouteCard
from fedtwin_twins.pharmacology.course import Course

_MINUTES: Final = 60.0
_MOLAR_MASS: Final = 180.16
"""g/mol of glucose."""
_MILLI: Final = 1_000.0
_GLUCOSE, _INSULIN, _MEAL, _UNDER_SKIN = 0, 5, 8, 6
_FASTER: Final = 2.0
"""Insulin's action may be faster than any rate of the table, after a large bolus."""

Values = Mapping[str, Tensor]


def glucose(course: Course, times: Tensor) -> Tensor:
    """mmol/L, (patients, times)."""
    states, volume = _states(course, times)
    return states[_GLUCOSE] / volume


def insulin(course: Course, times: Tensor) -> Tensor:
    """In plasma, m[IU]/L, (patients, times)."""
    return _states(course, times)[0][_INSULIN]


def basal_insulin(course: Course) -> Tensor:
    """The rate under the skin that holds the steady glucose, [IU]/h, (patients,)."""
    by = {name: value[:, 0] for name, value in course.parameters.items()}
    volume = by["insulin_volume"] * by["body_weight"]
    rate = by["insulin_elimination_rate"] * _steady_insulin(by) * volume
    return rate * _MINUTES / _MILLI


def _states(course: Course, times: Tensor) -> tuple[States, Tensor]:
    by = course.parameters
    changes = course.traits.starts.shape[1] > 1
    routes = tuple(_route(one, by) for one in course.card.routes)
    system = System(
        right_side=_change,
        start=_start({name: value[:, 0] for name, value in by.items()}),
        values=by,
        into=tuple(_ENTRIES[one.input] for one in course.card.routes),
        routes=routes,
        starts=course.traits.starts if changes else None,
        since=course.begins,
        order=Order(dose_first=course.card.record_order == "dose_before_observation"),
    )
    found = solve(system, course.doses, times.clamp(min=course.begins), _fastest(by))
    volume = (by["glucose_volume"] * by["body_weight"])[:, :1]
    return found, volume


_ENTRIES: Final = {
    "meal": _MEAL,
    "subcutaneous_insulin": _UNDER_SKIN,
    "intravenous_insulin": _INSULIN,
}


def _route(route: RouteCard, by: Values) -> Route:
    """What part of a dose gets where: grams to mmol, [IU] to m[IU], or to m[IU]/L of plasma."""
    whole = torch.full_like(by["body_weight"], route.dose_scale)
    if route.input == "meal":
        fraction = whole * by["carbohydrate_bioavailability"] * _MILLI / _MOLAR_MASS
    elif route.input == "subcutaneous_insulin":
        fraction = whole * _MILLI
    else:
        fraction = whole * _MILLI / (by["insulin_volume"] * by["body_weight"])
    return Route(bioavailability=fraction)


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
            for name, action in zip(_ACTIONS, (transport, disposal, production), strict=True)
        ),
        depot / (peak * by["insulin_volume"] * weight) - by["insulin_elimination_rate"] * level,
        -skin / peak,
        (skin - depot) / peak,
        -meal / eaten,
        (meal - gut) / eaten,
    )
    return tuple(_MINUTES * one for one in per_minute)


_ACTIONS: Final = ("transport", "disposal", "production")


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
    s1, s2, s3 = (by[f"{name}_insulin_sensitivity"] for name in _ACTIONS)
    square = -(made * s3 * s2 + s1 * s2 * by["steady_glucose"] * volume)
    linear = made * s2 - made * s3 * back - spent * s2
    constant = (made - spent) * back
    root = (linear**2 - 4.0 * square * constant).clamp(min=0.0).sqrt()
    return ((-linear - root) / (2.0 * square)).clamp(min=0.0)


def _start(by: Values) -> States:
    """Everything at rest under basal insulin, each (patients,)."""
    level = _steady_insulin(by)
    first = by["steady_glucose"] * by["glucose_volume"] * by["body_weight"]
    actions = tuple(by[f"{name}_insulin_sensitivity"] * level for name in _ACTIONS)
    second = actions[0] * first / (by["glucose_transfer_rate"] + actions[1])
    rate = by["insulin_elimination_rate"] * level * by["insulin_volume"] * by["body_weight"]
    depot = rate * by["insulin_time_to_peak"]
    nothing = torch.zeros_like(level)
    return (first, second, *actions, level, depot, depot, nothing, nothing)
