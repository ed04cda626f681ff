"""What concentrations do: clotting, glucose, blood pressure; each with its equations and source.

`coagulation_chains` (Hamberg 2010, doi 10.1038/clpt.2010.37): a drug that inhibits the making of
clotting factors by E = Emax C^g / (EC50^g + C^g) drives two chains of three stages, each at rest
at 1, with rates 3/MTT:

    dX1/dt = k (1 - E - X1),  dX2/dt = k (X1 - X2),  dX3/dt = k (X2 - X3)
    INR = baseline + shift (1 - (X3 fast + X3 slow) / 2)

`signal_transduction` (Chae 2012, doi 10.1111/j.1365-2125.2012.04260.x, after Sun and Jusko 1998):

    dM1/dt = (E - M1)/tau,  dM2/dt = (M1 - M2)/tau,  dM3/dt = (M2 - M3)/tau,  change = M3

`daily_rhythm_and_linear_effect` (Mukherjee 2018, doi 10.1007/s10928-018-9574-0, Figure S2):

    P = P0 + A cos(2 pi f (hour of the day)) + slope C (1 - exp(-k (hours since the first dose)))

`turnover_*` (Dayneka, Garg and Jusko 1993, J Pharmacokinet Biopharm 21:457, models I to IV), with
E = Emax C^g / (EC50^g + C^g), inhibited (1 - E) or stimulated (1 + E) on one of the two sides, and
kin = kout times the baseline:

    dR/dt = kin (1 -+ E) - kout R,  or  dR/dt = kin - kout (1 -+ E) R

`metabolite` (such as in Rowland and Tozer 1995, Clinical Pharmacokinetics, chapter 21): a fraction
of what the clearance takes out of the central compartment becomes a metabolite of its own volume,
all of it in the drug's unit of amount:

    dM/dt = (fraction CL C - CLm M) / Vm

What a route lets in as the metabolite (`first_pass`) comes on top, as absorption brings it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import at_spans, span_places
from fedtwin_twins.kinetics.panels import TOLERANCE
from fedtwin_twins.kinetics.quadrature import responses
from fedtwin_twins.kinetics.turnover import (
    Moment,
    Stage,
    Values,
    indirect_response,
    sigmoid,
    transit,
)
from fedtwin_twins.pharmacology.card_kinetics import first_pass_of
from fedtwin_twins.pharmacology.course import Course

_STAGES: Final = 3
_HOURS_OF_DAY: Final = 24.0
_STEEP: Final = 8.0
_FINE: Final = 1e-8
"""Relative error of a metabolite's level, which is measured as exactly as the drug's."""


def inr(course: Course, times: Tensor) -> Tensor:
    """International normalised ratio, (patients, times)."""
    by = course.parameters
    stages = [
        *_clotting(course, by["fast_mean_transit_time"]),
        *_clotting(course, by["slow_mean_transit_time"]),
    ]
    found = _along(course, times, stages)
    left = (found[..., _STAGES - 1] + found[..., -1]) / 2.0
    baseline, shift = (_at(course, name, times) for name in ("baseline_inr", "maximal_inr_shift"))
    return baseline + shift * (1.0 - left)


def _clotting(course: Course, transit_time: Tensor) -> tuple[Stage, ...]:
    names = ("maximal_effect", "half_maximal_concentration", "hill_exponent")
    values = {name: course.parameters[name] for name in names}
    start = torch.ones_like(transit_time)
    return transit(_STAGES / transit_time, _STAGES, _made, values=values, start=start)


def _made(moment: Moment) -> Tensor:
    return 1.0 - _inhibition(moment)


def _inhibition(moment: Moment) -> Tensor:
    by = moment.values
    return sigmoid(
        moment.concentration,
        by["maximal_effect"],
        by["half_maximal_concentration"],
        by.get("hill_exponent"),
    )


def glucose_change(course: Course, times: Tensor) -> Tensor:
    """Percent by which glucose falls, (patients, times)."""
    names = ("maximal_effect", "half_maximal_concentration", "hill_exponent")
    values = {name: course.parameters[name] for name in names}
    chain = transit(1.0 / course.parameters["transit_time"], _STAGES, _inhibition, values=values)
    # An exponent below 1 is infinitely steep where the drug begins: shorter steps.
    return _along(course, times, [replace(stage, fastest=_finer) for stage in chain])[..., -1]


def _finer(values: Values) -> Tensor:
    return _STEEP * values["rate"]


def systolic_pressure(course: Course, times: Tensor) -> Tensor:
    """mm[Hg], (patients, times)."""
    by = {name: _at(course, name, times) for name in _RHYTHM}
    hour = torch.remainder(times, _HOURS_OF_DAY)
    turns = by["rhythm_frequency"] * hour / _HOURS_OF_DAY
    rhythm = by["rhythm_amplitude"] * torch.cos(2.0 * math.pi * turns)
    since = (times - course.first_dose).clamp(min=0.0)
    onset = 1.0 - torch.exp(-by["effect_onset_rate"] * since)
    level = course.kinetics.concentrations(course.doses, times)
    return by["baseline_pressure"] + rhythm + by["effect_slope"] * level * onset


_RHYTHM: Final = (
    "rhythm_frequency",
    "rhythm_amplitude",
    "effect_onset_rate",
    "baseline_pressure",
    "effect_slope",
)


def turnover(course: Course, times: Tensor) -> Tensor:
    """What turns over, in the unit of its baseline, (patients, times)."""
    by = course.parameters
    _, change, side = course.card.effect.split("_")
    names = ("maximal_effect", "half_maximal_concentration", "hill_exponent")
    stage = indirect_response(
        production=by["loss_rate"] * by["baseline_response"],
        loss=by["loss_rate"],
        effect=_inhibition,
        acts_on="production" if side == "production" else "loss",
        inhibits=change == "inhibited",
        values={name: by[name] for name in names if name in by},
        largest_effect=by["maximal_effect"],
    )
    return _along(course, times, [replace(stage, bend=_half)])[..., -1]


def _half(values: Values) -> Tensor:
    return values["half_maximal_concentration"]


def metabolite(course: Course, times: Tensor) -> Tensor:
    """Concentration of the metabolite, amount/L, (patients, times)."""
    by = course.parameters
    volume = by["metabolite_volume"]
    stage = Stage(
        values={
            "gain": by["metabolite_fraction"] * by["clearance"] / volume,
            "loss": by["metabolite_clearance"] / volume,
        },
        start=_nothing,
        production=_formed,
        loss=_lost,
        fastest=_loss,
    )
    found = _along(course, times, [stage], _FINE)[..., -1]
    early = first_pass_of(course.card, by, course.traits.starts)
    return found if early is None else found + early.concentrations(course.doses, times)


def _formed(moment: Moment) -> Tensor:
    return moment.values["gain"] * moment.concentration


def _lost(moment: Moment) -> Tensor:
    return moment.values["loss"]


def _loss(values: Values) -> Tensor:
    return values["loss"]


def _nothing(values: Values) -> Tensor:
    return torch.zeros_like(values["loss"])


def _along(
    course: Course, times: Tensor, stages: Sequence[Stage], tolerance: float = TOLERANCE
) -> Tensor:
    return responses(
        course.kinetics,
        course.written_doses,
        times,
        stages,
        since=course.begins,
        tolerance=tolerance,
    )


def _at(course: Course, name: str, times: Tensor) -> Tensor:
    """A parameter in force at each time."""
    values = course.parameters[name]
    return at_spans(values, span_places(course.traits.starts, times))
