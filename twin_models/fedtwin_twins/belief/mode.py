"""The most probable effects of each patient (maximum a posteriori), for many patients at once.

Every patient is searched by itself, though all of them in the same tensors: quasi-Newton steps
(BFGS: Nocedal and Wright, Numerical Optimization, 2006, ch. 6, with Armijo's condition) until they
are near; then Newton's with the exact second derivatives. Where those are not positive, their
absolute values are taken (Dauphin et al., NeurIPS 2014), so that a saddle is left. Who has arrived
costs no more; who has no finite objective is reported, and disturbs nobody.
"""

from dataclasses import dataclass, fields
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ends:
    """Where the search of each patient has come to; as in `Mode`, in whitened effects.

    Attributes:
        settled: exact steps close to the mode gained nothing more.
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    distance: Tensor
    hessian: Tensor
    settled: Tensor


@dataclass(kw_only=True, slots=True)
class _Search:
    """Where the patients that are still on their way are.

    Attributes:
        question: of them alone.
        rows: their places among all.
        point: (patients, effects), and the objective and its gradient there.
        hessian: the second derivatives, or, for quasi-Newton steps, those of the prior.
        inverse: of the second derivatives, as far as they are known.
        ahead: where the mode lies from here, if the objective were quadratic.
        seen: how far off the mode was when the second derivatives were taken, see `distance`.
        step: the part of the way ahead that is tried next, (patients,).
        height: the objective when a trial last gained something.
        idle: trials since then.
    """

    question: Whitened
    rows: Tensor
    point: Tensor
    value: Tensor
    gradient: Tensor
    hessian: Tensor
    inverse: Tensor
    ahead: Tensor
    seen: Tensor
    step: Tensor
    height: Tensor
    idle: Tensor

    def distance(self) -> Tensor:
        """How far off the mode is in standard deviations of the posterior, (patients,)."""
        return ((self.gradient * self.ahead).sum(dim=1) / -2.0).clamp(min=0.0).sqrt()

    def rests(self, apart: Tensor) -> Tensor:
        """Who gains nothing more: where equations bend, the slope jumps, and no step arrives."""
        gained = self.height - self.value > GAIN
        self.idle = torch.where(gained, 0, self.idle + 1)
        self.height = torch.where(gained, self.value, self.height)
        return (apart <= CLOSE) & (self.idle > PATIENCE)

    def leave(self, ends: _Ends, apart: Tensor, gone: Tensor) -> None:
        """Write down where some of the patients are."""
        rows = self.rows[gone]
        ends.distance[rows] = apart[gone]
        for name in ("point", "value", "gradient", "hessian"):
            getattr(ends, name)[rows] = getattr(self, name)[gone]

    def keep(self, live: Tensor) -> None:
        """Go on with some of the patients."""
        self.question = self.question.where(live)
        for one in fields(self):
            if one.name != "question":
                setattr(self, one.name, getattr(self, one.name)[live])

    def renew(self) -> None:
        """Take the second derivatives anew."""
        self.hessian = self.question.hessian(self.point)
        self.inverse = _inverse(self.hessian)
        self.ahead = -_times(self.inverse, self.gradient)
        self.seen = self.distance()

    def advance(self, *, exact: bool) -> None:
        """Try one step of each patient; one that is not taken leaves a shorter one to try."""
        length = self.ahead.norm(dim=1)
        moved = (self.step * (LONGEST / length).clamp(max=1.0))[:, None] * self.ahead
        value, gradient = self.question.with_gradient(self.point + moved)
        slope = (self.gradient * moved).sum(dim=1)
        limit = self.value + DECREASE * slope + ROUNDING * self.value.abs()
        finite = value.isfinite() & gradient.isfinite().all(dim=1)
        taken = finite & (value <= limit)
        if not exact:
            change = torch.where(finite[:, None], gradient - self.gradient, 0.0)
            self.inverse = _secant(self.inverse, moved, change)
        self.point = torch.where(taken[:, None], self.point + moved, self.point)
        self.value = torch.where(taken, value, self.value)
        self.gradient = torch.where(taken[:, None], gradient, self.gradient)
        self.step = torch.where(taken, 1.0, self.step * SHRINK)
        self.ahead = -_times(self.inverse, self.gradient)


def find_mode(
    evidence: Evidence,
    *,
    starts: int = 1,
    begin: Tensor | None = None,
    covariance: Tensor | None = None,
    arrive: bool = True,
) -> Mode:
    """The most probable effects of each patient.

    Args:
        evidence: patients and their measurements.
        starts: from how many points to search: the population's own, then points drawn evenly
            (Sobol) from the prior; the best end counts. More than one helps where two sets of
            effects explain the measurements about as well.
        begin: effects to start from in place of the population's own, (patients, effects).
        covariance: of the posterior, where something near it is known: the first steps are
            right, then, where the prior's own is too wide; (patients, effects, effects).
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
    inverse = torch.eye(evidence.effects, dtype=points.dtype).repeat(len(points), 1, 1) / 2.0
    if covariance is not None:
        inverse[::starts] = _known(question.covariance(covariance) / 2.0, inverse[::starts])
    ends = _minimised(many, points, inverse, arrive)
    height = ends.value.view(-1, starts).nan_to_num(nan=torch.inf)
    best = height.argmin(dim=1) + starts * torch.arange(evidence.patients)
    return Mode(
        effects=question.effects(ends.point[best]),
        objective=ends.value[best],
        distance=ends.distance[best],
        converged=(ends.distance[best] <= ARRIVED) | ends.settled[best],
        hessian=ends.hessian[best],
    )


