"""Plots of a trial as inline SVG: points with intervals, bands over time, bars both ways, curves.

Drawn in the page's own colour, so that they follow light and dark and print on paper. What tells
lines apart is dash and label, never colour alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final

import numpy as np

from fedtwin_research.drawing import Axis, area, figure, line, round_range, text_at, ticks
from fedtwin_twins.trials.streams import Floats

_LETTER: Final = 6.6
_WIDTH: Final = 420
_RIGHT: Final = 90
_ROW: Final = 24
_TOP: Final = 10
_FOOT: Final = 40
_PANEL: Final = (250, 150)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A labelled point with its interval."""

    label: str
    value: float
    low: float
    high: float


def intervals(title: str, rows: Sequence[Interval], unit: str, zero: bool = False) -> str:
    """Points with intervals, one a row.

    Args:
        title: for those who cannot see it, and the caption.
        rows: from top to bottom.
        unit: of the axis.
        zero: draw a line at 0 and have it on the axis.
    """
    there = [one for one in rows if isfinite(one.value)]
    if not there:
        return ""
    ends = [end for one in there for end in (one.low, one.high, one.value) if isfinite(end)]
    low, high = round_range([*ends, 0.0] if zero else ends)
    left = _room_for(one.label for one in there)
    axis = Axis(low=low, high=high, start=left, end=left + _WIDTH)
    foot = _TOP + _ROW * len(there)
    drawn = [_vertical(axis(0.0), foot, "2 3")] if zero else []
    for place, one in enumerate(there):
        y = _TOP + _ROW * place + _ROW / 2
        first = axis(one.low if isfinite(one.low) else one.value)
        last = axis(one.high if isfinite(one.high) else one.value)
        drawn.append(text_at(left - 8, y + 4, one.label, "end"))
        drawn.append(line(((first, y), (last, y))))
        drawn.append(f'<circle cx="{axis(one.value):.1f}" cy="{y:.1f}" r="4"/>')
        drawn.append(text_at(left + _WIDTH + 8, y + 4, f"{one.value:.3g}"))
    drawn += _horizontal_axis(axis, foot, unit)
    return figure(title, "".join(drawn), left + _WIDTH + _RIGHT, foot + _FOOT)


def tornado(title: str, rows: Sequence[tuple[str, float, float]], middle: float, unit: str) -> str:
    """Bars from a middle to both sides, the longest first.

    Args:
        title: for the caption.
        rows: label, value at the low setting, value at the high one.
        middle: the value as planned.
        unit: of the axis.
    """
    ordered = sorted(rows, key=lambda row: -abs(row[2] - row[1]))
    low, high = round_range([middle, *(end for row in rows for end in row[1:])])
    left = _room_for(row[0] for row in ordered)
    axis = Axis(low=low, high=high, start=left, end=left + _WIDTH)
    foot = _TOP + _ROW * len(ordered)
    drawn = []
    for place, (label, at_low, at_high) in enumerate(ordered):
        y = _TOP + _ROW * place + 4
        drawn.append(text_at(left - 8, y + 12, label, "end"))
        for value, filled in ((at_low, 'fill="none"'), (at_high, 'opacity="0.5"')):
            first, last = sorted((axis(middle), axis(value)))
            drawn.append(
                f'<rect x="{first:.1f}" y="{y:.1f}" width="{last - first:.1f}" '
                f'height="{_ROW - 8}" stroke="currentColor" {filled}/>'
            )
    drawn.append(_vertical(axis(middle), foot, "none"))
    drawn += _horizontal_axis(axis, foot, unit)
    return figure(title, "".join(drawn), left + _WIDTH + _RIGHT, foot + _FOOT)


