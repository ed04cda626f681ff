"""What will be measured of patients, as quantiles over time under doses yet to come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.nets import scrambled_normal
from fedtwin_twins.belief.posterior import Posterior
from fedtwin_twins.belief.resampling import pieces
from fedtwin_twins.twin.batch import Batch
from fedtwin_twins.twin.model import TwinModel
from fedtwin_twins.twin.residuals import ResidualError

LEVELS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles, unless others are asked for."""
NUMBERS: Final = 2**19
"""Predictions that are held together: memory stays flat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """Quantiles over time.

    Attributes:
        times: h, (patients, times).
        levels: of the quantiles, ascending.
        quantiles: (patients, times, levels), in the observables' units.
        point: at the mode, with effects of 0 in occasions to come, (patients, times).
    """

    times: Tensor
    levels: tuple[float, ...]
    quantiles: Tensor
    point: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What is to be foretold.

    Attributes:
        times: h, (patients, times), in any order.
        kind: the observable's place.
        with_error: as it will be measured; without, the truth.
        levels: quantiles, between 0 and 1.
    """

    times: Tensor
    kind: int = 0
    with_error: bool = False
    levels: Sequence[float] = LEVELS


def forecast(
    model: TwinModel, posterior: Posterior, batch: Batch, asked: Asked, generator: torch.Generator
) -> Forecast:
    """Quantiles of an observable over time.

    Args:
        model: the one that was fitted.
        posterior: beliefs about the patients.
        batch: the same patients with all doses that count, past and future. Occasions beyond the
            fitted ones vary as the population does.
        asked: what is to be foretold.
        generator: the only source of chance.
    """
    parts = [
        weighted_quantiles(values, posterior.weights[rows], asked.levels)
        for rows, values in _in_parts(model, posterior, batch, asked, generator)
    ]
    with torch.no_grad():
        point = model.predict(batch, posterior.mode, asked.times, asked.kind)
    return Forecast(
        times=asked.times,
        levels=tuple(asked.levels),
        quantiles=_assembled(parts, asked.times.shape[1]),
        point=point,
    )


def predicted_draws(
    model: TwinModel, posterior: Posterior, batch: Batch, asked: Asked, generator: torch.Generator
) -> Tensor:
    """Every draw's observable over time, (patients, draws, times); see `forecast`.

    The weights are the posterior's. All of it is held at once.
    """
    parts = [values.mT for _, values in _in_parts(model, posterior, batch, asked, generator)]
    return _assembled(parts, asked.times.shape[1]).mT


def future_effects(
    model: TwinModel, posterior: Posterior, batch: Batch, generator: torch.Generator
) -> Tensor:
    """The draws, with effects of occasions that the batch holds beyond the fitted ones.

    Returns:
        (patients, draws, effects); of new occasions drawn from the prior, the same for all
        patients.
    """
    occasions = int(batch.traits.occasions.max()) + 1 if model.occasion_effects else 0
    if occasions <= posterior.occasions:
        return posterior.draws
    known = posterior.mode.shape[1]
    new = model.prior(occasions)[known:, known:]
    patients, draws, _ = posterior.draws.shape
    normal = scrambled_normal(generator, draws, len(new))
    fresh = normal @ torch.linalg.cholesky(new).mT
    return torch.cat([posterior.draws, fresh.expand(patients, -1, -1)], dim=2)


def weighted_quantiles(values: Tensor, weights: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles of weighted draws, interpolated between the middles of their weights.

    Args:
        values: (patients, draws, times).
        weights: (patients, draws), each row's sum 1.
        levels: between 0 and 1.

    Returns:
        (patients, times, levels).
    """
    ordered, order = values.mT.contiguous().sort(dim=2)
    mine = weights[:, None, :].expand_as(order).gather(2, order)
    middles = mine.cumsum(dim=2) - mine / 2.0
    wanted = torch.tensor(levels, dtype=values.dtype).expand(*middles.shape[:2], -1).contiguous()
    above = torch.searchsorted(middles, wanted).clamp(1, middles.shape[2] - 1)
    low, high = middles.gather(2, above - 1), middles.gather(2, above)
    part = ((wanted - low) / (high - low).clamp(min=1e-300)).clamp(0.0, 1.0)
    return torch.lerp(ordered.gather(2, above - 1), ordered.gather(2, above), part)


def _in_parts(
    model: TwinModel, posterior: Posterior, batch: Batch, asked: Asked, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Places of some patients, and every draw's values at some of their times.

    The times of the same patients follow one another.
    """
    effects = future_effects(model, posterior, batch, generator)
    _, draws, size = effects.shape
    count = asked.times.shape[1]
    together = max(1, min(count, NUMBERS // draws))
    error = model.observables[asked.kind].error
    noise = torch.randn(draws, count, generator=generator, dtype=torch.float64)
    for rows in pieces(posterior.patients, NUMBERS // (draws * together)):
        many = batch.where(rows).repeated(draws)
        mine = effects[rows].reshape(-1, size)
        for places in pieces(count, together):
            times = asked.times[rows][:, places].repeat_interleave(draws, dim=0)
            with torch.no_grad():
                values = model.predict(many, mine, times, asked.kind)
            values = values.view(len(rows), draws, -1)
            yield rows, _measured(values, error, noise[:, places]) if asked.with_error else values


def _measured(truth: Tensor, error: ResidualError, noise: Tensor) -> Tensor:
    """The truth with an error of measurement."""
    measured = error.scaled(truth) + error.deviation(truth) * noise
    return measured.exp() if error.convention == "on_logarithm" else measured


def _assembled(parts: Sequence[Tensor], times: int) -> Tensor:
    """Parts (some patients, some times, …) as one tensor (patients, times, …)."""
    rows: list[Tensor] = []
    row: list[Tensor] = []
    width = 0
    for part in parts:
        row.append(part)
        width += part.shape[1]
        if width == times:
            rows.append(torch.cat(row, dim=1))
            row, width = [], 0
    return torch.cat(rows)
