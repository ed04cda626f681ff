"""What insulin and meals do to glucose over time, in closed form between events.

Insulin under the skin, in plasma and in its three actions is a linear chain, and so is a meal in
the gut (equations in `glucose_insulin`). With a = 1/tI, g = a/(VI W), u mU/min running in under the
skin and v mU/L/min into plasma, s1 = S1 - u/a fades as e^(-a t), s2 = S2 - u/a becomes (s2 + a t
s1) e^(-a t), and what is left of each later stage after what it takes from those before is a single
exponential:

    I  = z + p s1 + q s2 + (g u/a + v)/ke,                z' = -ke z
    xi = w + P s1 + Q s2 + R z + Si (g u/a + v)/ke,       w' = -kai w

    q = g/(ke - a),  p = -a q/(ke - a),  R = kai Si/(kai - ke),
    Q = kai Si q/(kai - a),  P = (kai Si p - a Q)/(kai - a)

A dose changes s1, z or d1, a rate that changes also s2 and d2; I and xi go on without a jump, save
for insulin into plasma. Times here are minutes, tensors (times or events, patients), so that what
stands side by side in memory is one moment of all patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
ACTIONS: Final = ("transport", "disposal", "production")
APART: Final = 3e-4
"""Rates closer than this part of each other are taken for so far apart: errors are as small."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entries:
    """What goes in at each event, in order of time.

    Attributes:
        time: min, (events, patients), or (events, 1) if the same for all.
        insulin: under the skin at once, mU, (events, patients), as all that follow.
        insulin_rate: change of what runs in under the skin, mU/min.
        plasma: into plasma at once, mU/L.
        plasma_rate: change of what runs into plasma, mU/L/min.
        meal: glucose into the gut at once, mmol.
        meal_rate: change of what runs into the gut, mmol/min.
    """

    time: Tensor
    insulin: Tensor
    insulin_rate: Tensor
    plasma: Tensor
    plasma_rate: Tensor
    meal: Tensor
    meal_rate: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """What glucose is driven by.

    Attributes:
        time: min, of events; see `Entries`.
        faded: after each event what fades as one exponential: s1, z, w of each action, d1,
            (6, events, patients).
        rates: of those, /min, (6, patients).
        second: s2 and d2 after each event, (2, events, patients).
        level: of plasma's insulin in the long run at the rates that run in, mU/L, and what runs
            into the gut, mmol/min, (2, events, patients).
        shares: p and q of plasma's insulin, (2, patients); P, Q and R of each action, (3, 3,
            patients); their sensitivities, (3, patients).
    """

    time: Tensor
    faded: Tensor
    rates: Tensor
    second: Tensor
    level: Tensor
    shares: tuple[Tensor, Tensor, Tensor]

    def insulin(self, times: Tensor, *, event_first: bool = False) -> Tensor:
        """In plasma, mU/L, (times, patients)."""
        at = self._at(times, event_first)
        shares, _, _ = self.shares
        return at.fading(1) + shares[0] * at.first(0) + shares[1] * at.next(0) + at.level(0)

    def actions(self, times: Tensor) -> list[Tensor]:
        """Of insulin: on transport and disposal, /min, and on production; (times, patients)."""
        at = self._at(times, event_first=True)
        first, second, plasma, level = at.first(0), at.next(0), at.fading(1), at.level(0)
        _, shares, sensitivities = self.shares
        return [
            at.fading(2 + place)
            + shares[place, 0] * first
            + shares[place, 1] * second
            + shares[place, 2] * plasma
            + sensitivities[place] * level
            for place in range(len(ACTIONS))
        ]

    def absorbed(self, times: Tensor) -> Tensor:
        """Glucose out of the gut, mmol/min, (times, patients)."""
        at = self._at(times, event_first=True)
        return self.rates[5] * at.next(1) + at.level(1)

    def where(self, rows: Tensor) -> "Signals":
        """Of some of the patients, by place."""
        return Signals(
            time=self.time if self.time.shape[1] == 1 else self.time[:, rows],
            faded=self.faded[..., rows],
            rates=self.rates[..., rows],
            second=self.second[..., rows],
            level=self.level[..., rows],
            shares=(
                self.shares[0][..., rows],
                self.shares[1][..., rows],
                self.shares[2][..., rows],
            ),
        )

    def _at(self, times: Tensor, event_first: bool) -> "_Moments":
        rows, asked = self.time.t().contiguous(), times.detach().t().contiguous()
        if rows.shape[0] != asked.shape[0]:
            rows = rows.expand(asked.shape[0], -1).contiguous() if rows.shape[0] == 1 else rows
            asked = asked.expand(rows.shape[0], -1).contiguous()
        place = torch.searchsorted(rows, asked, right=event_first).sub(1).clamp(min=0).t()
        elapsed = (times - picked(self.time, place)).clamp(min=0.0)
        return _Moments(signals=self, place=place, elapsed=elapsed)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Moments:
    """Signals at some times: by the last event before each, and the minutes since."""

    signals: Signals
    place: Tensor
    elapsed: Tensor

    def fading(self, number: int) -> Tensor:
        return self._pick(self.signals.faded[number]) * self._decay(number)

    def first(self, chain: int) -> Tensor:
        return self.fading(5 * chain)

    def next(self, chain: int) -> Tensor:
        """The chain's second stage, less what runs through it."""
        number = 5 * chain
        ahead = self.signals.rates[number] * self.elapsed * self._pick(self.signals.faded[number])
        return (self._pick(self.signals.second[chain]) + ahead) * self._decay(number)

    def level(self, number: int) -> Tensor:
        return self._pick(self.signals.level[number])

    def _decay(self, number: int) -> Tensor:
        return (-self.signals.rates[number] * self.elapsed).exp()

    def _pick(self, values: Tensor) -> Tensor:
        return picked(values, self.place)