def bands(
    title: str,
    panels: Sequence[tuple[str, Floats]],
    hours: Floats,
    unit: str,
    window: tuple[float, float] | None,
) -> str:
    """Small panels of quantiles over time, one for each arm, all on one scale.

    Args:
        title: for the caption.
        panels: label and quantiles 5, 25, 50, 75, 95 %, (5, hours).
        hours: of the columns.
        unit: of the levels.
        window: drawn as dashed lines, if there is one.
    """
    tops = [float(np.nanmax(values[3])) for _, values in panels if np.isfinite(values).any()]
    if not tops:
        return ""
    # The upper 5 % may peak far above all others: what is above the panel is cut off.
    high = round_range([0.0, *(1.25 * top for top in tops), window[1] if window else 0.0])[1]
    width, height = _PANEL
    drawn, columns = [], 2
    for place, (label, values) in enumerate(panels):
        left = 60 + (place % columns) * (width + 80)
        top = 24 + (place // columns) * (height + 56)
        drawn.append(_panel(label, values, hours, (left, top, high), window))
    rows = -(-len(panels) // columns)
    caption = f"{title}; {unit} over days; the highest peaks may be cut off"
    return figure(caption, "".join(drawn), 60 + columns * (width + 80), rows * (height + 56))


def _panel(
    label: str,
    values: Floats,
    hours: Floats,
    place: tuple[float, float, float],
    window: tuple[float, float] | None,
) -> str:
    left, top, high = place
    width, height = _PANEL
    across = Axis(low=0.0, high=float(hours[-1]), start=left, end=left + width)
    up = Axis(low=0.0, high=high, start=top + height, end=top)
    there = np.isfinite(values).all(axis=0)
    x = [across(hour) for hour in hours[there]]
    rows = [[up(float(value)) for value in row[there]] for row in values]
    drawn = [
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" '
        'stroke="currentColor" opacity="0.5"/>',
        area(x, rows[0], rows[4], 0.18),
        area(x, rows[1], rows[3], 0.3),
        line(tuple(zip(x, rows[2], strict=True))),
        text_at(left, top - 6, label),
    ]
    for edge in window or ():
        drawn.append(line(((left, up(edge)), (left + width, up(edge))), "5 3"))
    for value in ticks(0.0, high):
        drawn.append(text_at(left - 5, up(value) + 4, f"{value:g}", "end"))
    days = float(hours[-1]) / 24.0
    for value in ticks(0.0, days):
        drawn.append(text_at(across(value * 24.0), top + height + 15, f"{value:g}", "middle"))
    return "".join(drawn)


def curve(
    title: str,
    points: Sequence[tuple[float, float]],
    mark: tuple[float, float],
    axes: tuple[str, str],
) -> str:
    """A line with one marked point.

    Args:
        title: for the caption.
        points: across and up.
        mark: the marked point.
        axes: what goes across, and up.
    """
    width, height = _WIDTH, 200
    low, high = round_range([0.0, *(y for _, y in points)])
    across = Axis(low=0.0, high=max(x for x, _ in points), start=60, end=60 + width)
    up = Axis(low=low, high=high, start=_TOP + height, end=_TOP)
    drawn = [
        f'<rect x="60" y="{_TOP}" width="{width}" height="{height}" fill="none" '
        'stroke="currentColor" opacity="0.5"/>',
        line([(across(x), up(y)) for x, y in points]),
        f'<circle cx="{across(mark[0]):.1f}" cy="{up(mark[1]):.1f}" r="5"/>',
        text_at(across(mark[0]) + 9, up(mark[1]) - 6, f"{mark[1]:g}"),
        text_at(60 + width / 2, _TOP + height + 32, axes[0], "middle"),
        text_at(60, _TOP + 14, f" {axes[1]}"),
    ]
    drawn += [text_at(54, up(value) + 4, f"{value:g}", "end") for value in ticks(low, high)]
    drawn += [
        text_at(across(value), _TOP + height + 16, f"{value:g}", "middle")
        for value in ticks(0.0, across.high)
    ]
    return figure(title, "".join(drawn), width + 120, height + 60)


def _horizontal_axis(axis: Axis, foot: float, unit: str) -> list[str]:
    drawn = [line(((axis.start, foot), (axis.end, foot)))]
    for value in ticks(axis.low, axis.high):
        drawn.append(line(((axis(value), foot), (axis(value), foot + 4))))
        drawn.append(text_at(axis(value), foot + 17, f"{value:g}", "middle"))
    if unit != "1":
        drawn.append(text_at((axis.start + axis.end) / 2, foot + 33, unit, "middle"))
    return drawn


def _room_for(labels: Iterable[str]) -> float:
    return 16 + _LETTER * max((len(label) for label in labels), default=0)


def _vertical(x: float, foot: float, dashes: str) -> str:
    return line(((x, _TOP), (x, foot)), dashes)
