"""Parts of plots as inline SVG, in the page's own colour: they follow light, dark and paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """From values to places between two ends of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value; one beyond an end is drawn there."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def round_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends on round numbers around some values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = step_of(high - low)
    return floor(low / step) * step, -floor(-high / step) * step


def step_of(width: float) -> float:
    """A round step of which a handful fill the width."""
    rough = width / 6
    power = 10.0 ** floor(log10(rough))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= rough - 1e-12)


def ticks(low: float, high: float) -> list[float]:
    """Round values from low to high."""
    step = step_of(high - low)
    first = -floor(-low / step + 1e-9)
    last = floor(high / step + 1e-9)
    return [round(place * step, 12) + 0.0 for place in range(first, last + 1)]


def line(points: Sequence[tuple[float, float]], dashes: str = "none") -> str:
    """A line through points, (across, down)."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'stroke-dasharray="{dashes}"/>'
    )


def area(x: Sequence[float], low: Sequence[float], high: Sequence[float], opacity: float) -> str:
    """What lies between two lines."""
    edge = [*zip(x, low, strict=True), *reversed(list(zip(x, high, strict=True)))]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in edge)
    return f'<polygon points="{path}" opacity="{opacity}"/>'


def text_at(x: float, y: float, text: str, anchor: str = "start") -> str:
    """Text at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def figure(title: str, inside: str, width: float, height: float) -> str:
    """A drawing with its caption, which is also read to those who cannot see it."""
    return (
        f'<figure><svg role="img" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" font-size="12" fill="currentColor">'
        f"<title>{escape(title)}</title>{inside}</svg>"
        f"<figcaption>{escape(title)}</figcaption></figure>"
    )