def picked(values: Tensor, place: Tensor) -> Tensor:
    """(times, patients) of (events, patients or 1) at places (times, patients or 1)."""
    if place.shape[1] == 1:
        return values.index_select(0, place[:, 0])
    return values.expand(-1, place.shape[1]).gather(0, place)


def signals(entries: Entries, by: Values, level: Tensor) -> Signals:
    """The course of everything before glucose.

    Args:
        entries: what goes in; the first event is the beginning.
        by: parameters in the units of `structures`, each (patients,).
        level: of plasma's insulin at the beginning, at rest, mU/L, (patients,).
    """
    skin, gut = 1.0 / by["insulin_time_to_peak"], 1.0 / by["carbohydrate_time_to_peak"]
    gain = skin / (by["insulin_volume"] * by["body_weight"])
    plasma = _apart(by["insulin_elimination_rate"], skin)
    actions = [_apart(_apart(by[f"{one}_deactivation_rate"], skin), plasma) for one in ACTIONS]
    sensitivities = torch.stack([by[f"{one}_insulin_sensitivity"] for one in ACTIONS])
    shares = _shares(skin, gain, plasma, actions, sensitivities)
    rates = torch.stack([skin, plasma, *actions, gut])
    jumps, second = _jumps(entries, (skin, gain, plasma, gut), shares)
    steady = gain / skin * entries.insulin_rate + entries.plasma_rate
    running = torch.stack([(steady / plasma).cumsum(0), entries.meal_rate.cumsum(0)])
    rest = _at_rest(level, plasma, gain, shares)
    faded, second = _gone_through(entries.time, rates, (jumps, second), rest)
    return Signals(
        time=entries.time,
        faded=faded,
        rates=rates,
        second=second,
        level=running,
        shares=shares,
    )


def _apart(rate: Tensor, other: Tensor) -> Tensor:
    """The rate, moved off another that it all but equals: partial fractions need them apart."""
    ratio = rate / other - 1.0
    moved = other * (1.0 + torch.where(ratio < 0, -APART, APART))
    return torch.where(ratio.abs() < APART, moved, rate)


def _shares(
    skin: Tensor, gain: Tensor, plasma: Tensor, actions: Sequence[Tensor], sensitivities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    second = gain / (plasma - skin)
    first = -skin * second / (plasma - skin)
    found = []
    for rate, sensitivity in zip(actions, sensitivities, strict=True):
        force = rate * sensitivity
        from_second = force * second / (rate - skin)
        from_first = (force * first - skin * from_second) / (rate - skin)
        found.append(torch.stack([from_first, from_second, force / (rate - plasma)]))
    return torch.stack([first, second]), torch.stack(found), sensitivities


def _jumps(
    entries: Entries,
    rates: tuple[Tensor, Tensor, Tensor, Tensor],
    shares: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """By how much each event changes what fades, and the second stages."""
    skin, gain, plasma, gut = rates
    (from_first, from_second), actions, sensitivities = shares
    change, change_gut = entries.insulin_rate / skin, entries.meal_rate / gut
    first, second = entries.insulin - change, -change
    level = (gain * change + entries.plasma_rate) / plasma
    left = entries.plasma - from_first * first - from_second * second - level
    parts = [
        -(own[0] * first + own[1] * second + own[2] * left + sensitivity * level)
        for own, sensitivity in zip(actions, sensitivities, strict=True)
    ]
    fading = torch.stack([first, left, *parts, entries.meal - change_gut])
    return fading, torch.stack([second, -change_gut])


def _at_rest(
    level: Tensor, plasma: Tensor, gain: Tensor, shares: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """What fades, and the second stages, of the basal insulin that has held a level until now."""
    (from_first, from_second), actions, sensitivities = shares
    depot = plasma * level / gain
    left = level - (from_first + from_second) * depot
    parts = [
        sensitivity * level - (own[0] + own[1]) * depot - own[2] * left
        for own, sensitivity in zip(actions, sensitivities, strict=True)
    ]
    nothing = torch.zeros_like(depot)
    return torch.stack([depot, left, *parts, nothing]), torch.stack([depot, nothing])


def _gone_through(
    time: Tensor, rates: Tensor, jumps: tuple[Tensor, Tensor], rest: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """What fades and the second stages after each event, (6 and 2, events, patients)."""
    gaps = torch.nn.functional.pad(time.diff(dim=0), (0, 0, 1, 0))
    spans = rates[:, None] * gaps
    decays = (-spans).exp().unbind(1)
    ahead, both = spans[::5].unbind(1), [one[::5] for one in decays]
    faded, second = rest
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for place, (jump, later) in enumerate(zip(jumps[0].unbind(1), jumps[1].unbind(1), strict=True)):
        second = torch.addcmul(later, torch.addcmul(second, ahead[place], faded[::5]), both[place])
        faded = torch.addcmul(jump, faded, decays[place])
        found[0].append(faded)
        found[1].append(second)
    return torch.stack(found[0], 1), torch.stack(found[1], 1)
