"""What is believed of patients once their measurements are in, with the doubts about it."""

from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.hills import doubtful, find_hills, rows_of
from fedtwin_twins.belief.laplace import Laplace, laplace
from fedtwin_twins.belief.likelihood import ContaminatedNormal, Evidence, evidence_of
from fedtwin_twins.belief.misfit import FAR, SURPRISING, Fit, check_fit
from fedtwin_twins.belief.mode import Mode, find_mode
from fedtwin_twins.belief.resampling import (
    DRAWS,
    ENOUGH,
    Draws,
    Net,
    around_one,
    draw_with,
    standard_draws,
)
from fedtwin_twins.twin.batch import Batch, Observed
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.refusals import Problem

Cautions = tuple[Problem, ...]
SEVERAL: Final = 0.05
"""Other sets of effects that hold such a share of the posterior are pointed out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Posterior:
    """Beliefs about the effects of each patient.

    Attributes:
        effects: names of the columns; those of an occasion end in its place, `clearance[2]`.
        occasions: for how many the effects hold a part.
        mode: the most probable effects, (patients, effects).
        covariance: of the normal approximation there, (patients, effects, effects).
        draws: (patients, draws, effects).
        weights: of the draws, (patients, draws), each row's sum 1.
        effective_sample_size: how many independent draws those are worth, (patients,).
        objective: at the mode, see `likelihood`, (patients,).
        marginal: -2 ln of the probability of the measurements with the effects integrated out by
            Laplace's method, less the same constants, (patients,).
        shrinkage: the posterior's variance over the prior's for each effect, (patients, effects):
            1 where only the population speaks, 0 where the data decide (Combes et al., Pharm Res
            2013;30:2355).
        fit: of each measurement and of all together.
        cautions: what a reader must know, for each patient.
    """

    effects: tuple[str, ...]
    occasions: int
    mode: Tensor
    covariance: Tensor
    draws: Tensor
    weights: Tensor
    effective_sample_size: Tensor
    objective: Tensor
    marginal: Tensor
    shrinkage: Tensor
    fit: Fit
    cautions: tuple[Cautions, ...]

    @property
    def patients(self) -> int:
        """How many."""
        return int(self.mode.shape[0])

    @property
    def misfit_p(self) -> Tensor:
        """How probable data as odd as these are under the model, (patients,)."""
        return self.fit.p

    @property
    def mean(self) -> Tensor:
        """Of the draws, (patients, effects)."""
        return (self.weights[:, :, None] * self.draws).sum(dim=1)

    def unfit(self, patient: int = 0) -> Cautions:
        """Why this belief must not carry advice; nothing where it may.

        There is no number, too few draws count, or the data do not fit the model.
        """
        if not bool(self.objective[patient].isfinite()):
            return (_NO_NUMBER,)
        found = []
        effective, p = float(self.effective_sample_size[patient]), float(self.fit.p[patient])
        if effective < ENOUGH:
            found.append(_few_draws(effective))
        if p < SURPRISING:
            found.append(_misfit(p))
        return tuple(found)

    def where(self, chosen: Tensor) -> "Posterior":
        """Some of the patients, by place or mark."""
        places = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen
        names = (
            *("mode", "covariance", "draws", "weights", "effective_sample_size"),
            *("objective", "marginal", "shrinkage"),
        )
        fit = Fit(
            residual=self.fit.residual[places],
            far=self.fit.far[places],
            prior_p=self.fit.prior_p[places],
            posterior_p=self.fit.posterior_p[places],
        )
        return replace(
            self,
            fit=fit,
            cautions=tuple(self.cautions[place] for place in places.tolist()),
            **{name: getattr(self, name)[places] for name in names},
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """How a belief is come by.

    Attributes:
        draws: for each patient, best a power of 2.
        starts: see `find_mode`; whose posterior looks as if it had another hill is searched from
            more of them in any case, see `hills`.
        flattening: the prior's weight, see `Evidence`.
        outliers: see `Evidence`.
    """

    draws: int = DRAWS
    starts: int = 1
    flattening: float = 1.0
    outliers: ContaminatedNormal | None = None


USUAL: Final = Inference()


def infer(
    model: TwinModel,
    batch: Batch,
    observed: Observed,
    generator: torch.Generator,
    how: Inference = USUAL,
) -> Posterior:
    """What a model believes of patients after their measurements.

    Measurements may come in any order, late or not at all. The same seed gives each patient the
    same answer, whoever else is asked for.

    Args:
        model: with its prior.
        batch: doses and traits of the patients up to the last measurement.
        observed: what was measured.
        generator: the only source of chance.
        how: if not as usual.

    Raises:
        Refusal: see `Evidence`.
    """
    evidence = evidence_of(model, batch, observed, flattening=how.flattening, outliers=how.outliers)
    per_occasion = len(model.occasion_effects)
    occasions = (evidence.effects - len(model.effects)) // per_occasion if per_occasion else 0
    names = (
        *model.effects,
        *(f"{name}[{place}]" for place in range(occasions) for name in model.occasion_effects),
    )
    return infer_from(evidence, names, occasions, generator, how)


def infer_from(
    evidence: Evidence,
    effects: tuple[str, ...],
    occasions: int,
    generator: torch.Generator,
    how: Inference = USUAL,
) -> Posterior:
    """The same for any equations and prior.

    Args:
        evidence: equations, prior, patients and measurements.
        effects: names of the effects.
        occasions: for how many of them the effects hold a part.
        generator: the only source of chance.
        how: draws and starts; the evidence brings its own prior's weight and outliers.
    """
    net = standard_draws(generator, how.draws, evidence.effects)
    mode = find_mode(evidence, starts=how.starts)
    around = laplace(evidence, mode)
    drawn = draw_with(net, evidence, around_one(around))
    fit = check_fit(evidence, mode.effects, drawn)
    seen = _Seen(
        mode=mode,
        around=around,
        drawn=drawn,
        fit=fit,
        share=torch.zeros_like(mode.objective),
        mass=torch.zeros_like(mode.objective),
    )
    again = doubtful(mode, around, drawn, fit).nonzero()[:, 0]
    if len(again):
        _look_again(seen, evidence, net, again)
    variance = around.covariance.diagonal(dim1=1, dim2=2)
    return Posterior(
        effects=effects,
        occasions=occasions,
        mode=mode.effects,
        covariance=around.covariance,
        draws=drawn.effects,
        weights=drawn.weights,
        effective_sample_size=drawn.effective,
        objective=mode.objective,
        marginal=mode.objective + around.log_determinant + seen.mass,
        shrinkage=variance / evidence.covariance.diagonal(),
        fit=fit,
        cautions=_cautions(evidence, seen),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What was found of each patient so far.

    Attributes:
        share: of the posterior that other hills than the mode's hold, (patients,).
        mass: see `Hills`, (patients,).
    """

    mode: Mode
    around: Laplace
    drawn: Draws
    fit: Fit
    share: Tensor
    mass: Tensor


