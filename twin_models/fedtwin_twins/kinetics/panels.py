"""Time cut into pieces between events, and each piece into panels with Gauss points.

Panels are narrow at first, in proportion to the fastest rate, and then grow, because what is fast
fades first; they never outgrow the fastest loss. Long pieces are cut, so that patients with long
gaps do not make everybody's pieces long.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedtwin_twins.kinetics.events import of_rows

POINTS = 3
"""Gauss points in a panel: exact for polynomials up to degree 5."""
FIRST = 0.5
"""Width of the first panel, in units of 1/(fastest rate)."""
GROWTH = 2.0
"""Width of a panel as a multiple of the one before it, for `TOLERANCE`."""
WIDEST = 1.0
"""Width of the widest panel, in units of 1/(fastest loss)."""
TOLERANCE = 1e-5
"""Relative error of the responses for which the widths above are meant."""
CUTS = 10
"""How often the longest piece may be halved."""


def _rule() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, weights, and weights of the integrals up to each point, on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(POINTS)
    points, weights = (points + 1) / 2, weights / 2
    powers = np.arange(POINTS)
    until = points[:, None] ** (powers + 1) / (powers + 1)
    return points, weights, until @ np.linalg.inv(points[:, None] ** powers)


NODES, WEIGHTS, UNTIL = _rule()


@dataclass(frozen=True, slots=True)
class Rates:
    """What decides how fine panels must be.

    Attributes:
        fastest: 1/h, of absorption and disposition.
        loss: 1/h, of the responses.
        stages: the longest absorption chain: what it delivers does not fade before it is through.
        tolerance: relative error of the responses that is accepted.
        onset: 1/h, at which a concentration comes to where a response bends; 0: it bends nowhere.
        fading: 1/h, at which it comes back through there.
    """

    fastest: float
    loss: float
    stages: int
    tolerance: float = TOLERANCE
    onset: float = 0.0
    fading: float = 0.0

    @property
    def wider(self) -> float:
        """Width and growth of panels over those for `TOLERANCE`: errors grow by its power of 6."""
        return float((self.tolerance / TOLERANCE) ** (1 / (2 * POINTS)))


def edges(length: float, rates: Rates) -> np.ndarray:
    """Fractions of a piece at which its panels begin and end, (panels + 1,)."""
    first = rates.wider * FIRST / max(rates.fastest, rates.onset)
    widest = rates.wider * WIDEST / max(rates.loss, rates.fading)
    width = min(first, widest)
    found = [0.0]
    while found[-1] < length:
        found.append(found[-1] + width)
        if found[-1] >= 2 * rates.stages / rates.fastest:
            width = min(width * (1 + (GROWTH - 1) * rates.wider), widest)
    return np.array(found) / found[-1]


@dataclass(frozen=True, slots=True)
class Pieces:
    """Each tensor (patients, pieces), (1, pieces) for all; unused ones, of length 0, stand behind.

    Attributes:
        begin: h.
        length: h.
        place: the event that each follows.
        edges: of its panels, as `edges`.
    """

    begin: Tensor
    length: Tensor
    place: Tensor
    edges: np.ndarray

    def some(self, rows: slice) -> "Pieces":
        """Of some of the patients."""
        return Pieces(
            of_rows(self.begin, rows),
            of_rows(self.length, rows),
            of_rows(self.place, rows),
            self.edges,
        )


def pieces(time: Tensor, since: float, horizon: Tensor, rates: Rates) -> Pieces:
    """Between events, from an hour to a horizon.

    Args:
        time: h, of events, (patients, events), ascending.
        since: h.
        horizon: h, (patients, 1).
        rates: see there.
    """
    low = time.clamp(min=since)
    high = torch.cat([time[:, 1:], torch.maximum(horizon, time[:, -1:])], 1).clamp(min=since)
    gap = high - low
    known = gap.detach()
    longest = _longest(known, rates)
    count = (known / longest - 1e-9).ceil().clamp(min=0.0)
    last = count.cumsum(1)
    total = last[:, -1:]
    most = max(1, int(total.max()))
    slot = torch.arange(most, dtype=time.dtype, device=time.device)
    slots = slot.expand(time.shape[0], most).contiguous()
    place = torch.searchsorted(last, slots, right=True).clamp(max=time.shape[1] - 1)
    within = slots - (last - count).gather(1, place)
    size = (gap / count.clamp(min=1.0)).gather(1, place)
    used = slots < total
    begin = torch.where(used, low.gather(1, place) + within * size, horizon.clamp(min=since))
    return Pieces(begin, torch.where(used, size, 0.0), place, edges(longest, rates))


def _longest(gap: Tensor, rates: Rates) -> float:
    """The longest that a piece may be: what makes pieces times panels fewest."""
    whole = max(float(gap.max()), 1e-6)
    options = [whole / 2.0**cut for cut in range(CUTS)]

    def panels(longest: float) -> float:
        most = float((gap / longest - 1e-9).ceil().clamp(min=0.0).sum(1).max())
        return most * float(len(edges(longest, rates)) - 1)

    return min(options, key=panels)
