"""Glucose in its two spaces, stepped through time by the classical Runge-Kutta method of order 4.

    dQ1/dt = c - (x1 + s) Q1 + k12 Q2 - l,    dQ2/dt = x1 Q1 - b Q2

with the drive c, x1 and b known beforehand at the ends and middles of steps, and a loss s Q1 + l
that is straight between three bends: none below 0, in proportion to Q1 below `knee`, constant above
it, and rising once more above `spill` (tissue without insulin, and kidneys).

One after another, a step costs the same for one patient as for thousands. Where few are asked, or
derivatives are wanted, all steps are taken at once: between bends a step is an affine map of
(Q1, Q2), and maps are composed pairwise. On which side of the bends each stage of each step lies is
found by repetition; each repetition settles at least the first stage that was not yet settled, and
what it ends with are the very steps that are taken one after another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from fedtwin_twins.kinetics.lengths import all_alike
from fedtwin_twins.kinetics.steps import cut
from fedtwin_twins.pharmacology.insulin_signals import picked

STEP: Final = 2.5
"""Minutes, the longest step."""
COARSE: Final = 1.0
"""Step x fastest rate above which steps must be finer: errors stay below 0.001 mmol/L."""
FEW: Final = 24
"""Patients up to whom all steps at once are quicker than one after another."""
ROUNDING: Final = 1e-13
"""Relative change of glucose that is none: it may flip a stage that lies on a bend for ever."""
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drive:
    """What moves glucose, each (2 steps + 1, patients): at the ends and middles of steps.

    Attributes:
        made: c, mmol/min.
        moved: x1, /min.
        left: b, k12 + x2, /min.
    """

    made: Tensor
    moved: Tensor
    left: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """The bent loss, and the way back, each (patients,).

    Attributes:
        used: by tissue above the knee, mmol/min.
        knee: of Q1, mmol.
        spilled: by the kidneys, /min of what lies above.
        spill: of Q1, mmol.
        back: k12, /min.
    """

    used: Tensor
    knee: Tensor
    spilled: Tensor
    spill: Tensor
    back: Tensor

    def lines(self, first: Tensor) -> Pair:
        """Slope s and constant l where Q1 lies."""
        below, above = (first > 0) & (first < self.knee), first > self.spill
        slope = below * (self.used / self.knee) + above * self.spilled
        constant = (first >= self.knee) * self.used - above * (self.spilled * self.spill)
        return slope, constant


def fastest(drive: Drive, losses: Losses) -> Tensor:
    """A bound of every rate, /min, (patients,)."""
    known = (drive.moved + drive.left).detach().amax(0)
    return known + (losses.used / losses.knee + losses.spilled).detach()


def walk(start: Pair, drive: Drive, losses: Losses, widths: Tensor) -> Pair:
    """Q1 and Q2 at the beginning and after each step, (steps + 1, patients).

    Args:
        start: each (patients,).
        drive: at the ends and middles of the steps.
        losses: of the patients.
        widths: of the steps, min, (steps, patients), or (steps, 1) if the same for all.
    """
    parts = (drive.made, drive.moved, drive.left, losses.back, *start)
    if drive.made.shape[1] <= FEW or any(one.requires_grad for one in parts):
        return _at_once(start, drive, losses, widths)
    return _one_by_one(start, drive, losses, widths)


def slopes(state: Pair, drive: Drive, losses: Losses) -> Tensor:
    """DQ1/dt at the ends of steps, (steps + 1, patients), for states of the same shape."""
    first, second = state
    slope, constant = losses.lines(first.detach())
    moved, made = drive.moved[::2], drive.made[::2]
    return made - constant - (moved + slope) * first + losses.back * second


def grid(events: Tensor, asked: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """Ends of steps, (steps + 1, patients or 1), and widths, min; none reaches over an event."""
    last = asked.amax(0, keepdim=True).expand(1, max(events.shape[1], asked.shape[1]))
    before = torch.minimum(events, last)
    moments = torch.cat([torch.zeros_like(last), before, last]).t().contiguous()
    _, first, size = cut(moments, all_alike(step))
    # Who has arrived before the others stands still.
    ends = torch.cat([torch.where(size > 0, first, moments[:, -1:]), moments[:, -1:]], 1)
    return ends.t().contiguous(), size.t().contiguous()


def between(values: Tensor, slope: Tensor, nodes: Tensor, asked: Tensor) -> Tensor:
    """At asked times, (times, patients), by Hermite's cubic between nodes."""
    if nodes.shape[0] == 1:
        return values.expand(asked.shape[0], -1)
    rows = max(nodes.shape[1], asked.shape[1])
    inner, times = nodes[1:-1].expand(-1, rows), asked.expand(-1, rows)
    place = torch.searchsorted(inner.t().contiguous(), times.t().contiguous(), right=True).t()
    before, width = picked(nodes, place), picked(nodes.diff(dim=0), place)
    part = ((times - before) / torch.where(width > 0, width, 1.0)).clamp(0.0, 1.0)
    low, high = picked(values, place), picked(values, place + 1)
    risen, from_low, from_high = high - low, picked(slope, place), picked(slope, place + 1)
    bend = (from_low * width - risen) * (1.0 - part) + (risen - from_high * width) * part
    return low + part * (risen + (1.0 - part) * bend)


