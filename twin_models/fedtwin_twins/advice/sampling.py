"""When the next level is worth most: the hour that explains most of what is not known of a target.

With z a draw's target under a regimen, y(t) its predicted level in the scale in which the assay
errs, and s(t) the deviation of that error, the part of the variance of z that a level at t explains
linearly is

    cov(y, z)^2 / (var(z) (var(y) + mean(s^2)))

over the weighted draws: the squared correlation of the target with the level as it will be
measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtwin_twins.advice.assessment import Horizon, Outlook, reached_by
from fedtwin_twins.advice.regimen import Regimen, doses_of, followed_by
from fedtwin_twins.advice.targets import Target, place_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Informative:
    """One hour for a level.

    Attributes:
        hour: from the origin.
        explained: part of the target's variance, 0 to 1.
    """

    hour: float
    explained: float


def most_informative(
    outlook: Outlook,
    regimen: Regimen,
    target: Target,
    horizon: Horizon,
    hours: Sequence[float],
) -> Informative:
    """The best of some hours for one more level under a regimen.

    Args:
        outlook: the patient by one model.
        regimen: that is given from the horizon's start.
        target: whose value is to be known better.
        horizon: when the regimen starts, and when the target is judged.
        hours: to choose from, at least one, from the start on; the first of equals is taken.
    """
    model, draws = outlook.model, outlook.effects.shape[0]
    wanted = reached_by(outlook, [regimen], target, horizon)[0]
    added = doses_of(model, [regimen], horizon.start_h, max(*hours, horizon.start_h + 1.0))
    batch = followed_by(outlook.batch, added).repeated(draws)
    times = torch.tensor([list(hours)], dtype=torch.float64).expand(draws, -1)
    place = place_of(model, target.observable)
    with torch.no_grad():
        truth = model.predict(batch, outlook.effects, times, place)
    error = model.observables[place].error
    noise = error.deviation(truth) ** 2
    explained = _explained(error.scaled(truth), noise, wanted, outlook.weights)
    best = int(explained.argmax())
    return Informative(hour=float(hours[best]), explained=float(explained[best]))


def _explained(levels: Tensor, noise: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """(hours,) from levels and noise (draws, hours), wanted and weights (draws,)."""
    share = (weights / weights.sum())[:, None]
    apart = levels - (share * levels).sum(dim=0)
    off = (wanted - (share[:, 0] * wanted).sum())[:, None]
    together = (share * apart * off).sum(dim=0) ** 2
    spread = (share * off**2).sum() * (share * (apart**2 + noise)).sum(dim=0)
    tiny = torch.finfo(levels.dtype).tiny
    return torch.where(spread > tiny, together / spread.clamp(min=tiny), 0.0)
