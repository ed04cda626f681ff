"""What each regimen would do to a patient, as probabilities over everything that is not known.

For every draw of a model's belief, and every regimen, each target is computed; a probability is the
weight of the draws where it holds. Several models of one drug are mixed by their shares, and what
each of them says alone stays visible.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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
from fedtwin_twins.advice.targets import Curves, Range, Target, Window, range_of, reached_along
from fedtwin_twins.belief.forecast import weighted_quantiles
from fedtwin_twins.twin.batch import Batch, Traits
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.quantities import Quantity
from fedtwin_twins.twin.refusals import Problem, refuse_if_any

ROWS_AT_ONCE = 10_000
"""Rows computed together; bounds the memory, and changes nothing else."""
_NO_LIMIT = Quantity(0.0, "1")
"""Stands for a limit where only the quantity matters."""


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
        by_model: where there are several, what each model alone says of `inside`, by its name.
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
        harms: of each harmful exposure, in the order that they were asked.
        all_inside: probability that every target is met at once.
    """

    regimen: Regimen
    attainments: tuple[Attainment, ...]
    harms: tuple[Attainment, ...]
    all_inside: float


def assess(
    outlooks: Sequence[Outlook],
    regimens: Sequence[Regimen],
    targets: Sequence[Target],
    horizon: Horizon,
    harms: Sequence[Target] = (),
) -> list[Assessment]:
    """Every regimen against every target, in the order of the regimens.

    Args:
        outlooks: at least one; the same drug by different models.
        regimens: at least one.
        targets: at least one.
        horizon: when.
        harms: exposures that are to be known too, and that no target asks for.

    Raises:
        Refusal: a route, observable or unit that a model does not know, or a draw that counts and
            for which a model gives no finite number: it must not pass for harmless.
    """
    total = sum(one.share for one in outlooks)
    asked = [*targets, *harms]
    known = [_all_values(one, regimens, asked, horizon) for one in outlooks]
    ranges = [range_of(outlooks[0].model, target) for target in asked]
    found = []
    for place, regimen in enumerate(regimens):
        mixtures = [
            _Mixture(
                [one.model.name for one in outlooks],
                [one.share / total for one in outlooks],
                [values[number][place] for values in known],
                [one.weights / one.weights.sum() for one in outlooks],
            )
            for number in range(len(asked))
        ]
        each = tuple(map(_attainment, asked, ranges, mixtures))
        found.append(
            Assessment(
                regimen=regimen,
                attainments=each[: len(targets)],
                harms=each[len(targets) :],
                all_inside=_joint(mixtures[: len(targets)], ranges),
            )
        )
    return found


class _Mixture:
    """Draws of what is reached, of several models together."""

    def __init__(
        self, names: list[str], shares: list[float], values: list[Tensor], weights: list[Tensor]
    ) -> None:
        self.values = torch.cat(values)
        self.weights = torch.cat(
            [share * weight for share, weight in zip(shares, weights, strict=True)]
        )
        self.alone = {
            name: (value, weight)
            for name, value, weight in zip(names, values, weights, strict=True)
        }


def quantiles_of(values: Tensor, weights: Tensor, levels: Sequence[float]) -> list[float]:
    """Quantiles of weighted draws, each (draws,)."""
    found = weighted_quantiles(values[None, :, None], weights[None], levels)
    return [float(one) for one in found[0, 0]]


def _attainment(target: Target, limits: Range, mixture: _Mixture) -> Attainment:
    below = float(mixture.weights[mixture.values < limits.low].sum())
    above = float(mixture.weights[mixture.values > limits.high].sum())
    low, middle, high = quantiles_of(mixture.values, mixture.weights, (0.05, 0.5, 0.95))
    several = mixture.alone if len(mixture.alone) > 1 else {}
    middles = {name: quantiles_of(*one, (0.5,))[0] for name, one in several.items()}
    inside = {name: float(one[1][_inside(one[0], limits)].sum()) for name, one in several.items()}
    return Attainment(
        target=target,
        limits=limits,
        inside=max(0.0, 1.0 - below - above),
        below=below,
        above=above,
        middle=middle,
        band=(low, high),
        by_model=inside,
        middle_by_model=middles,
    )


def _inside(values: Tensor, limits: Range) -> Tensor:
    return (values >= limits.low) & (values <= limits.high)


def _joint(mixtures: Sequence[_Mixture], ranges: Sequence[Range]) -> float:
    good = torch.ones_like(mixtures[0].values, dtype=torch.bool)
    for mixture, limits in zip(mixtures, ranges, strict=False):
        good &= _inside(mixture.values, limits)
    return float(mixtures[0].weights[good].sum())


def _all_values(
    outlook: Outlook, regimens: Sequence[Regimen], targets: Sequence[Target], horizon: Horizon
) -> list[Tensor]:
    """What is reached of each target, (regimens, draws); the same quantity is computed once."""
    quantities = [replace(target, low=_NO_LIMIT, high=None, source="") for target in targets]
    different = list(dict.fromkeys(quantities))
    found = _each_reached(outlook, regimens, different, horizon)
    known = dict(zip(different, found, strict=True))
    return [known[one] for one in quantities]


def reached_by(
    outlook: Outlook, regimens: Sequence[Regimen], target: Target, horizon: Horizon
) -> Tensor:
    """(regimens, draws) of what is reached, in the target's unit.

    Raises:
        Refusal: a route, observable or unit that the model does not know.
    """
    return _each_reached(outlook, regimens, [target], horizon)[0]


def _each_reached(
    outlook: Outlook, regimens: Sequence[Regimen], targets: Sequence[Target], horizon: Horizon
) -> list[Tensor]:
    """The same for several targets, each (regimens, draws)."""
    batch, window = future(outlook, regimens, horizon)
    draws = outlook.effects.shape[0]
    parts: list[list[Tensor]] = [[] for _ in targets]
    for chosen in _chunks(len(regimens), max(1, ROWS_AT_ONCE // draws)):
        some = batch.where(chosen).repeated(draws)
        when = Window(
            start=window.start[chosen].repeat_interleave(draws),
            end=window.end[chosen].repeat_interleave(draws),
        )
        effects = outlook.effects.repeat(len(chosen), 1)
        curves = Curves(model=outlook.model, batch=some, effects=effects, window=when)
        with torch.no_grad():
            for place, target in enumerate(targets):
                parts[place].append(reached_along(curves, target))
    found = [torch.cat(one).reshape(len(regimens), draws) for one in parts]
    for target, values in zip(targets, found, strict=True):
        _refuse_no_numbers(outlook, regimens, target, values)
    return found


def _refuse_no_numbers(
    outlook: Outlook, regimens: Sequence[Regimen], target: Target, found: Tensor
) -> None:
    lost = (~found.isfinite() & (outlook.weights > 0)).sum(dim=1)
    refuse_if_any(
        Problem(
            field=f"{target.kind} under {regimen}",
            value=f"no finite number for {int(count)} of {found.shape[1]} draws",
            allowed="a number for every draw",
            remedy=f"{outlook.model.name} cannot be asked for this regimen: leave either out",
        )
        for regimen, count in zip(regimens, lost, strict=True)
        if count
    )


def _chunks(count: int, size: int) -> Iterator[Tensor]:
    for start in range(0, count, size):
        yield torch.arange(start, min(start + size, count))


def future(outlook: Outlook, regimens: Sequence[Regimen], horizon: Horizon) -> tuple[Batch, Window]:
    """The patient under each regimen, a row for each, and when it is judged."""
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
