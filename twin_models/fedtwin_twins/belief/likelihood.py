"""How well effects agree with what was measured and with the population: one number per patient.

For the effects eta of one patient, with f what the model says, v the variance of the error and
Omega the prior's covariance, the objective is NONMEM's, less its constants:

    sum over measurements of [(y - f)^2 / v + ln v]  +  flattening * eta' Omega^-1 eta

It is twice the negative logarithm of the posterior's density, up to a constant. A value that is
known only to lie below the limit of quantification L gives -2 ln Phi((L - f) / sqrt(v)) instead:
method M3 of Beal, J Pharmacokinet Pharmacodyn 2001;28:481.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from typing import Final, Protocol

import torch
from torch import Tensor

from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.refusals import Problem, Refusal, refuse_if_any
from fedtwin_twins.twin.residuals import Convention

Predict = Callable[[Batch, Tensor, Tensor, Tensor], Tensor]
"""Patients, effects (patients, effects), times and kinds to the truth: as `TwinModel.predict`."""


class ErrorModel(Protocol):
    """What is asked of an error: `ResidualError`, or one whose parts are being estimated."""

    @property
    def convention(self) -> Convention:
        """Which formula."""

    def scaled(self, predicted: Tensor) -> Tensor:
        """What is compared."""

    def deviation(self, predicted: Tensor) -> Tensor:
        """The standard deviation on the compared scale."""


CERTAIN: Final = 36.0
"""So many deviations below the limit, a value below it is certain (1 - Phi < 1e-283)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContaminatedNormal:
    """Errors of which a share is wider than the assay's: a slip, a wrong time, a wrong patient.

    Tukey, in: Contributions to Probability and Statistics, Stanford 1960, p. 448.

    Attributes:
        share: of such measurements, above 0 and below 1/2.
        widening: their sd as a multiple of the assay's, above 1.

    Raises:
        Refusal: a number outside its range.
    """

    share: float = 0.05
    widening: float = 10.0

    def __post_init__(self) -> None:
        problems = []
        if not 0.0 < self.share < 0.5:
            problems.append(_outside("outliers.share", self.share, "above 0, below 0.5"))
        if not 1.0 < self.widening < float("inf"):
            problems.append(_outside("outliers.widening", self.widening, "above 1"))
        refuse_if_any(problems)

    def density_term(self, residual: Tensor) -> Tensor:
        """-2 ln of the standardised density, less the constant ln 2 pi."""
        usual = log(1.0 - self.share) - residual**2 / 2.0
        wide = log(self.share / self.widening) - (residual / self.widening) ** 2 / 2.0
        return -2.0 * _log_sum(usual, wide)

    def below_term(self, residual: Tensor) -> Tensor:
        """-2 ln of the chance to lie below, so many deviations above the prediction."""
        usual = log(1.0 - self.share) + _log_normal_below(residual)
        wide = log(self.share) + _log_normal_below(residual / self.widening)
        return -2.0 * _log_sum(usual, wide)

    def chance(self, residual: Tensor) -> Tensor:
        """The chance that a measurement so many deviations off is one of the wide ones."""
        usual = log(1.0 - self.share) - residual**2 / 2.0
        wide = log(self.share / self.widening) - (residual / self.widening) ** 2 / 2.0
        return torch.sigmoid(wide - usual)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Patients, what was measured of them, and what is held against it.

    Attributes:
        predict: the model's equations, differentiable in the effects twice.
        covariance: the prior's Omega, (effects, effects).
        errors: of each observable, in the order of the kinds.
        batch: the patients.
        observed: in any order; empty slots count for nothing.
        flattening: the weight of the prior: 1 as published, towards 0 the data alone (mapbayr's
            lambda; Hughes and Keizer, CPT Pharmacometrics Syst Pharmacol 2021;10:1150).
        outliers: errors that are expected to hold slips; none: normal as the model says.

    Raises:
        Refusal: a covariance that is none, a measurement that is not a number, of an unknown kind
            or not above 0 under an error on the logarithm, or sizes that disagree.
    """

    predict: Predict
    covariance: Tensor
    errors: tuple[ErrorModel, ...]
    batch: Batch
    observed: Observed
    flattening: float = 1.0
    outliers: ContaminatedNormal | None = None

    def __post_init__(self) -> None:
        if self.observed.time.shape[0] != self.batch.patients:
            raise Refusal(
                Problem(
                    field="observed",
                    value=f"{self.observed.time.shape[0]} patients",
                    allowed=f"{self.batch.patients}, as many as have doses and traits",
                )
            )
        if not 0.0 < self.flattening <= 1.0:
            raise Refusal(_outside("flattening", self.flattening, "above 0, at most 1"))
        _refuse_no_covariance(self.covariance)
        refuse_if_any(_wrong_values(self.observed, self.errors))

    @property
    def patients(self) -> int:
        """How many."""
        return self.batch.patients

    @property
    def effects(self) -> int:
        """How many numbers one patient's row of effects has."""
        return int(self.covariance.shape[0])

    def where(self, chosen: Tensor) -> "Evidence":
        """Some of the patients, by place or mark."""
        return replace(self, batch=self.batch.where(chosen), observed=self.observed.where(chosen))

    def repeated(self, times: int) -> "Evidence":
        """Every patient `times` times in a row."""
        rows = torch.arange(self.patients).repeat_interleave(times)
        return replace(self, batch=self.batch.repeated(times), observed=self.observed.where(rows))

    def predicted(self, effects: Tensor) -> Tensor:
        """What the model says of each measurement, (patients, observations)."""
        return self.predict(self.batch, effects, self.observed.time, self.observed.kind)

    def terms(self, effects: Tensor) -> Tensor:
        """Each measurement's share of the objective, (patients, observations); 0 where empty."""
        residual, log_variance = standardised(self.errors, self.observed, self.predicted(effects))
        measured, below = (
            _normal_terms
            if self.outliers is None
            else (
                self.outliers.density_term,
                self.outliers.below_term,
            )
        )
        term = measured(residual) + log_variance
        if bool(self.observed.below.any()):
            censored = self.observed.below & self.observed.present
            at_limit = torch.where(censored, residual, 0.0)
            term = torch.where(censored, below(at_limit), term)
        return torch.where(self.observed.present, term, 0.0)

    def objective(self, effects: Tensor) -> Tensor:
        """The objective of each patient, (patients,), at effects (patients, effects)."""
        factor = torch.linalg.cholesky(self.covariance)
        whitened: Tensor = torch.linalg.solve_triangular(factor, effects.mT, upper=False)
        return self.terms(effects).sum(dim=1) + self.flattening * (whitened**2).sum(dim=0)


