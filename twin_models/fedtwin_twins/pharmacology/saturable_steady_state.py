"""Whether doses that saturate the elimination have a steady state, and how long it takes.

Doses at a rate R are in balance with the elimination at the mean concentration C where

    CL C + Vmax C / (Km + C) = R,

which is never where R is Vmax or more and nothing else eliminates. Near it, what is missing decays
at the rate (CL + Vmax Km / (Km + C)^2) / (V + V2), which can be a matter of months.
"""

import math
from collections.abc import Mapping
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
_FAR: Final = 2.0
"""Time constants after which doses that are written out are still far from a steady state."""
_NEARLY: Final = 4.0
"""Time constants after which some parts in a hundred are missing."""
_HIGHEST: Final = 1e12
"""amount/L: a search for a balance begins no higher."""
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
    speed = _speed(by, _level(by, rate))
    largest, clearance = by["largest_elimination"], _beside(by)
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


def settled_share(card: ModelCard, doses: Doses, parameters: Mapping[str, Tensor]) -> Tensor:
    """How far each patient's steady state is what it says, and not some months of doses.

    It is wholly where months of doses all but reach it, and not at all where they lead nowhere
    near it; in between, one passes smoothly into the other, because what is believed of a patient
    is searched by its slope.

    Args:
        card: whose elimination saturates.
        doses: in the units of the routes, one for each part of a parallel route.
        parameters: in the engines' units, each (patients, spans).

    Returns:
        0 to 1, (patients,); 1 also of patients without a steady state.
    """
    by = {name: one[:, :1] for name, one in parameters.items()}
    rate = _rate(card, doses, by)
    constants = _speed(by, _level(by, rate).clamp(max=_HIGHEST)) * _RUN_IN_H
    part = ((constants - _FAR) / (_NEARLY - _FAR)).clamp(0.0, 1.0)[:, 0]
    return torch.where((doses.interval > 0).any(dim=1), part**3 * (10 - 15 * part + 6 * part**2), 1)


def balance(
    card: ModelCard, doses: Doses, parameters: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Amounts in the central and the peripheral compartment in balance with the doses on average.

    Args:
        card: see `settled_share`.
        doses: likewise.
        parameters: likewise.

    Returns:
        both (patients,); the second is 0 with one compartment.
    """
    by = {name: one[:, :1].detach() for name, one in parameters.items()}
    level = _level(by, _rate(card, doses, by)).clamp(max=_HIGHEST)
    central = (by["central_volume"] * level)[:, 0]
    tissue = by.get("peripheral_volume", torch.zeros_like(level)) * level
    return central, tissue[:, 0]


def _beside(by: Mapping[str, Tensor]) -> Tensor:
    """The clearance beside the saturable way, L/h, (patients, 1)."""
    return by.get("clearance", torch.zeros_like(by["largest_elimination"]))


def _level(by: Mapping[str, Tensor], rate: Tensor) -> Tensor:
    """The mean concentration C in balance with doses at a rate; infinite if there is none."""
    largest, half = by["largest_elimination"], by["half_saturation_concentration"]
    clearance = _beside(by)
    left = clearance * half + largest - rate
    # The positive root of CL C^2 + left C - R Km = 0, in the form that survives CL = 0.
    inner = left**2 + 4.0 * clearance * rate * half
    root = inner.clamp(min=1e-300).sqrt() + left
    bounded = root > 0
    # What is not chosen must have a slope that is a number, too.
    return torch.where(bounded, 2.0 * rate * half / torch.where(bounded, root, 1.0), torch.inf)


def _speed(by: Mapping[str, Tensor], level: Tensor) -> Tensor:
    """How fast what is missing of the balance decays, 1/h, (patients, 1)."""
    largest, half = by["largest_elimination"], by["half_saturation_concentration"]
    size = by["central_volume"] + by.get("peripheral_volume", torch.zeros_like(largest))
    return (_beside(by) + largest * half / (half + level) ** 2) / size


def _rate(card: ModelCard, doses: Doses, by: Mapping[str, Tensor]) -> Tensor:
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
