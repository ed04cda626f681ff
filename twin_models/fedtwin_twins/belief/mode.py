"""The most probable effects of each patient (maximum a posteriori), for many patients at once.

Every patient is searched by itself, though all of them in the same tensors: quasi-Newton steps
(BFGS: Nocedal and Wright, Numerical Optimization, 2006, ch. 6, with Armijo's condition) until they
are near; then Newton's with the exact second derivatives. Where those are not positive, their
absolute values are taken (Dauphin et al., NeurIPS 2014), so that a saddle is left. Who has arrived
costs no more; who has no finite objective is reported, and disturbs nobody.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.belief.nets import plain_normal
from fedtwin_twins.belief.whitened import Whitened, whitened

NEAR: Final = 3e-4
"""Standard deviations of the posterior from the mode where Newton's steps begin."""
ARRIVED: Final = 1e-6
"""Standard deviations of the posterior from the mode that do not matter."""
STEPS: Final = 200
"""Trials of each kind, at most."""
DECREASE: Final = 1e-4
"""Armijo's constant."""
SHRINK: Final = 0.3
"""What is left of a step after a trial that did not help."""
ROUNDING: Final = 1e-12
"""An objective that grows by such a part of itself has not grown."""
LONGEST: Final = 1.0
"""Standard deviations of the prior that one step may go: farther out, models are often flat."""
STUCK: Final = 1e-9
"""A step shortened to such a part of itself leads nowhere."""
PATIENCE: Final = 8
"""Trials that together must gain something, once the mode is close."""
GAIN: Final = 1e-4
"""What they must gain: less is no difference between effects that any measurement could show."""
CLOSE: Final = 0.05
"""Standard deviations of the posterior from the mode within which that is asked."""
FLAT: Final = 1e-9
"""The smallest curvature that is divided by; without data it is 2."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """The most probable effects, and whether they were found.

    Attributes:
        effects: (patients, effects); 0 where the objective is not finite there.
        objective: see `likelihood`, (patients,); not a number where it is not finite at 0.
        distance: from the true mode, as Newton's method estimates it, in standard deviations of
            the posterior, (patients,).
        converged: (patients,); also where no step gains anything within `CLOSE` of the mode.
        hessian: exact second derivatives of the objective in whitened effects (see `whitened`) at
            the mode or within `NEAR` of it, (patients, effects, effects); not numbers where the
            objective is not finite.
    """

    effects: Tensor
    objective: Tensor
    distance: Tensor
    converged: Tensor
    hessian: Tensor


@dataclass(kw_only=True, slots=True)
class _Search:
    """Where the patients that are still on their way are."""

    question: Whitened
    rows: Tensor
    point: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor
    inverse: Tensor
    step: Tensor

    def direction(self) -> Tensor:
        """Where the mode lies, if the objective were quadratic, (patients, effects)."""
        return -_times(self.inverse, self.gradient)

    def distance(self) -> Tensor:
        """How far that is in standard deviations of the posterior, (patients,)."""
        along = -(self.gradient * self.direction()).sum(dim=1)
        return (along.clamp(min=0.0) / 2.0).sqrt()

    def keep(self, live: Tensor) -> None:
        """Go on with some of the patients."""
        self.question = self.question.where(live)
        for name in ("rows", "point", "value", "gradient", "hessian", "inverse", "step"):
            setattr(self, name, getattr(self, name)[live])

    def renew(self) -> None:
        """Take the second derivatives anew."""
        self.hessian = self.question.hessian(self.point)
        self.inverse = _inverse(self.hessian)

    def advance(self, *, exact: bool) -> None:
        """Try one step of each patient; one that is not taken leaves a shorter one to try."""
        direction = self.direction()
        length = direction.norm(dim=1)
        moved = (self.step * (LONGEST / length).clamp(max=1.0))[:, None] * direction
        value, gradient = self.question.with_gradient(self.point + moved)
        slope = (self.gradient * moved).sum(dim=1)
        limit = self.value + DECREASE * slope + ROUNDING * self.value.abs()
        finite = value.isfinite() & gradient.isfinite().all(dim=1)
        taken = finite & (value <= limit)
        change = torch.where(finite[:, None], gradient - self.gradient, 0.0)
        self.point = torch.where(taken[:, None], self.point + moved, self.point)
        self.value = torch.where(taken, value, self.value)
        self.gradient = torch.where(taken[:, None], gradient, self.gradient)
        self.step = torch.where(taken, 1.0, self.step * SHRINK)
        if not exact:
            self.inverse = _secant(self.inverse, moved, change)


def find_mode(
    evidence: Evidence, *, starts: int = 1, begin: Tensor | None = None, arrive: bool = True
) -> Mode:
    """The most probable effects of each patient.

    Args:
        evidence: patients and their measurements.
        starts: from how many points to search: the population's own, then points drawn evenly
            (Sobol) from the prior; the best end counts. More than one helps where two sets of
            effects explain the measurements about as well.
        begin: effects to start from in place of the population's own, (patients, effects).
        arrive: go on with exact steps from near the mode to it. Without, the answer lies about
            `NEAR` from it, `converged` stays false, and the hessian is the prior's.

    Returns:
        One mode for each patient. Where the objective is not finite at the start, or no step
        helps, `converged` says so.
    """
    question = whitened(evidence)
    many = question.repeated(starts) if starts > 1 else question
    points = plain_normal(starts, evidence.effects).repeat(evidence.patients, 1)
    if begin is not None:
        points[::starts] = question.points(begin)
    point, value, distance, hessian, settled = _minimised(many, points, arrive)
    height = value.view(-1, starts).nan_to_num(nan=torch.inf)
    best = height.argmin(dim=1) + starts * torch.arange(evidence.patients)
    return Mode(
        effects=question.effects(point[best]),
        objective=value[best],
        distance=distance[best],
        converged=(distance[best] <= ARRIVED) | settled[best],
        hessian=hessian[best],
    )


def _minimised(
    question: Whitened, begin: Tensor, arrive: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Where each search ends, the objective, how far off the mode is, the hessian, and a mark.

    The mark is of searches that ended because exact steps close to the mode gain nothing more.
    """
    point, value, distance = begin.clone(), begin[:, 0] * torch.nan, begin[:, 0] + torch.inf
    hessian = begin[:, :, None] * begin[:, None, :] * torch.nan
    settled = torch.zeros_like(value, dtype=torch.bool)
    stages = ((False, NEAR), (True, ARRIVED)) if arrive else ((False, NEAR),)
    for exact, until in stages:
        search = _begun(question, point, exact=exact)
        past: deque[Tensor] = deque(maxlen=PATIENCE + 1)
        for trial in range(STEPS):
            apart = search.distance()
            point[search.rows], value[search.rows] = search.point, search.value
            distance[search.rows], hessian[search.rows] = apart, search.hessian
            past.append(value.clone())
            live = (apart > until) & (search.step > STUCK)
            if len(past) > PATIENCE:
                # Where equations bend, the slope jumps at the mode, and no step arrives.
                still = (apart <= CLOSE) & (past[0][search.rows] - search.value <= GAIN)
                settled[search.rows] = still & exact
                live &= ~still
            if not bool(live.any()):
                break
            if not bool(live.all()):
                search.keep(live)
            if exact and trial:
                search.renew()
            search.advance(exact=exact)
    return point, value, distance, hessian, settled