def evidence_of(
    model: TwinModel,
    batch: Batch,
    observed: Observed,
    *,
    flattening: float = 1.0,
    outliers: ContaminatedNormal | None = None,
) -> Evidence:
    """What a published model and a patient's record say together.

    Where the model varies between occasions, the effects hold a part for each occasion of the
    traits.

    Raises:
        Refusal: see `Evidence`.
    """
    occasions = int(batch.traits.occasions.max()) + 1 if model.occasion_effects else 0
    return Evidence(
        predict=model.predict,
        covariance=model.prior(occasions),
        errors=tuple(one.error for one in model.observables),
        batch=batch,
        observed=observed,
        flattening=flattening,
        outliers=outliers,
    )


def standardised(
    errors: tuple[ErrorModel, ...], observed: Observed, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """How many deviations each measurement lies above the model, and ln v; 0 in empty slots.

    Where a value is below the limit of quantification, it is the limit that is compared.

    Args:
        errors: by kind.
        observed: the measurements.
        predicted: what the model says of them, (patients, observations).

    Returns:
        Two tensors of shape (patients, observations).
    """
    difference, spread = compared(errors, observed, predicted)
    return difference / spread, 2.0 * spread.log()


def compared(
    errors: tuple[ErrorModel, ...], observed: Observed, predicted: Tensor
) -> tuple[Tensor, Tensor]:
    """Measurement less model on the compared scale, and the deviation; 0 and 1 in empty slots."""
    difference, spread = torch.zeros_like(predicted), torch.ones_like(predicted)
    for kind, error in enumerate(errors):
        mine = observed.present & (observed.kind == kind)
        # The gradient of what is not looked at must be a number, too.
        said = torch.where(mine, predicted, 1.0)
        seen = torch.where(mine, observed.value, 1.0)
        difference = torch.where(mine, error.scaled(seen) - error.scaled(said), difference)
        spread = torch.where(mine, error.deviation(said), spread)
    return difference, spread


def _square(residual: Tensor) -> Tensor:
    return residual**2


def _below(residual: Tensor) -> Tensor:
    return _log_normal_below(residual) * -2.0


_normal_terms: Final = (_square, _below)


def _log_normal_below(residual: Tensor) -> Tensor:
    """Ln Phi, with derivatives that stay finite far out on both sides."""
    found: Tensor = torch.special.log_ndtr(residual.clamp(max=CERTAIN))
    return found


def _log_sum(first: Tensor, second: Tensor) -> Tensor:
    """Ln (e^first + e^second), whose second derivatives stay finite as `logaddexp`'s do not."""
    return first + torch.nn.functional.softplus(second - first, threshold=CERTAIN)


def _outside(field: str, value: float, allowed: str) -> Problem:
    return Problem(field=field, value=f"{value:g}", allowed=allowed)


def _wrong_values(observed: Observed, errors: tuple[ErrorModel, ...]) -> list[Problem]:
    """One problem for every filled slot that cannot be compared with the model."""
    known = (observed.kind >= 0) & (observed.kind < len(errors))
    finite = observed.value.isfinite() & observed.time.isfinite()
    positive = torch.ones_like(known)
    for kind, error in enumerate(errors):
        if error.convention == "on_logarithm":
            positive &= (observed.kind != kind) | (observed.value > 0.0)
    if bool((known & finite & positive | ~observed.present).all()):
        return []
    checks = (
        (known, "kind", f"0 to {len(errors) - 1}, the model's observables", observed.kind),
        (finite, "value", "a finite number at a finite time", observed.value),
        (positive, "value", "above 0, because its error is on the logarithm", observed.value),
    )
    return [
        Problem(
            field=f"observed[{patient}, {place}].{field}",
            value=f"{values[patient, place].item():g}",
            allowed=allowed,
        )
        for good, field, allowed, values in checks
        for patient, place in (observed.present & ~good).nonzero().tolist()
    ]


def _refuse_no_covariance(covariance: Tensor) -> None:
    square = covariance.ndim == 2 and covariance.shape[0] == covariance.shape[1] > 0
    if not square or bool(torch.linalg.cholesky_ex(covariance).info > 0):
        raise Refusal(
            Problem(
                field="prior covariance",
                value="not positive definite" if square else f"{tuple(covariance.shape)}",
                allowed="a symmetric, positive definite matrix of one effect or more",
                remedy="an effect that does not vary is left out of the model's effects",
            )
        )
