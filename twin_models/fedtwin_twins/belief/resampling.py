"""Draws from each patient's posterior, by importance sampling around its mode.

Proposals come from Student's t with 5 degrees of freedom, with the Laplace covariance times 1.3 as
its scale: wider than the posterior, so that no part of it is missed. Each carries the weight by
which the posterior's density exceeds the proposal's. The effective sample size, 1 / sum of squared
weights (Kong, Liu and Wong, JASA 1994;89:278), says how many independent draws they are worth.

The standardised proposals are the same points for all patients: a scrambled Sobol net (Owen 1998)
of the seed. So a patient's draws do not change with who else is in the batch, and two schedules
or two models are compared on the same draws. Averages over many patients must bear in mind that
their draws go together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.belief.laplace import Laplace
from fedtwin_twins.belief.likelihood import Evidence
from fedtwin_twins.belief.nets import scrambled_normal

DRAWS: Final = 1024
"""How many, unless said otherwise: a power of 2, as nets are built."""
DEGREES_OF_FREEDOM: Final = 5
WIDER: Final = 1.3
"""The proposal's scale matrix, as a multiple of the Laplace covariance."""
GOOD: Final = 0.4
"""An effective sample size of such a part of the draws needs no better proposal."""
ROUNDS: Final = 3
"""Better proposals, at most."""
KEPT: Final = 0.5
"""The part of a proposal's covariance that the next one keeps."""
ROWS: Final = 65536
"""Draws that are looked at together: memory stays flat."""
ENOUGH: Final = 100.0
"""The effective sample size under which a band is not to be believed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """Weighted draws.

    Attributes:
        effects: (patients, draws, effects).
        weights: (patients, draws), each row's sum 1.
        effective: the effective sample size, (patients,); 0 where no draw is possible.
    """

    effects: Tensor
    weights: Tensor
    effective: Tensor


def draw(
    evidence: Evidence, around: Laplace, generator: torch.Generator, *, draws: int = DRAWS
) -> Draws:
    """Weighted draws from the posterior of each patient.

    Where few of them count, the proposal moves to the mean and the covariance that the draws found
    so far, and all are drawn anew (Cappé et al., J Comput Graph Stat 2004;13:907); the best round
    stands.

    Args:
        evidence: patients and their measurements.
        around: their Laplace approximations.
        generator: the only source of chance.
        draws: how many for each patient, best a power of 2.
    """
    standard, log_density = standard_draws(generator, draws, evidence.effects)
    found = _drawn(evidence, around.mode, around.spread, standard, log_density)
    scale = around.covariance.clone()
    for _ in range(ROUNDS):
        poor = (found.effective < GOOD * draws).nonzero()[:, 0]
        if not len(poor):
            break
        mean, scale[poor] = _moments(found, poor, scale[poor])
        spread = torch.linalg.cholesky(scale[poor])
        again = _drawn(evidence.where(poor), mean, spread, standard, log_density)
        better = again.effective > found.effective[poor]
        for name in ("effects", "weights", "effective"):
            getattr(found, name)[poor[better]] = getattr(again, name)[better]
    return found


def standard_draws(generator: torch.Generator, draws: int, effects: int) -> tuple[Tensor, Tensor]:
    """Standardised proposals (draws, effects), and the log of their density up to a constant."""
    normal = scrambled_normal(generator, draws, effects + DEGREES_OF_FREEDOM)
    chi_square = (normal[:, effects:] ** 2).sum(dim=1, keepdim=True)
    standard = normal[:, :effects] * (DEGREES_OF_FREEDOM / chi_square).sqrt()
    distance = (standard**2).sum(dim=1)
    power = (DEGREES_OF_FREEDOM + effects) / 2.0
    return standard, -power * torch.log1p(distance / DEGREES_OF_FREEDOM)


def resampled(found: Draws, generator: torch.Generator, *, draws: int) -> Tensor:
    """Draws of equal weight, (patients, draws, effects), by systematic resampling.

    One offset serves all patients (Kitagawa, J Comput Graph Stat 1996;5:1, algorithm A.2.3).
    """
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    marks = (torch.arange(draws, dtype=torch.float64) + offset) / draws
    cumulative = found.weights.cumsum(dim=1)
    places = torch.searchsorted(cumulative, marks.expand(len(cumulative), -1).contiguous())
    places = places.clamp(max=found.weights.shape[1] - 1)
    return found.effects.take_along_dim(places[:, :, None], dim=1)


def pieces(count: int, size: int) -> Iterator[Tensor]:
    """The places 0 to `count`, at most `size` (or one) at a time."""
    for start in range(0, count, max(1, size)):
        yield torch.arange(start, min(start + max(1, size), count))


def _drawn(
    evidence: Evidence, centre: Tensor, spread: Tensor, standard: Tensor, log_density: Tensor
) -> Draws:
    draws = len(standard)
    effects = centre[:, None, :] + WIDER**0.5 * standard @ spread.mT
    heights = []
    with torch.no_grad():
        for rows in pieces(evidence.patients, ROWS // draws):
            part = evidence.where(rows).repeated(draws)
            value = part.objective(effects[rows].reshape(-1, evidence.effects))
            heights.append(-value.view(len(rows), draws) / 2.0)
    log_weight = torch.cat(heights) - log_density
    log_weight = torch.where(log_weight.isfinite(), log_weight, -torch.inf)
    possible = log_weight.isfinite().any(dim=1, keepdim=True)
    weights = torch.where(possible, log_weight, 0.0).softmax(dim=1)
    effective = torch.where(possible[:, 0], 1.0 / (weights**2).sum(dim=1), 0.0)
    return Draws(effects=effects, weights=weights, effective=effective)


def _moments(found: Draws, chosen: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the weighted draws, and their covariance with a part of the proposal's own.

    A few heavy draws tell nothing of some directions: the proposal's own keeps them open.
    """
    weights, effects = found.weights[chosen], found.effects[chosen]
    mean = (weights[:, :, None] * effects).sum(dim=1)
    apart = effects - mean[:, None, :]
    covariance = (weights[:, :, None] * apart).mT @ apart
    return mean, (1.0 - KEPT) * covariance + KEPT * scale
