"""Plots of one patient: doses, levels and bands over time; candidates as bars.

Lines are told apart by dash and label, never by colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fedtwin_research.drawing import Axis, area, figure, line, round_range, text_at, ticks
from fedtwin_twins.advice.assessment import Assessment
from fedtwin_twins.patient_twin import TwinForecast

_LEFT: Final = 60.0
_WIDTH: Final = 720.0
_HEIGHT: Final = 300.0
_DOSES: Final = 46.0
_TOP: Final = 22.0
_ROW: Final = 24.0
_BARS: Final = 380.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One measurement in the plot's unit; `below`: it lies somewhere under the value."""

    hour: float
    value: float
    below: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """One dose or meal: an amount from one hour to another (the same: all at once)."""

    hour: float
    until: float
    amount: float
    unit: str


def course_plot(
    title: str,
    now: TwinForecast,
    *,
    before: TwinForecast | None,
    levels: Sequence[Level],
    doses: Sequence[Given],
    window: tuple[float, float] | None = None,
) -> str:
    """A forecast over time with what was measured and given.

    Args:
        title: the caption.
        now: median with 50 and 90 % bands.
        before: the same before the measurements, drawn dashed; none: left out.
        levels: filled points, and open triangles for those below a limit.
        doses: bars below the curve.
        window: two lines, where a target is a range of the observable itself.
    """
    hours = now.hours.tolist()
    highest = [float(now.quantiles.max()), *(one.value for one in levels)]
    if before is not None:
        highest.append(min(float(before.quantiles[:, 4].max()), 2.0 * highest[0]))
    if window is not None:
        highest.append(window[1])
    lowest = min(0.0, float(now.quantiles.min()))
    low, high = round_range([lowest, max(highest)])
    foot = _TOP + _HEIGHT
    across = Axis(low=hours[0], high=hours[-1], start=_LEFT, end=_LEFT + _WIDTH)
    up = Axis(low=low, high=high, start=foot, end=_TOP)
    drawn = [
        f'<rect x="{_LEFT:g}" y="{_TOP:g}" width="{_WIDTH:g}" height="{_HEIGHT:g}" fill="none" '
        'stroke="currentColor" opacity="0.5"/>',
        text_at(4, 14, now.unit),
    ]
    if window is not None:
        for edge in window:
            y = up(edge)
            drawn.append(line(((_LEFT, y), (_LEFT + _WIDTH, y)), "8 3"))
        drawn.append(text_at(_LEFT + _WIDTH - 4, up(window[1]) - 4, "target", "end"))
    drawn += _bands(now, across, up)
    if before is not None:
        x = [across(hour) for hour in before.hours.tolist()]
        for column, dashes in ((0, "1 4"), (2, "4 4"), (4, "1 4")):
            y_values = [up(float(value)) for value in before.quantiles[:, column]]
            drawn.append(line(list(zip(x, y_values, strict=True)), dashes))
    drawn += [_point(one, across, up) for one in levels if hours[0] <= one.hour <= hours[-1]]
    drawn += _axes(across, up, foot + _DOSES)
    drawn += _doses(doses, across, foot)
    return figure(title, "".join(drawn), _LEFT + _WIDTH + 20, foot + _DOSES + 40)


def _bands(now: TwinForecast, across: Axis, up: Axis) -> list[str]:
    x = [across(hour) for hour in now.hours.tolist()]
    rows = [[up(float(value)) for value in column] for column in now.quantiles.T]
    return [
        area(x, rows[0], rows[4], 0.16),
        area(x, rows[1], rows[3], 0.26),
        line(list(zip(x, rows[2], strict=True))),
    ]


def _point(one: Level, across: Axis, up: Axis) -> str:
    x, y = across(one.hour), up(one.value)
    if not one.below:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    mark = f"{x - 5:.1f},{y:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 9:.1f}"
    return f'<polygon points="{mark}" fill="none" stroke="currentColor"/>'


def _axes(across: Axis, up: Axis, foot: float) -> list[str]:
    drawn = [text_at(_LEFT - 6, up(one) + 4, f"{one:g}", "end") for one in ticks(up.low, up.high)]
    drawn += [
        text_at(across(one), foot + 16, f"{one:g}", "middle")
        for one in ticks(across.low, across.high)
    ]
    return [*drawn, text_at(_LEFT + _WIDTH, foot + 32, "hours from the origin", "end")]


def _doses(doses: Sequence[Given], across: Axis, foot: float) -> list[str]:
    shown = [one for one in doses if across.low <= one.hour <= across.high]
    if not shown:
        return []
    most: dict[str, float] = {}
    for one in shown:
        most[one.unit] = max(one.amount, most.get(one.unit, 0.0))
    drawn = [text_at(_LEFT - 6, foot + _DOSES - 4, "doses", "end")]
    for one in shown:
        start = across(one.hour)
        width = max(2.0, across(one.until) - start)
        height = (_DOSES - 16) * one.amount / most[one.unit]
        drawn.append(
            f'<rect x="{start:.1f}" y="{foot + _DOSES - height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" opacity="0.6"/>'
        )
    tallest = ", ".join(f"{amount:g} {unit}" for unit, amount in most.items())
    return [*drawn, text_at(_LEFT + 4, foot + 12, f"tallest: {tallest}")]


def candidates_plot(title: str, candidates: Sequence[Assessment], target: int) -> str:
    """How each candidate fares on one target: below, in and above the range, as parts of a bar.

    Args:
        title: the caption.
        candidates: the best first.
        target: place of the target.
    """
    labels = [str(one.regimen) for one in candidates]
    left = 16.0 + 6.6 * max(map(len, labels))
    drawn = []
    for place, one in enumerate(candidates):
        y = _TOP + _ROW * place
        drawn.append(text_at(left - 8, y + 15, labels[place], "end"))
        found = one.attainments[target]
        x = left
        for share, fill in ((found.below, "0.12"), (found.inside, "0.65"), (found.above, "0.3")):
            width = _BARS * share
            drawn.append(
                f'<rect x="{x:.1f}" y="{y + 2:.1f}" width="{width:.1f}" height="{_ROW - 6:g}" '
                f'fill-opacity="{fill}" stroke="currentColor" stroke-opacity="0.5"/>'
            )
            x += width
        drawn.append(text_at(left + _BARS + 8, y + 15, f"{found.inside:.0%} in range"))
    drawn.append(text_at(left, 14, "below, in (dark) and above the range, of all draws"))
    height = _TOP + _ROW * len(candidates) + 8
    return figure(title, "".join(drawn), left + _BARS + 110, height)