def near_ends(question: Whitened, starts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where searches from several points come to, without the exact steps at their ends.

    Args:
        question: of each patient.
        starts: whitened effects, (patients, starts, effects).

    Returns:
        whitened effects, (patients, starts, effects); the objective there, infinite where it is
        not a number; and whether the search ended (about `NEAR` from a mode), both (patients,
        starts).
    """
    patients, each, size = starts.shape
    inverse = torch.eye(size, dtype=starts.dtype).repeat(patients * each, 1, 1) / 2.0
    ends = _minimised(question.repeated(each), starts.reshape(-1, size), inverse, False)
    value = ends.value.view(patients, each).nan_to_num(nan=torch.inf, posinf=torch.inf)
    near = (ends.distance <= CLOSE).view(patients, each) & value.isfinite()
    return ends.point.view(patients, each, size), value, near


def _known(inverse: Tensor, otherwise: Tensor) -> Tensor:
    """The inverse of second derivatives that is known, or another where it is none of a bowl."""
    failed = torch.linalg.cholesky_ex(inverse).info != 0
    odd = failed | ~inverse.isfinite().all(dim=2).all(dim=1)
    return torch.where(odd[:, None, None], otherwise, inverse)


def _minimised(question: Whitened, begin: Tensor, inverse: Tensor, arrive: bool) -> _Ends:
    """Where each search ends, from the inverses of second derivatives that it begins with."""
    value, gradient = question.with_gradient(begin)
    ends = _Ends(
        point=begin.clone(),
        value=value,
        gradient=gradient,
        distance=torch.full_like(value, torch.inf),
        hessian=torch.full_like(begin[:, :, None] * begin[:, None, :], torch.nan),
        settled=torch.zeros_like(value, dtype=torch.bool),
    )
    for exact, until in ((False, NEAR), (True, ARRIVED)) if arrive else ((False, NEAR),):
        search = _begun(question, ends, inverse, exact=exact)
        for trial in range(STEPS):
            apart = search.distance()
            # The second derivatives that are handed on must be those of the mode.
            live = ((apart > until) | (search.seen > NEAR)) & (search.step > STUCK)
            still = live & search.rests(apart)
            live &= ~still
            if exact:
                ends.settled[search.rows[still]] = True
            if not bool(live.all()):
                search.leave(ends, apart, ~live)
                if not bool(live.any()):
                    break
                search.keep(live)
            if exact and trial:
                search.renew()
            search.advance(exact=exact)
        else:
            search.leave(ends, search.distance(), torch.ones_like(search.rows, dtype=torch.bool))
    return ends


def _begun(question: Whitened, ends: _Ends, inverse: Tensor, *, exact: bool) -> _Search:
    """A search of those patients whose objective is finite."""
    able = ends.value.isfinite() & ends.gradient.isfinite().all(dim=1)
    rows = torch.arange(len(able))
    if not bool(able.all()):
        question, rows = question.where(able), rows[able]
    point, value, gradient = ends.point[rows], ends.value[rows], ends.gradient[rows]
    without_data = torch.eye(point.shape[1], dtype=point.dtype).repeat(len(point), 1, 1)
    search = _Search(
        question=question,
        rows=rows,
        point=point,
        value=value,
        gradient=gradient,
        hessian=2.0 * without_data,
        inverse=inverse[rows],
        ahead=-_times(inverse[rows], gradient),
        seen=torch.zeros_like(value),
        step=torch.ones_like(value),
        height=torch.full_like(value, torch.inf),
        idle=torch.zeros_like(rows),
    )
    if exact:
        search.renew()
    return search


def _inverse(hessian: Tensor) -> Tensor:
    """Of the absolute values of the curvatures, of which none is taken for smaller than FLAT."""
    factor, failed = torch.linalg.cholesky_ex(hessian)
    found = torch.cholesky_inverse(factor)
    # The sum of a positive matrix's eigenvalues bounds the largest of them.
    bowl = (failed == 0) & (found.diagonal(dim1=1, dim2=2).sum(dim=1) < 1.0 / FLAT)
    if not bool(bowl.all()):
        found[~bowl] = _of_absolutes(hessian[~bowl])
    return found


def _of_absolutes(hessian: Tensor) -> Tensor:
    """The same by way of the curvatures, for whatever is not a bowl."""
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
