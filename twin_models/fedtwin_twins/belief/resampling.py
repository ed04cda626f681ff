"""Draws from each patient's posterior, by importance sampling around its mode.

Proposals come from Student's t with 5 degrees of freedom, with the Laplace covariance times 1.3 as
its scale: wider than the posterior, so that no part of it is missed. Each carries the weight by
which the posterior's density exceeds the proposal's. The effective sample size, 1 / sum of squared
weights (Kong, Liu and Wong, JASA 1994;89:278), says how many independent draws they are worth.

The standardised proposals are the same points for all patients: a scrambled Sobol net (Owen 1998)
of the seed. So a patient's draws do not change with who else is in the batch, and two schedules
or two models are compared on the same draws. Averages over many patients must bear in mind that
their draws go together.

Where the posterior has several hills (`hills`), the proposals come from all of them in turn, and
their density is the mixture's.
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
        first_effective: the effective sample size before any better proposal, (patients,).
        best: the draw with the lowest objective, (patients, effects).
        least: the objective there, (patients,); infinite where no draw is possible.
    """

    effects: Tensor
    weights: Tensor
    effective: Tensor
    first_effective: Tensor
    best: Tensor
    least: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What the proposals lie around.

    Attributes:
        centres: (patients, hills, effects).
        spreads: square roots of the covariances, (patients, hills, effects, effects).
    """

    centres: Tensor
    spreads: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Net:
    """Standardised proposals of a seed: the same for all patients.

    Attributes:
        standard: (draws, effects).
        log_density: up to a constant, (draws,).
    """

    standard: Tensor
    log_density: Tensor


def draw(
    evidence: Evidence, around: Laplace, generator: torch.Generator, *, draws: int = DRAWS
) -> Draws:
    """Weighted draws from the posterior of each patient.

    Args:
        evidence: patients and their measurements.
        around: their Laplace approximations.
        generator: the only source of chance.
        draws: how many for each patient, best a power of 2.
    """
    net = standard_draws(generator, draws, evidence.effects)
    return draw_with(net, evidence, around_one(around))


def around_one(around: Laplace) -> Around:
    """A single hill."""
    return Around(centres=around.mode[:, None], spreads=around.spread[:, None])


def draw_with(net: Net, evidence: Evidence, around: Around) -> Draws:
    """The same from one or several hills, with standardised proposals that are there already.

    Where few of them count, the proposal moves to the mean and the covariance that the draws found
    so far, and all are drawn anew (Cappé et al., J Comput Graph Stat 2004;13:907); the best round
    stands.
    """
    draws = len(net.standard)
    found = _drawn(evidence, around, net)
    spread = around.spreads[:, 0]
    scale = spread @ spread.mT
    for _ in range(ROUNDS):
        poor = (found.effective < GOOD * draws).nonzero()[:, 0]
        if not len(poor):
            break
        mean, scale[poor] = _moments(found, poor, scale[poor])
        moved = Around(centres=mean[:, None], spreads=torch.linalg.cholesky(scale[poor])[:, None])
        again = _drawn(evidence.where(poor), moved, net)
        better = again.effective > found.effective[poor]
        for name in ("effects", "weights", "effective"):
            getattr(found, name)[poor[better]] = getattr(again, name)[better]
        lower = again.least < found.least[poor]
        for name in ("best", "least"):
            getattr(found, name)[poor[lower]] = getattr(again, name)[lower]
    return found


def standard_draws(generator: torch.Generator, draws: int, effects: int) -> Net:
    """Standardised proposals, with the log of their density."""
    normal = scrambled_normal(generator, draws, effects + DEGREES_OF_FREEDOM)
    chi_square = (normal[:, effects:] ** 2).sum(dim=1, keepdim=True)
    standard = normal[:, :effects] * (DEGREES_OF_FREEDOM / chi_square).sqrt()
    return Net(standard=standard, log_density=_log_density(standard))


def _log_density(standard: Tensor) -> Tensor:
    """Of Student's t up to a constant, (…,), at (…, effects)."""
    power = (DEGREES_OF_FREEDOM + standard.shape[-1]) / 2.0
    return -power * torch.log1p((standard**2).sum(dim=-1) / DEGREES_OF_FREEDOM)


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


def _drawn(evidence: Evidence, around: Around, net: Net) -> Draws:
    draws = len(net.standard)
    effects, log_density = _proposed(around, net)
    heights = []
    with torch.no_grad():
        for rows in pieces(evidence.patients, ROWS // draws):
            part = evidence.where(rows).repeated(draws)
            value = part.objective(effects[rows].reshape(-1, evidence.effects))
            heights.append(value.view(len(rows), draws))
    height = torch.cat(heights).nan_to_num(nan=torch.inf, posinf=torch.inf)
    log_weight = -height / 2.0 - log_density
    log_weight = torch.where(log_weight.isfinite(), log_weight, -torch.inf)
    possible = log_weight.isfinite().any(dim=1, keepdim=True)
    weights = torch.where(possible, log_weight, 0.0).softmax(dim=1)
    effective = torch.where(possible[:, 0], 1.0 / (weights**2).sum(dim=1), 0.0)
    least, place = height.min(dim=1)
    return Draws(
        effects=effects,
        weights=weights,
        effective=effective,
        first_effective=effective.clone(),
        best=effects[torch.arange(len(place)), place],
        least=least,
    )


def _proposed(around: Around, net: Net) -> tuple[Tensor, Tensor]:
    """Effects, (patients, draws, effects), and their log density, (patients or 1, draws)."""
    hills = around.centres.shape[1]
    wide = WIDER**0.5 * around.spreads
    if hills == 1:
        return around.centres + net.standard @ wide[:, 0].mT, net.log_density[None]
    draws = len(net.standard)
    effects = around.centres.new_empty(len(wide), draws, net.standard.shape[1])
    for hill in range(hills):
        mine = net.standard[hill::hills]
        effects[:, hill::hills] = around.centres[:, hill, None] + mine @ wide[:, hill].mT
    each = []
    for hill in range(hills):
        apart = (effects - around.centres[:, hill, None]).mT
        back = torch.linalg.solve(wide[:, hill], apart).mT
        size = torch.linalg.slogdet(wide[:, hill]).logabsdet
        each.append(_log_density(back) - size[:, None])
    return effects, torch.stack(each).logsumexp(dim=0)


def _moments(found: Draws, chosen: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the weighted draws, and their covariance with a part of the proposal's own.

    A few heavy draws tell nothing of some directions: the proposal's own keeps them open.
    """
    weights, effects = found.weights[chosen], found.effects[chosen]
    mean = (weights[:, :, None] * effects).sum(dim=1)
    apart = effects - mean[:, None, :]
    covariance = (weights[:, :, None] * apart).mT @ apart
    return mean, (1.0 - KEPT) * covariance + KEPT * scale
