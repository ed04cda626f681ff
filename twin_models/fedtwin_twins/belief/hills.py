"""Whether another set of effects explains a patient as well, and the search for it.

Where parameters vary widely, or levels are few, the objective can have several valleys (the
posterior several hills): slow absorption with fast elimination, say, and the other way round. A
search from the population's effects finds one of them, which need not be the best. Signs of it are
cheap: draws that weigh very unevenly, one that is better than the mode, a poor fit, a curvature
that is none of a peak. Who shows one is searched again, from points spread over the prior, from
the other side of it, and from the best draw.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Final, TypeVar

import torch
from torch import Tensor

from fedtwin_twins.belief.laplace import Laplace, laplace
from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.belief.misfit import Fit
from fedtwin_twins.belief.mode import GAIN, Mode, find_mode, near_ends
from fedtwin_twins.belief.nets import plain_normal
from fedtwin_twins.belief.resampling import Around, Draws
from fedtwin_twins.belief.whitened import Whitened, whitened

UNEVEN: Final = 0.55
"""An effective sample size under such a part of the first draws is a sign; usual is 0.6."""
POOR: Final = 0.1
"""A p-value of the fit under this is a sign."""
SPREAD: Final = 7
"""Starts that are spread over the prior."""
MOST: Final = 3
"""Hills that are told apart."""
APART: Final = 1.0
"""Standard deviations of the posterior on a hill within which nothing is another hill."""
LEAST: Final = 0.01
"""A hill that holds a smaller share of the posterior is left out."""


_Rows = TypeVar("_Rows", Mode, Draws, Around)


@dataclass(frozen=True, kw_only=True, slots=True)
class Hills:
    """What a second search found of some patients.

    Attributes:
        mode: on the best hill.
        around: the normal approximations on all of them, to draw from.
        share: of the posterior that the hills hold by Laplace's method, (patients, `MOST`), the
            best hill's first; 0 where there are fewer.
        mass: -2 ln of what all of them hold together over what the best holds, (patients,).
        news: who has a better mode or more than one hill, (patients,).
    """

    mode: Mode
    around: Around
    share: Tensor
    mass: Tensor
    news: Tensor


def doubtful(mode: Mode, around: Laplace, drawn: Draws, fit: Fit) -> Tensor:
    """Who shows a sign of another hill, (patients,)."""
    count = drawn.weights.shape[1]
    signs = ~mode.converged | ~around.sound | (fit.prior_p < POOR)
    signs |= drawn.first_effective < UNEVEN * count
    signs |= drawn.least < mode.objective - GAIN
    return signs & mode.objective.isfinite()


def find_hills(evidence: Evidence, mode: Mode, drawn: Draws) -> Hills:
    """Search again.

    Args:
        evidence: of the doubtful patients alone.
        mode: as found from the population's effects.
        drawn: around it.
    """
    question = whitened(evidence)
    here = question.points(mode.effects)
    spread = plain_normal(SPREAD + 1, evidence.effects)[1:].expand(evidence.patients, -1, -1)
    starts = torch.cat([spread, -here[:, None], question.points(drawn.best)[:, None]], dim=1)
    points, values, near = near_ends(question, starts)
    best = _better(evidence, mode, points, values)
    told = _told_apart(evidence, question, best, points, values.masked_fill(~near, torch.inf))
    return replace(told, news=told.news | (best.objective < mode.objective))


def _better(evidence: Evidence, mode: Mode, points: Tensor, values: Tensor) -> Mode:
    """The mode, or where an end is lower, the one that is reached from there."""
    lowest = values.argmin(dim=1)
    rows = (values.amin(dim=1) < mode.objective - GAIN).nonzero()[:, 0]
    if not len(rows):
        return mode
    some = evidence.where(rows)
    begin = whitened(some).effects(points[rows, lowest[rows]])
    found = find_mode(some, begin=begin)
    lower = found.objective < mode.objective[rows]
    return _with_rows(mode, rows[lower], found, lower)


def rows_of(whole: _Rows, rows: Tensor) -> _Rows:
    """Some of the patients."""
    return type(whole)(**{one.name: getattr(whole, one.name)[rows] for one in fields(whole)})


def _with_rows(mode: Mode, rows: Tensor, other: Mode, chosen: Tensor) -> Mode:
    """A mode with some rows from another."""
    parts = {}
    for one in fields(Mode):
        whole = getattr(mode, one.name).clone()
        whole[rows] = getattr(other, one.name)[chosen]
        parts[one.name] = whole
    return Mode(**parts)


def _told_apart(
    evidence: Evidence, question: Whitened, mode: Mode, points: Tensor, values: Tensor
) -> Hills:
    """The best hill and, one by one, the next best that lies apart from those before it."""
    best = laplace(evidence, mode)
    hills = [(mode.effects, best.spread, -(mode.objective + best.log_determinant) / 2.0)]
    limit = mode.objective[:, None] - 2.0 * math.log(LEAST)
    left = values.masked_fill(values > limit, torch.inf)
    effects = question.effects(points)
    for _ in range(MOST - 1):
        left = left.masked_fill(_within(effects, *hills[-1][:2]), torch.inf)
        height, place = left.min(dim=1)
        rows = height.isfinite().nonzero()[:, 0]
        top, spread = hills[0][0].clone(), hills[0][1].clone()
        mass = torch.full_like(height, -torch.inf)
        if len(rows):
            hill = _hill(evidence.where(rows), points[rows, place[rows]], height[rows])
            top[rows], spread[rows] = hill.mode, hill.spread
            found = -(height[rows] + hill.log_determinant) / 2.0
            mass[rows] = torch.where(hill.sound, found, -torch.inf)
        hills.append((top, spread, mass))
    tops, spreads, masses = (torch.stack(part, dim=1) for part in zip(*hills, strict=True))
    return _shared(mode, tops, spreads, masses)


def _hill(evidence: Evidence, points: Tensor, values: Tensor) -> Laplace:
    """The normal approximation at the end of a search."""
    question = whitened(evidence)
    mode = Mode(
        effects=question.effects(points),
        objective=values,
        distance=torch.zeros_like(values),
        converged=torch.ones_like(values, dtype=torch.bool),
        hessian=question.hessian(points),
    )
    return laplace(evidence, mode)


def _within(effects: Tensor, top: Tensor, spread: Tensor) -> Tensor:
    """Which ends, (patients, ends, effects), lie on a hill whose top is another."""
    away = torch.linalg.solve(spread, (effects - top[:, None]).mT)
    inside: Tensor = away.norm(dim=1) <= APART
    return inside


def _shared(mode: Mode, tops: Tensor, spreads: Tensor, mass: Tensor) -> Hills:
    """By what they hold; a hill that holds next to nothing gives its place to the best."""
    share = mass.softmax(dim=1)
    counted = share >= LEAST
    counted[:, 0] = True
    share = torch.where(counted, share, 0.0)
    together = mass.masked_fill(~counted, -torch.inf).logsumexp(dim=1)
    return Hills(
        mode=mode,
        around=Around(
            centres=torch.where(counted[:, :, None], tops, tops[:, :1]),
            spreads=torch.where(counted[:, :, None, None], spreads, spreads[:, :1]),
        ),
        share=share / share.sum(dim=1, keepdim=True),
        mass=-2.0 * (together - mass[:, 0]),
        news=counted.sum(dim=1) > 1,
    )