def _begun(question: Whitened, point: Tensor, *, exact: bool) -> _Search:
    """A search of those patients whose objective is finite."""
    value, gradient = question.with_gradient(point)
    able = value.isfinite() & gradient.isfinite().all(dim=1)
    rows = torch.arange(len(point))
    if not bool(able.all()):
        question = question.where(able)
        rows, point, value, gradient = (part[able] for part in (rows, point, value, gradient))
    hessian = question.hessian(point) if exact else _without_data(point)
    return _Search(
        question=question,
        rows=rows,
        point=point.clone(),
        value=value,
        gradient=gradient,
        hessian=hessian,
        inverse=_inverse(hessian),
        step=torch.ones_like(value),
    )


def _without_data(point: Tensor) -> Tensor:
    """The second derivatives of the prior alone."""
    return 2.0 * torch.eye(point.shape[1], dtype=point.dtype).repeat(len(point), 1, 1)


def _inverse(hessian: Tensor) -> Tensor:
    """Of the absolute values of the curvatures, of which none is taken for smaller than FLAT."""
    finite = hessian.isfinite().all(dim=2).all(dim=1)
    without_data = 2.0 * torch.eye(hessian.shape[1], dtype=hessian.dtype)
    curvatures, axes = torch.linalg.eigh(torch.where(finite[:, None, None], hessian, without_data))
    found: Tensor = (axes / curvatures.abs().clamp(min=FLAT)[:, None, :]) @ axes.mT
    return found


def _secant(inverse: Tensor, moved: Tensor, change: Tensor) -> Tensor:
    """BFGS's update of the inverse; unchanged where the curvature along the step is not positive.

    Nocedal and Wright, equation 6.17, multiplied out.
    """
    along = (moved * change).sum(dim=1)
    learnt = along > 1e-12
    weight = torch.where(learnt, 1.0 / along, 0.0)[:, None]
    turned = _times(inverse, change)
    own = 1.0 + weight * (change * turned).sum(dim=1, keepdim=True)
    mixed = (weight * moved)[:, :, None] * (own * moved / 2.0 - turned)[:, None, :]
    return inverse + mixed + mixed.mT


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Each patient's matrix times its vector."""
    return (matrix @ vector[:, :, None])[:, :, 0]
