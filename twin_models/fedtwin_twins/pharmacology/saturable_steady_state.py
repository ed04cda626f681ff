"""Whether doses that saturate the elimination have a steady state, and how long it takes.

Doses at a rate R are in balance with the elimination at the mean concentration C where

    CL C + Vmax C / (Km + C) = R,

which is never where R is Vmax or more and nothing else eliminates. Near it, what is missing decays
at the rate (CL + Vmax Km / (Km + C)^2) / (V + V2), which can be a matter of months.
"""

import math
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.systems import RUN_IN
from fedtwin_twins.pharmacology.card import ModelCard
from fedtwin_twins.pharmacology.card_kinetics import divided, engine_scales
from fedtwin_twins.pharmacology.card_parameters import effects_of, first_dose, individual
from fedtwin_twins.twin.batch import Batch, Doses
from fedtwin_twins.twin.refusals import Problem

_RUN_IN_H: Final = 120 * 24.0
"""h of doses that are written out before a steady state, at least."""
_NEAR: Final = 6.0
"""Time constants after which some parts in a thousand are missing."""
_ROUNDING: Final = 1e-9


def run_in(doses: Doses) -> int:
    """How many doses are written out before a steady state."""
    shortest = doses.interval[doses.interval > 0]
    if not shortest.numel():
        return RUN_IN
    return max(RUN_IN, math.ceil(_RUN_IN_H / float(shortest.min())))


def steady_state_problems(card: ModelCard, batch: Batch) -> list[tuple[int, Problem]]:
    """Patients said to be at a steady state that the typical one with their covariates never is.

    This is for what is recorded of patients. What may come is not asked: draws and schedules that
    never reach a balance go on rising over the doses that are written out, and count as such.

    Args:
        card: whose elimination saturates.
        batch: patients with doses as recorded.

    Returns:
        by place of the patient.
    """
    doses = divided(card, batch.doses)
    repeated = doses.interval > 0
    if not bool(repeated.any()):
        return []
    by = _typical(card, batch)
    rate = _rate(card, doses, by)
    largest, half = by["largest_elimination"], by["half_saturation_concentration"]
    clearance = by.get("clearance", torch.zeros_like(largest))
    left = clearance * half + largest - rate
    # The positive root of CL C^2 + left C - R Km = 0, in the form that survives CL = 0.
    root = (left**2 + 4.0 * clearance * rate * half).sqrt() + left
    level = torch.where(root > 0, 2.0 * rate * half / root, torch.inf)
    size = by["central_volume"] + by.get("peripheral_volume", torch.zeros_like(largest))
    speed = (clearance + largest * half / (half + level) ** 2) / size
    shortest = doses.interval.masked_fill(~repeated, torch.inf).amin(dim=1, keepdim=True)
    late = repeated.any(dim=1, keepdim=True) & ~(speed * run_in(doses) * shortest >= _NEAR)
    unbounded = (clearance == 0.0) & (rate >= largest * (1.0 - _ROUNDING))
    unit = f"{card.amount_unit}/h"
    found = []
    for patient in late[:, 0].nonzero()[:, 0].tolist():
        dose = int(repeated[patient].nonzero()[0, 0])
        allowed = f"doses whose steady state is reached after {run_in(doses)} of them"
        remedy = "elimination is nearly saturated: write out the doses that were really given"
        if bool(unbounded[patient]):
            most = float(largest[patient])
            allowed = f"less than the largest elimination of {most:.4g} {unit}"
            remedy = "no steady state exists: give less, or write the doses out"
        problem = Problem(
            field=f"doses at {float(doses.time[patient, dose]):g} h.steady_state",
            value=f"{float(rate[patient]):.4g} {unit}",
            allowed=allowed,
            remedy=remedy,
        )
        found.append((patient, problem))
    return found


def _rate(card: ModelCard, doses: Doses, by: dict[str, Tensor]) -> Tensor:
    """What comes in at the steady state, amount/h, (patients, 1)."""
    repeated = doses.interval > 0
    interval = torch.where(repeated, doses.interval, 1.0)
    rate = torch.zeros_like(doses.amount[:, :1])
    for number, route in enumerate(card.routes):
        own = repeated & (doses.route == number)
        fraction = by[route.bioavailability] if route.bioavailability else torch.ones_like(rate)
        given = torch.where(own, doses.amount / interval, 0.0).sum(dim=1, keepdim=True)
        rate = rate + given * fraction * route.dose_scale
    return rate


def _typical(card: ModelCard, batch: Batch) -> dict[str, Tensor]:
    """Typical parameters in the engines' units, as long as the steady state lasted, (p, 1)."""
    effects = effects_of(card)
    nothing = torch.zeros_like(batch.traits.starts[:, :1]).expand(-1, len(effects.between))
    found = individual(card, effects, batch.traits, first_dose(batch), nothing)
    scales = engine_scales(card)
    return {name: one[:, :1] * scales.get(name, 1.0) for name, one in found.items()}