def _one_by_one(start: Pair, drive: Drive, losses: Losses, widths: Tensor) -> Pair:
    made, moved, left = (one.unbind(0) for one in (drive.made, drive.moved, drive.left))
    sizes: Sequence[Tensor | float] = widths.unbind(0)
    if widths.shape[1] == 1:
        sizes = widths[:, 0].tolist()
    per_unit = losses.used / losses.knee

    def change(place: int, first: Tensor, second: Tensor) -> Pair:
        exchanged = moved[place] * first
        used = per_unit * torch.minimum(first, losses.knee).clamp_(min=0.0)
        spilled = losses.spilled * (first - losses.spill).clamp_(min=0.0)
        gained = torch.addcmul(made[place], losses.back, second)
        return (
            gained.sub_(exchanged).sub_(used).sub_(spilled),
            torch.addcmul(exchanged, left[place], second, value=-1.0),
        )

    first, second = start
    found = ([first], [second])
    for number, size in enumerate(sizes):
        place = 2 * number
        one = change(place, first, second)
        two = change(place + 1, *_onwards((first, second), size / 2, one))
        three = change(place + 1, *_onwards((first, second), size / 2, two))
        four = change(place + 2, *_onwards((first, second), size, three))
        total = [
            a.add_(d).add_(b.add_(c), alpha=2.0)
            for a, b, c, d in zip(one, two, three, four, strict=True)
        ]
        first, second = _onwards((first, second), size / 6, (total[0], total[1]))
        found[0].append(first)
        found[1].append(second)
    return torch.stack(found[0]), torch.stack(found[1])


def _onwards(state: Pair, size: Tensor | float, rates: Pair) -> Pair:
    if isinstance(size, float):
        return state[0].add(rates[0], alpha=size), state[1].add(rates[1], alpha=size)
    return torch.addcmul(state[0], size, rates[0]), torch.addcmul(state[1], size, rates[1])


@dataclass(frozen=True, slots=True)
class _Map:
    """(Q1, Q2) as m1 Q1 + m2 Q2 + m3 of another, each (3, steps, patients)."""

    first: Tensor
    second: Tensor

    def after(self, earlier: "_Map") -> "_Map":
        """What both make, the earlier one first."""
        return _Map(*(self._row(row, earlier) for row in (self.first, self.second)))

    @staticmethod
    def _row(row: Tensor, earlier: "_Map") -> Tensor:
        found = row[0] * earlier.first + row[1] * earlier.second
        return torch.cat([found[:2], found[2:] + row[2:]])

    def of(self, first: Tensor, second: Tensor) -> Pair:
        """The states that it makes."""
        return (
            self.first[0] * first + self.first[1] * second + self.first[2],
            self.second[0] * first + self.second[1] * second + self.second[2],
        )


def _at_once(start: Pair, drive: Drive, losses: Losses, widths: Tensor) -> Pair:
    steps = widths.shape[0]
    with torch.no_grad():
        lines = losses.lines(start[0].expand(4, steps, -1))
        before = start[0].expand(steps + 1, -1)
        for _ in range(4 * steps + 1):
            stages, whole = _maps(drive, losses, lines, widths)
            states = _states(start, whole)
            inside = torch.stack([one.of(states[0][:-1], states[1][:-1])[0] for one in stages])
            again = losses.lines(inside)
            same = all(bool((a == b).all()) for a, b in zip(lines, again, strict=True))
            moved = (states[0] - before).abs() > ROUNDING * (states[0].abs() + before.abs())
            lines, before = again, states[0]
            if same or not bool(moved.any()):
                break
    if not torch.is_grad_enabled():
        return states
    # Only the last round is derived: which side of a bend a stage lies on does not move.
    _, whole = _maps(drive, losses, losses.lines(inside), widths)
    return _states(start, whole)


def _maps(drive: Drive, losses: Losses, lines: Pair, widths: Tensor) -> tuple[list[_Map], _Map]:
    """Each step's four stages, and the step, as maps of the state before it."""
    places = (slice(0, -2, 2), slice(1, None, 2), slice(1, None, 2), slice(2, None, 2))
    one = torch.ones_like(lines[0][0])
    none = torch.zeros_like(one)
    begin = _Map(torch.stack([one, none, none]), torch.stack([none, one, none]))
    stages: list[_Map] = []
    rates: list[_Map] = []
    stage = begin
    for number, place in enumerate(places):
        if number:
            size = widths if number == 3 else widths / 2
            stage = _ahead(begin, size, rates[-1])
        stages.append(stage)
        moved, left = drive.moved[place], drive.left[place]
        driven = drive.made[place] - lines[1][number]
        first = losses.back * stage.second - (moved + lines[0][number]) * stage.first
        first = torch.cat([first[:2], first[2:] + driven])
        rates.append(_Map(first, moved * stage.first - left * stage.second))
    total = [
        a + 2.0 * (b + c) + d
        for a, b, c, d in zip(*((one.first, one.second) for one in rates), strict=True)
    ]
    return stages, _ahead(begin, widths / 6, _Map(total[0], total[1]))


def _ahead(begin: _Map, size: Tensor, rates: _Map) -> _Map:
    return _Map(
        torch.addcmul(begin.first, size, rates.first),
        torch.addcmul(begin.second, size, rates.second),
    )


def _states(start: Pair, steps: _Map) -> Pair:
    """The states before the first and after each step: maps composed over 1, 2, 4, ... steps."""
    whole, span, count = steps, 1, steps.first.shape[1]
    while span < count:
        later = _Map(whole.first[:, span:], whole.second[:, span:])
        earlier = _Map(whole.first[:, :-span], whole.second[:, :-span])
        joined = later.after(earlier)
        whole = _Map(
            torch.cat([whole.first[:, :span], joined.first], 1),
            torch.cat([whole.second[:, :span], joined.second], 1),
        )
        span *= 2
    first, second = whole.of(*start)
    return torch.cat([start[0][None], first]), torch.cat([start[1][None], second])
