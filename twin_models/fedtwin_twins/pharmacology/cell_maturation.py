"""White cells under a drug that slows their making (Friberg 2002; Arshad 2020).

    dP/dt  = k P (1 - slope C) (base/circ)^gamma - k P        proliferating cells
    dT1/dt = k (P - T1),  dT2/dt = k (T1 - T2),  dT3/dt = k (T2 - T3)
    dcirc/dt = k (T3 - circ),   k = 4 / (mean transit time), all at `base` at first

Friberg LE et al., J Clin Oncol 2002;20:4713, doi 10.1200/JCO.2002.02.140; the drug's effect as in
Arshad U et al. 2020, doi 10.1007/s00280-019-04028-5, Methods.

A drug such as fluorouracil is gone within an hour, cells take weeks. So the concentration enters
as its exact mean over short panels (the closed form's area over the panel's length): exposure is
exact, and the steps follow the cells' rates, not the drug's.
"""

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.fixed_step import solve
from fedtwin_twins.kinetics.systems import States, System
from fedtwin_twins.pharmacology.course import Course
from fedtwin_twins.twin.batch import Doses
from fedtwin_twins.twin.covariates import with_breaks

_STAGES: Final = 4
_PANEL_H: Final = 4.0
_FINE: Final = 0.1
_NAMES: Final = ("baseline_cells", "feedback_exponent", "drug_slope")


def cells(course: Course, times: Tensor) -> Tensor:
    """Circulating cells, 10*9/L, (patients, times)."""
    rate = _STAGES / course.parameters["mean_transit_time"]
    since = course.begins
    asked = times.clamp(min=since)
    fastest = float(rate.detach().max())
    longest = min(_PANEL_H, _FINE / fastest)
    last = float(asked.detach().max())
    count = max(1, math.ceil((last - since) / longest))
    edges = torch.linspace(since, max(last, since + longest), count + 1, dtype=times.dtype)
    breaks = edges.to(times.device).expand(times.shape[0], -1)
    traits = with_breaks(course.traits, breaks)
    place = _places(course.traits.starts, traits.starts)
    values = {name: course.parameters[name].gather(1, place) for name in _NAMES}
    values["rate"] = rate.gather(1, place)
    values["level"] = _mean_levels(course, traits.starts, since)
    base = values["baseline_cells"][:, 0]
    system = System(
        right_side=_change,
        start=(base,) * (_STAGES + 1),
        values=values,
        starts=traits.starts,
        since=since,
    )
    return solve(
        system, _none(times), asked, 2.0 * fastest, step_h=longest, answers=(len(system.start) - 1,)
    )[0]


def _change(hours: Tensor, states: States, by: Mapping[str, Tensor]) -> States:
    del hours
    growing, first, second, third, circulating = states
    rate = by["rate"]
    feedback = (by["baseline_cells"] / circulating) ** by["feedback_exponent"]
    made = (1.0 - by["drug_slope"] * by["level"]) * feedback
    return (
        rate * growing * (made - 1.0),
        rate * (growing - first),
        rate * (first - second),
        rate * (second - third),
        rate * (third - circulating),
    )


def _places(before: Tensor, after: Tensor) -> Tensor:
    """In which old span each new one lies."""
    found = torch.searchsorted(before.contiguous(), after.contiguous(), right=True) - 1
    return found.clamp(min=0)


def _mean_levels(course: Course, starts: Tensor, since: float) -> Tensor:
    """Mean concentration over each span, amount/L; 0 before the first panel and in empty ones."""
    finite = starts.isfinite()
    hours = torch.where(finite, starts, since)
    areas = course.kinetics.areas(course.doses, hours, since)
    ends = torch.cat([hours[:, 1:], hours[:, -1:]], dim=1)
    closed = torch.cat([finite[:, 1:], torch.zeros_like(finite[:, :1])], dim=1) & finite
    width = torch.where(closed, ends - hours, 1.0)
    later = torch.cat([areas[:, 1:], areas[:, -1:]], dim=1)
    mean = (later - areas) / torch.where(width > 0, width, 1.0)
    return torch.where(closed & (width > 0) & (hours >= since), mean, 0.0)


def _none(times: Tensor) -> Doses:
    """No doses: what the drug does is in the levels."""
    empty = times[:, :0]
    return Doses(time=empty, amount=empty, duration=empty, route=empty.long(), interval=empty)