def _look_again(seen: _Seen, evidence: Evidence, net: Net, doubted: Tensor) -> None:
    """Search once more for some of the patients, and write down what is news of them."""
    some = evidence.where(doubted)
    hills = find_hills(some, rows_of(seen.mode, doubted), rows_of(seen.drawn, doubted))
    news = hills.news.nonzero()[:, 0]
    if not len(news):
        return
    some, rows = some.where(news), doubted[news]
    mode = rows_of(hills.mode, news)
    drawn = draw_with(net, some, rows_of(hills.around, news))
    for whole, part in (
        (seen.mode, mode),
        (seen.around, laplace(some, mode)),
        (seen.drawn, drawn),
        (seen.fit, check_fit(some, mode.effects, drawn)),
    ):
        for one in fields(whole):
            getattr(whole, one.name)[rows] = getattr(part, one.name)
    seen.share[rows] = 1.0 - hills.share[news, 0]
    seen.mass[rows] = hills.mass[news]


def _cautions(evidence: Evidence, seen: _Seen) -> tuple[Cautions, ...]:
    """What a reader must know of each patient."""
    mode, around, drawn, fit = seen.mode, seen.around, seen.drawn, seen.fit
    finite = mode.objective.isfinite()
    some = evidence.observed.present.any(dim=1)
    doubts = (
        (~finite, _NO_NUMBER),
        (finite & ~mode.converged, _NOT_CONVERGED),
        (finite & ~around.sound, _NO_PEAK),
        (~some, _NO_DATA),
    )
    found: list[list[Problem]] = [[] for _ in range(evidence.patients)]
    for marks, problem in doubts:
        for patient in marks.nonzero()[:, 0].tolist():
            found[patient].append(problem)
    for patient in (seen.share >= SEVERAL).nonzero()[:, 0].tolist():
        found[patient].append(_several(float(seen.share[patient])))
    for patient in (finite & (drawn.effective < ENOUGH)).nonzero()[:, 0].tolist():
        found[patient].append(_few_draws(float(drawn.effective[patient])))
    for patient in (finite & (fit.p < SURPRISING)).nonzero()[:, 0].tolist():
        found[patient].append(_misfit(float(fit.p[patient])))
    for patient, place in (fit.far & finite[:, None]).nonzero().tolist():
        found[patient].append(
            _far(
                place,
                float(evidence.observed.value[patient, place]),
                float(fit.residual[patient, place]),
            )
        )
    return tuple(tuple(problems) for problems in found)


_NO_NUMBER = Problem(
    field="posterior",
    value="not a number",
    allowed="finite predictions of every measurement at the population's parameters",
    remedy="compare times of doses and measurements, and the covariates",
)
_NOT_CONVERGED = Problem(
    field="mode",
    value="not reached",
    allowed="a search that ends",
    remedy="search from several starts, or compare the measurements with the doses",
)
_NO_PEAK = Problem(
    field="curvature at the mode",
    value="not that of a peak",
    allowed="a single most probable set of parameters",
    remedy="read the drawn bands, not the covariance",
)
_NO_DATA = Problem(
    field="observed",
    allowed="at least one measurement",
    remedy="without any, this is the population's belief and not the patient's",
)


def _several(share: float) -> Problem:
    return Problem(
        field="mode",
        value=f"one of several: others hold about {share:.0%} of what is believed",
        allowed="a single most probable set of parameters",
        remedy="read the drawn bands, which hold all of them; a level at another hour may tell "
        "them apart",
    )


def _few_draws(effective: float) -> Problem:
    return Problem(
        field="effective sample size",
        value=f"{effective:.0f}",
        allowed=f"{ENOUGH:.0f} or more",
        remedy="do not rely on the bands; ask for more draws",
    )


def _misfit(p: float) -> Problem:
    return Problem(
        field="fit",
        value=f"p = {p:.2g}",
        allowed=f"p of {SURPRISING:g} or more",
        remedy="the data do not fit this model: check times, doses and units, or use another model",
    )


def _far(place: int, value: float, residual: float) -> Problem:
    return Problem(
        field=f"observed[{place}]",
        value=f"{value:g}, {abs(residual):.1f} sd {'above' if residual > 0 else 'below'} the model",
        allowed=f"within {FAR:g} sd",
        remedy="check this measurement and its time",
    )
