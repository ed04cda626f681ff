"""What each regimen would do to a patient, as probabilities over everything that is not known.

For every draw of a model's belief, and every regimen, each target is computed; a probability is the
weight of the draws where it holds. Several models of one drug are mixed by their shares, and what
each of them says alone stays visible.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.advice.regimen import (
    Regimen,
    at_steady_state,
    doses_of,
    followed_by,
    interval_window,
    rows,
)
from fedtwin_twins.advice.targets import Range, Target, Window, range_of, reached
from fedtwin_twins.belief.forecast import weighted_quantiles
from fedtwin_twins.twin.batch import Batch, Traits
from fedtwin_twins.twin.model import TwinModel

ROWS_AT_ONCE = 10_000
"""Rows computed together; bounds the memory, and changes nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """One patient as one model sees them.

    Attributes:
        model: whose equations.
        batch: one row: all doses so far, and the traits.
        effects: (draws, effects), of the posterior.
        weights: (draws,), 0 or more.
        share: how far this model is believed among several.
    """

    model: TwinModel
    batch: Batch
    effects: Tensor
    weights: Tensor
    share: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Horizon:
    """When a regimen would start, and when its effect is judged.

    Attributes:
        start_h: first dose of the regimen, from the origin.
        judged_h: targets are judged in the last whole dosing interval that ends by then; none: at
            steady state, as if the regimen had been given for ever.
    """

    start_h: float
    judged_h: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Attainment:
    """How one target fares under one regimen.

    Attributes:
        target: which.
        limits: of the target, as numbers with a unit.
        inside: probability of lying in the range.
        below: of lying below it.
        above: of lying above it.
        middle: median of what is reached, in the limits' unit.
        band: 5 % and 95 % quantile of what is reached.
        by_model: what each model alone says of `inside`, by its name.
        middle_by_model: and of `middle`.
    """

    target: Target
    limits: Range
    inside: float
    below: float
    above: float
    middle: float
    band: tuple[float, float]
    by_model: dict[str, float]
    middle_by_model: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Assessment:
    """One regimen.

    Attributes:
        regimen: which.
        attainments: of each target, in the order that they were asked.
        all_inside: probability that every target is met at once.
    """

    regimen: Regimen
    attainments: tuple[Attainment, ...]
    all_inside: float


def assess(
    outlooks: Sequence[Outlook],
    regimens: Sequence[Regimen],
    targets: Sequence[Target],
    horizon: Horizon,
) -> list[Assessment]:
    """Every regimen against every target, in the order of the regimens.

    Args:
        outlooks: at least one; the same drug by different models.
        regimens: at least one.
        targets: at least one.
        horizon: when.

    Raises:
        Refusal: a route, observable or unit that a model does not know.
    """
    total = sum(one.share for one in outlooks)
    values = [[_values(one, regimens, target, horizon) for target in targets] for one in outlooks]
    ranges = [range_of(outlooks[0].model, target) for target in targets]
    found = []
    for place, regimen in enumerate(regimens):
        mixed = [
            _Mixture(
                [
                    (one.model.name, one.share / total, values[model][number][place], one.weights)
                    for model, one in enumerate(outlooks)
                ]
            )
            for number in range(len(targets))
        ]
        found.append(
            Assessment(
                regimen=regimen,
                attainments=tuple(
                    _attainment(target, limits, mixture)
                    for target, limits, mixture in zip(targets, ranges, mixed, strict=True)
                ),
                all_inside=_joint(mixed, ranges),
            )
        )
    return found


class _Mixture:
    """Draws of what is reached, of several models together."""

    def __init__(self, parts: list[tuple[str, float, Tensor, Tensor]]) -> None:
        self.names = [name for name, _, _, _ in parts]
        self.each = [(value, weight / weight.sum()) for _, _, value, weight in parts]
        self.values = torch.cat([value for value, _ in self.each])
        self.weights = torch.cat(
            [share * weight for (_, share, _, _), (_, weight) in zip(parts, self.each, strict=True)]
        )

    def quantile(self, level: float) -> float:
        return _quantile(self.values, self.weights, level)


def _quantile(values: Tensor, weights: Tensor, level: float) -> float:
    return float(weighted_quantiles(values[None, :, None], weights[None], [level])[0, 0, 0])


def _attainment(target: Target, limits: Range, mixture: _Mixture) -> Attainment:
    below = float(mixture.weights[mixture.values < limits.low].sum())
    above = float(mixture.weights[mixture.values > limits.high].sum())
    return Attainment(
        target=target,
        limits=limits,
        inside=max(0.0, 1.0 - below - above),
        below=below,
        above=above,
        middle=mixture.quantile(0.5),
        band=(mixture.quantile(0.05), mixture.quantile(0.95)),
        by_model={
            name: float(weight[_inside(value, limits)].sum())
            for name, (value, weight) in zip(mixture.names, mixture.each, strict=True)
        },
        middle_by_model={
            name: _quantile(value, weight, 0.5)
            for name, (value, weight) in zip(mixture.names, mixture.each, strict=True)
        },
    )


def _inside(values: Tensor, limits: Range) -> Tensor:
    return (values >= limits.low) & (values <= limits.high)


def _joint(mixtures: Sequence[_Mixture], ranges: Sequence[Range]) -> float:
    good = torch.ones_like(mixtures[0].values, dtype=torch.bool)
    for mixture, limits in zip(mixtures, ranges, strict=True):
        good &= _inside(mixture.values, limits)
    return float(mixtures[0].weights[good].sum())


def _values(
    outlook: Outlook, regimens: Sequence[Regimen], target: Target, horizon: Horizon
) -> Tensor:
    """(regimens, draws) of what is reached."""
    batch, window = _future(outlook, regimens, horizon)
    draws = outlook.effects.shape[0]
    parts = []
    for chosen in _chunks(len(regimens), max(1, ROWS_AT_ONCE // draws)):
        some = batch.where(chosen).repeated(draws)
        when = Window(
            start=window.start[chosen].repeat_interleave(draws),
            end=window.end[chosen].repeat_interleave(draws),
        )
        effects = outlook.effects.repeat(len(chosen), 1)
        with torch.no_grad():
            parts.append(reached(outlook.model, some, effects, target, when))
    return torch.cat(parts).reshape(len(regimens), draws)


def _chunks(count: int, size: int) -> Iterator[Tensor]:
    for start in range(0, count, size):
        yield torch.arange(start, min(start + size, count))


def _future(
    outlook: Outlook, regimens: Sequence[Regimen], horizon: Horizon
) -> tuple[Batch, Window]:
    """A row for each regimen."""
    if horizon.judged_h is None:
        doses, window = at_steady_state(outlook.model, regimens)
        traits = _latest(outlook.batch.traits, len(regimens))
        return Batch(doses=doses, traits=traits), window
    window = interval_window(regimens, horizon.start_h, horizon.judged_h)
    added = doses_of(outlook.model, regimens, horizon.start_h, float(window.end.max()))
    past = outlook.batch.where(torch.zeros(len(regimens), dtype=torch.int64))
    return followed_by(past, added), window


def _latest(traits: Traits, count: int) -> Traits:
    """The last span's values as if they had always been so."""
    last = int((traits.starts[0] < torch.inf).sum()) - 1
    own = slice(last, last + 1)
    return Traits(
        values={name: rows(value[:1, own], count) for name, value in traits.values.items()},
        starts=torch.full((count, 1), -torch.inf, dtype=torch.float64),
        occasions=rows(traits.occasions[:1, own], count),
    )
