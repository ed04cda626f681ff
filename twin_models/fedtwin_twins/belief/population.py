"""What a population is like, from the measurements of many patients: FOCEI.

With O_i the objective of patient i (`likelihood`) at its mode eta_i, and f_ij, v_ij the predictions
and variances there, minus twice the logarithm of the likelihood with the effects integrated out is

    sum_i [ O_i + ln |Omega| + ln |Omega^-1 + sum_j (a_ij a_ij' / v_ij + c_ij c_ij' / 2)| ]

with a = df / deta and c = d ln v / deta, less the constants n ln 2 pi: first-order conditional
estimation with interaction (Wang, J Pharmacokinet Pharmacodyn 2007;34:575, equation 28). Gradients
are exact: each mode follows the parameters by the implicit function theorem (Almquist, Leander and
Jirstrand, J Pharmacokinet Pharmacodyn 2015;42:191). Standard errors come from the second
derivatives of the objective (NONMEM's R matrix).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.laplace import laplace
from fedtwin_twins.belief.likelihood import Evidence, compared
from fedtwin_twins.belief.mode import find_mode
from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.refusals import Problem, refuse_if_any
from fedtwin_twins.twin.residuals import Convention, ResidualError, deviation

Structure = Callable[[Tensor, Batch, Tensor, Tensor, Tensor], Tensor]
"""Typical values (parameters,), patients, effects, times and kinds to the truth."""
Report = Callable[[int, float], None]
"""Called with the number of evaluations and the objective, for whoever watches."""

NUDGE: Final = 1e-3
"""Step of the differences between exact gradients, in logarithms or absolute."""
EVALUATIONS: Final = 200
"""Of the objective, at most, in a fit."""
ARRIVED: Final = 0.01
"""Standard errors from the optimum that do not matter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Typical:
    """A typical value to be estimated.

    Attributes:
        name: in full.
        start: where the search begins.
        positive: whether it is estimated on the logarithm.
    """

    name: str
    start: float
    positive: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class PopulationModel:
    """Equations with typical values, spreads and errors that are not yet known.

    Attributes:
        predict: the equations, differentiable in typical values and effects.
        typical: what is estimated of the structure.
        spreads: by effect, the standard deviation to start from; effects do not go together.
        errors: of each observable; parts above 0 are where its search begins, parts of 0 stay 0.
    """

    predict: Structure
    typical: tuple[Typical, ...]
    spreads: dict[str, float]
    errors: tuple[ResidualError, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of everything that is estimated, in the order of `start`."""
        parts = [
            f"{part}_error[{kind}]"
            for kind, error in enumerate(self.errors)
            for part in ("additive", "proportional")
            if getattr(error, part) > 0.0
        ]
        return (*(one.name for one in self.typical), *(f"sd({n})" for n in self.spreads), *parts)

    @property
    def on_logarithm(self) -> Tensor:
        """Which of them are estimated on the logarithm, (parameters,)."""
        return torch.tensor(
            [
                index >= len(self.typical) or self.typical[index].positive
                for index in range(self.size)
            ]
        )

    @property
    def size(self) -> int:
        """How many numbers are estimated."""
        return len(self.names)

    @property
    def start(self) -> Tensor:
        """Where the search begins, on the searched scale, (parameters,)."""
        parts = [
            getattr(error, part)
            for error in self.errors
            for part in ("additive", "proportional")
            if getattr(error, part) > 0.0
        ]
        numbers = [one.start for one in self.typical] + list(self.spreads.values()) + parts
        values = torch.tensor(numbers, dtype=torch.float64)
        return torch.where(self.on_logarithm, values.clamp(min=1e-300).log(), values)


@dataclass(frozen=True, kw_only=True, slots=True)
class PopulationFit:
    """What was estimated.

    Attributes:
        names: of the numbers.
        estimates: (parameters,), in their own units.
        standard_errors: (parameters,), in their own units; not a number where the objective's
            second derivatives are not those of a minimum.
        searched: the estimates on the searched scale (logarithms of positive numbers).
        searched_errors: standard errors on that scale.
        objective: -2 ln likelihood, less n ln 2 pi.
        effects: each patient's mode, (patients, effects).
        shrinkage: 1 - sd of the modes over the estimated sd, by effect.
        converged: whether the optimum was reached.
        distance: from it, as Newton's method estimates it, in standard errors.
    """

    names: tuple[str, ...]
    estimates: Tensor
    standard_errors: Tensor
    searched: Tensor
    searched_errors: Tensor
    objective: float
    effects: Tensor
    shrinkage: Tensor
    converged: bool
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _EstimatedError:
    """A residual error whose parts are tensors."""

    convention: Convention
    additive: Tensor
    proportional: Tensor
    at_zero: float

    def scaled(self, predicted: Tensor) -> Tensor:
        """What is compared."""
        return predicted.log() if self.convention == "on_logarithm" else predicted

    def deviation(self, predicted: Tensor) -> Tensor:
        """The standard deviation on the compared scale."""
        return deviation(
            self.convention, predicted, self.additive, self.proportional, at_zero=self.at_zero
        )


def focei(evidence: Evidence, effects: Tensor) -> Tensor:
    """The population objective of each patient, (patients,), at its mode (patients, effects).

    Differentiable in whatever the evidence's equations, covariance and errors depend on.
    """
    information = expected_information(evidence, effects)
    factor = torch.linalg.cholesky(evidence.covariance)
    scaled = torch.eye(evidence.effects, dtype=effects.dtype) + factor.mT @ information @ factor
    return evidence.objective(effects) + torch.logdet(scaled)


def expected_information(evidence: Evidence, effects: Tensor) -> Tensor:
    """What the measurements are expected to say of the effects, (patients, effects, effects).

    The sum over j of the formula above; with Omega^-1 added and inverted, it is the conditional
    variance that NONMEM prints as ETC. Differentiable as `focei` is.
    """
    if not effects.requires_grad:
        effects = effects.detach().requires_grad_(True)
    predicted = evidence.predicted(effects)
    count = predicted.shape[1]
    each = torch.eye(count, dtype=predicted.dtype)[:, None, :].expand(count, *predicted.shape)
    (slopes,) = torch.autograd.grad(
        predicted, effects, each, is_grads_batched=True, create_graph=True
    )
    difference, spread = compared(evidence.errors, evidence.observed, predicted)
    stretch = _slope(difference, predicted)
    widening = _slope(2.0 * spread.log(), predicted)
    weight = stretch**2 / spread**2 + widening**2 / 2.0
    return torch.einsum("tnp,nt,tnq->npq", slopes, weight, slopes)


def estimate(
    model: PopulationModel, batch: Batch, observed: Observed, report: Report | None = None
) -> PopulationFit:
    """Typical values, spreads and errors under which the measurements are most probable.

    Args:
        model: what is to be estimated, and from where.
        batch: the patients.
        observed: their measurements, none below the limit of quantification.
        report: who watches.

    Raises:
        Refusal: values below the limit, starts that are not positive where they must be, or those
            of `Evidence`.
    """
    refuse_if_any(_not_estimable(model, observed))
    search = _Estimation(model, batch, observed, report)
    point = model.start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [point],
        lr=1.0,
        max_iter=EVALUATIONS,
        max_eval=EVALUATIONS,
        tolerance_grad=1e-4,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value, gradient = search.with_gradient(point.detach())
        point.grad = gradient
        return torch.tensor(value)

    optimiser.step(closure)  # type: ignore[no-untyped-call] # torch's
    return _result(search, point.detach())


class _Estimation:
    """The objective of a population with its exact gradient.

    Modes, and the covariances of the posteriors around them, are kept to start from.
    """

    def __init__(
        self, model: PopulationModel, batch: Batch, observed: Observed, report: Report | None
    ) -> None:
        self.model, self.batch, self.observed, self.report = model, batch, observed, report
        self.modes = torch.zeros(batch.patients, len(model.spreads), dtype=torch.float64)
        self.covariance: Tensor | None = None
        self.evaluations = 0

    def evidence(self, point: Tensor) -> Evidence:
        """The patients under these numbers, differentiable in them."""
        model = self.model
        numbers = torch.where(model.on_logarithm, point.exp(), point)
        count, spreads = len(model.typical), len(model.spreads)
        typical, deviations = numbers[:count], numbers[count : count + spreads]
        return Evidence(
            predict=lambda batch, effects, times, kinds: model.predict(
                typical, batch, effects, times, kinds
            ),
            covariance=torch.diag(deviations**2),
            errors=_errors(model.errors, numbers[count + spreads :]),
            batch=self.batch,
            observed=self.observed,
        )

    def with_gradient(self, point: Tensor) -> tuple[float, Tensor]:
        """The objective and its gradient at a point of the searched scale."""
        evidence = self.evidence(point.detach())
        mode = find_mode(evidence, begin=self.modes, covariance=self.covariance)
        self.modes, self.covariance = mode.effects, laplace(evidence, mode).covariance
        point = point.detach().requires_grad_(True)
        evidence = self.evidence(point)
        value = focei(evidence, _following(evidence, mode.effects)).sum()
        (gradient,) = torch.autograd.grad(value, point)
        self.evaluations += 1
        number = float(value.detach())
        if self.report is not None:
            self.report(self.evaluations, number)
        return number, gradient


def _following(evidence: Evidence, mode: Tensor) -> Tensor:
    """The modes as functions of whatever the evidence depends on: deta / dx = -H^-1 dg / dx."""
    still = mode.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(evidence.objective(still).sum(), still, create_graph=True)
    size = evidence.effects
    along = torch.eye(size, dtype=mode.dtype)[:, None, :].expand(size, *mode.shape)
    (rows,) = torch.autograd.grad(slope, still, along, is_grads_batched=True, retain_graph=True)
    step: Tensor = torch.linalg.solve(rows.transpose(0, 1).detach(), slope)
    return still - step


def _slope(of: Tensor, by: Tensor) -> Tensor:
    """How each number changes with its own prediction."""
    (found,) = torch.autograd.grad((of + 0.0 * by).sum(), by, create_graph=True)
    return found


def _errors(errors: tuple[ResidualError, ...], numbers: Tensor) -> tuple[_EstimatedError, ...]:
    """The errors with their estimated parts, in the order of the model's names."""
    left = list(numbers)
    zero = torch.zeros((), dtype=numbers.dtype)
    return tuple(
        _EstimatedError(
            convention=error.convention,
            additive=left.pop(0) if error.additive > 0.0 else zero,
            proportional=left.pop(0) if error.proportional > 0.0 else zero,
            at_zero=error.at_zero,
        )
        for error in errors
    )


def _result(search: _Estimation, point: Tensor) -> PopulationFit:
    model = search.model
    _, gradient = search.with_gradient(point)
    curvature = _second_derivatives(search, point)
    bottom = bool(torch.linalg.cholesky_ex(curvature).info == 0)
    if bottom:
        point = point - torch.linalg.solve(curvature, gradient)
        inverse = torch.linalg.inv(curvature)
    else:
        inverse = torch.full_like(curvature, torch.nan)
    value, gradient = search.with_gradient(point)
    variance = 2.0 * inverse.diagonal()
    distance = float((gradient @ inverse @ gradient / 2.0).clamp(min=0.0).sqrt())
    effects = search.modes
    logarithmic = model.on_logarithm
    estimates = torch.where(logarithmic, point.exp(), point)
    first = len(model.typical)
    spreads = estimates[first : first + len(model.spreads)]
    return PopulationFit(
        names=model.names,
        estimates=estimates,
        standard_errors=torch.where(logarithmic, estimates, 1.0) * variance.sqrt(),
        searched=point,
        searched_errors=variance.sqrt(),
        objective=value,
        effects=effects,
        shrinkage=1.0 - effects.std(dim=0) / spreads,
        converged=distance <= ARRIVED,
        distance=distance,
    )


def _second_derivatives(search: _Estimation, point: Tensor) -> Tensor:
    """By central differences of exact gradients, (parameters, parameters)."""
    rows = []
    for step in NUDGE * torch.eye(len(point), dtype=point.dtype):
        ahead, behind = search.with_gradient(point + step), search.with_gradient(point - step)
        rows.append((ahead[1] - behind[1]) / (2.0 * NUDGE))
    found = torch.stack(rows)
    return (found + found.mT) / 2.0


def _not_estimable(model: PopulationModel, observed: Observed) -> list[Problem]:
    problems = [
        Problem(
            field=name,
            value=f"{start:g}",
            allowed="above 0, because it is estimated on the logarithm",
        )
        for name, start in (
            *((one.name, one.start) for one in model.typical if one.positive),
            *((f"sd({name})", start) for name, start in model.spreads.items()),
        )
        if not 0.0 < start < float("inf")
    ]
    below = int((observed.below & observed.present).sum())
    if below:
        problems.append(
            Problem(
                field="observed.below",
                value=f"{below} measurements",
                allowed="none: their likelihood has no first-order expansion",
                remedy="leave them out (method M1), and say so",
            )
        )
    return problems
