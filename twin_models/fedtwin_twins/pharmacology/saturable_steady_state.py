"""Whether doses that saturate the elimination have a steady state, and how long it takes.

Doses at a rate R are in balance with the elimination at the mean concentration C where

    CL C + Vmax C / (Km + C) = R,

which is never where R is Vmax or more and nothing else eliminates. Near it, what is missing decays
at the rate (CL + Vmax Km / (Km + C)^2) / (V + V2), which can be a matter of months.
"""

from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.pharmacology.card_kinetics import engine_scales
from fedtwin_twins.pharmacology.card_parameters import effects_of, individual
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.twin.refusals import Problem, Refusal

_NEAR: Final = 6.0
"""Time constants after which some parts in a thousand are missing."""
_ROUNDING: Final = 1e-9


def check_steady_state(course: Course, run_in: int) -> None:
    """Refuse a steady state that the typical patient with these covariates does not reach.

    Draws of unusual patients are not looked at: their levels rise, and the data speak for or
    against them.

    Args:
        course: patients with their doses.
        run_in: how many doses are written out before a steady state.

    Raises:
        Refusal: with the first dose that has none.
    """
    doses = course.doses
    repeated = doses.interval > 0
    if not bool(repeated.any()):
        return
    by = _typical(course)
    interval = torch.where(repeated, doses.interval, 1.0)
    rate = torch.zeros_like(doses.amount[:, :1])
    for number, route in enumerate(course.card.routes):
        own = repeated & (doses.route == number)
        fraction = by[route.bioavailability] if route.bioavailability else torch.ones_like(rate)
        given = torch.where(own, doses.amount / interval, 0.0).sum(dim=1, keepdim=True)
        rate = rate + given * fraction * route.dose_scale
    largest, half = by["largest_elimination"], by["half_saturation_concentration"]
    clearance = by.get("clearance", torch.zeros_like(largest))
    left = clearance * half + largest - rate
    # The positive root of CL C^2 + left C - R Km = 0, in the form that survives CL = 0.
    root = (left**2 + 4.0 * clearance * rate * half).sqrt() + left
    level = torch.where(root > 0, 2.0 * rate * half / root, torch.inf)
    size = by["central_volume"] + by.get("peripheral_volume", torch.zeros_like(largest))
    speed = (clearance + largest * half / (half + level) ** 2) / size
    waited = run_in * interval.masked_fill(~repeated, torch.inf).amin(dim=1, keepdim=True)
    late = repeated.any(dim=1, keepdim=True) & ~(speed * waited >= _NEAR)
    if not bool(late.any()):
        return
    patient = int(late.nonzero()[0, 0])
    dose = int(repeated[patient].nonzero()[0, 0])
    asked, most, other = (float(one[patient]) for one in (rate, largest, clearance))
    unit = f"{course.card.amount_unit}/h"
    allowed = f"doses whose steady state is reached after {run_in} of them"
    remedy = "elimination is nearly saturated: write out the doses that were really given"
    if other == 0.0 and asked >= most * (1.0 - _ROUNDING):
        allowed = f"less than the largest elimination of {most:.4g} {unit}"
        remedy = "no steady state exists: give less, or write the doses out"
    raise Refusal(
        Problem(
            field=f"patients[{patient}].doses[{dose}].steady_state",
            value=f"{asked:.4g} {unit}",
            allowed=allowed,
            remedy=remedy,
        )
    )


def _typical(course: Course) -> dict[str, Tensor]:
    """Typical parameters in the engines' units, as long as the steady state lasted, (p, 1)."""
    effects = effects_of(course.card)
    nothing = torch.zeros_like(course.traits.starts[:, :1]).expand(-1, len(effects.between))
    found = individual(course.card, effects, course.traits, course.first_dose, nothing)
    scales = engine_scales(course.card)
    return {name: one[:, :1] * scales.get(name, 1.0) for name, one in found.items()}
