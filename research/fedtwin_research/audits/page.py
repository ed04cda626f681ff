"""Audits as a page for people: the table, who is told from others, what inversion reads."""

from collections.abc import Sequence
from html import escape
from math import log10
from typing import Final

import numpy as np

from fedtwin_protocol.card_audits import AuditFile
from fedtwin_protocol.card_page import audit_table
from fedtwin_protocol.page import section, whole_page
from fedtwin_research.audits.family import Floats
from fedtwin_research.audits.repeat import Attacked, Repeated
from fedtwin_twins.audits.membership import most_found, points_for_plot

_SIDE: Final = 260
_MARGIN: Final = 48
_LOWEST: Final = 1e-3
Points = Sequence[tuple[float, float]]


def audit_page(file: AuditFile, repeated: Repeated, epsilon: float, delta: float) -> str:
    """One self-contained HTML page.

    Args:
        file: the results, as written beside the page.
        repeated: what the plots show.
        epsilon: that the plan states; infinite where it promises nothing.
        delta: the other half.
    """
    missing = "".join(f"<li>{escape(line)}</li>" for line in repeated.not_repeated)
    title = f"{file.study} version {file.version} · privacy audits"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Plan (SHA-256) {file.plan_hash}. Repeated on made-up patients of the plan's columns; "
        "no record of any hospital was read.</p>",
        section("Results", audit_table(file.audits)),
        *_plots(repeated.attacked, epsilon, delta),
        section("What cannot be repeated here", f"<ul>{missing}</ul>"),
    ]
    return whole_page(title, parts)


def _plots(attacked: Attacked | None, epsilon: float, delta: float) -> list[str]:
    if attacked is None:
        return []
    return [
        section("Who is told from others", _roc(attacked, epsilon, delta)),
        section("What is read off one update", _inversion(attacked)),
    ]


def _roc(attacked: Attacked, epsilon: float, delta: float) -> str:
    """Members found against others taken for members, on logarithmic axes."""
    rates = np.logspace(log10(_LOWEST), 0, 40)
    bound = [(float(rate), most_found(epsilon, delta, float(rate))) for rate in rates]
    lines = [
        ("chance", [(_LOWEST, _LOWEST), (1.0, 1.0)], "1 4"),
        ("the most that the stated privacy allows", bound, "6 3"),
        ("without protection", points_for_plot(attacked.unprotected), "2 2"),
        ("as planned", points_for_plot(attacked.private), ""),
    ]
    drawn = "".join(_line(points, dashes) for _, points, dashes in lines)
    ticks = "".join(_tick(value) for value in (0.001, 0.01, 0.1, 1.0))
    caption = "; ".join(f"{name}: {_LOOKS[dashes]}" for name, _, dashes in lines)
    return (
        f"<figure>{_frame('Members found, by others taken for members', drawn + ticks)}"
        f"<figcaption>Share of members found against share of others taken for members. "
        f"{escape(caption)}.</figcaption></figure>"
    )


_LOOKS: Final = {"1 4": "dots", "6 3": "long dashes", "2 2": "short dashes", "": "whole line"}


def _inversion(attacked: Attacked) -> str:
    """Histograms of cosines, as sent and without noise."""
    edges = np.linspace(-1, 1, 21)
    bars = ""
    for values, look in (
        (attacked.open_cosines, 'fill="none" stroke="currentColor"'),
        (attacked.cosines, 'fill="currentColor" opacity="0.5"'),
    ):
        bars += _bars(np.histogram(np.clip(values, -1, 1), edges)[0] / values.size, look)
    ticks = "".join(
        f'<text x="{_MARGIN + (value + 1) / 2 * _SIDE:.1f}" y="{_MARGIN + _SIDE + 16}" '
        f'text-anchor="middle">{value:g}</text>'
        for value in (-1.0, 0.0, 1.0)
    )
    return (
        f"<figure>{_frame('Cosine of what was read with the record', bars + ticks)}"
        "<figcaption>Share of updates by the cosine of what was read with the patient's record: "
        "filled as sent, outlined without noise (1 is the record itself).</figcaption></figure>"
    )


def _bars(shares: Floats, look: str) -> str:
    width = _SIDE / len(shares)
    return "".join(
        f'<rect x="{_MARGIN + place * width:.1f}" y="{_MARGIN + (1 - share) * _SIDE:.1f}" '
        f'width="{width:.1f}" height="{share * _SIDE:.1f}" {look}/>'
        for place, share in enumerate(shares)
    )


def _line(points: Points, dashes: str) -> str:
    path = " ".join(f"{_x(x):.1f},{_y(y):.1f}" for x, y in points if x >= _LOWEST)
    return (
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'stroke-dasharray="{dashes or "none"}"/>'
    )


def _tick(value: float) -> str:
    return (
        f'<text x="{_x(value):.1f}" y="{_MARGIN + _SIDE + 16}" text-anchor="middle">{value:g}'
        "</text>"
        f'<text x="{_MARGIN - 6}" y="{_y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _frame(title: str, inside: str) -> str:
    size = _SIDE + 2 * _MARGIN
    return (
        f'<svg role="img" width="{size}" height="{size}" viewBox="0 0 {size} {size}" '
        'font-size="12" fill="currentColor" stroke="none">'
        f'<title>{escape(title)}</title><rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" '
        f'height="{_SIDE}" fill="none" stroke="currentColor"/>{inside}</svg>'
    )


def _x(value: float) -> float:
    return _MARGIN + _SIDE * (1 - log10(max(value, _LOWEST)) / log10(_LOWEST))


def _y(value: float) -> float:
    return _MARGIN + _SIDE * log10(max(value, _LOWEST)) / log10(_LOWEST)
