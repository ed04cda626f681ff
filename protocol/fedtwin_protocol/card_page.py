"""The model card as a page for people: one HTML file without scripts or anything from elsewhere.

Rules: every text is escaped; a content policy forbids all but the page's own style; plots are
inline SVG with a table beside them for those who cannot see them; it prints on paper.
"""

from collections.abc import Iterable, Sequence
from html import escape

from fedtwin_protocol.card import Calibration, ModelCard
from fedtwin_protocol.contract import Feature

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { line-height: 1.2; } h2 { margin-top: 2rem; border-bottom: 1px solid; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; font-weight: 600; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; }
th, td { border-bottom: 1px solid #8886; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
.note { border-left: .3rem solid #b60; padding: .2rem 1rem; }
@media print { body { margin: 0; font-size: 10pt; } h2, figure { break-inside: avoid; } }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SIDE, _MARGIN = 240, 40
_FIGURES = {
    "patients": "Held-out patients (noised)",
    "outcomes": "of these with the outcome (noised)",
    "auroc": "AUROC (0.5 is chance, 1 is best)",
    "accuracy": "Accuracy at a risk of one half",
    "expected_over_observed": "Expected over observed outcomes (1 is best)",
    "brier": "Brier score (0 is best)",
}


def card_page(card: ModelCard) -> str:
    """Render a card as one self-contained HTML page."""
    parts = [
        f"<h1>{escape(card.title)}</h1>",
        f"<p>{escape(card.purpose)}</p>",
        _limits(card),
        _section("What it predicts", _facts(_question_facts(card))),
        _section("Privacy", _facts(_privacy_facts(card))),
        _section("Who took part", _sites(card)),
        _section("How good it is", _quality(card)),
        _section("Before use", f"<p>{escape(card.recalibration)}</p>"),
        _section("What it must be given", _features(card.features)),
        _section("How it was made", _facts(_origin_facts(card))),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(card.title)} · model card</title><style>{_STYLE}</style></head>\n<body>"
        f"<main>{''.join(parts)}</main></body></html>\n"
    )


def _section(heading: str, body: str) -> str:
    return f"\n<section><h2>{escape(heading)}</h2>{body}</section>"


def _limits(card: ModelCard) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in card.limits)
    return f'<section class="note"><h2>Limits</h2><ul>{items}</ul></section>'


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table>{cells}</table>"


def _question_facts(card: ModelCard) -> list[tuple[str, str]]:
    return [
        ("Question", card.question),
        ("Endpoint", card.endpoint),
        ("Population", card.population),
        ("Model", card.model),
    ]


def _privacy_facts(card: ModelCard) -> list[tuple[str, str]]:
    privacy = card.privacy
    return [
        ("Protects against", privacy.protects_against),
        ("Mode", privacy.mode),
        ("Epsilon, for every patient", f"{privacy.epsilon:g}"),
        ("Delta", f"{privacy.delta:g}"),
        ("Accountant", privacy.accountant),
        ("Noised steps taken", str(privacy.steps)),
        ("Clipping norm", f"{privacy.clipping_norm:g}"),
        ("Noise multiplier", f"{privacy.noise_multiplier:g}"),
        ("Sampling rate", f"{privacy.sampling_rate:g}"),
        ("Ledger", privacy.ledger),
    ]


def _origin_facts(card: ModelCard) -> list[tuple[str, str]]:
    software = ", ".join(f"{name} {version}" for name, version in sorted(card.software.items()))
    return [
        ("Study", f"{card.study}, version {card.version}"),
        ("Consortium", card.consortium),
        ("Rounds taken", str(card.rounds)),
        ("Rounds that went wrong", "; ".join(card.rounds_gone_wrong) or "none"),
        ("Software", software or "not stated"),
        ("Created", card.created.isoformat()),
        ("Plan (SHA-256)", card.plan_hash),
    ]


def _sites(card: ModelCard) -> str:
    rows = [
        (
            site.name,
            "below the smallest cell" if site.patients is None else str(site.patients),
            str(site.rounds),
        )
        for site in card.sites
    ]
    return _table(
        "Sites; counts were noised before they left, as the plan says",
        ("Site", "Training patients (noised)", "Rounds used"),
        rows,
    )


def _quality(card: ModelCard) -> str:
    if not card.metrics:
        return "<p>No evaluation left the sites: the plan buys none. Validate before use.</p>"
    rows = [
        (_FIGURES.get(metric.name, metric.name), f"{metric.value:.3g}", metric.bought)
        for metric in card.metrics
    ]
    text = _table("Figures on held-out patients", ("Figure", "Value", "How it was bought"), rows)
    return text + "".join(_calibration(one) for one in card.calibration)


def _calibration(calibration: Calibration) -> str:
    rows = [
        (f"{one.predicted:.3g}", f"{one.observed:.3g}", str(one.patients))
        for one in calibration.bins
    ]
    caption = (
        f"Calibration, {calibration.scope}: noise sd of a cell {calibration.noise_sd:.3g}; "
        f"{calibration.left_out} bins below the smallest cell are not shown"
    )
    table = _table(caption, ("Predicted risk", "Observed share", "Patients (noised)"), rows)
    return f"<figure>{_reliability_plot(calibration)}{table}</figure>"


def _reliability_plot(calibration: Calibration) -> str:
    """Observed share against predicted risk; the diagonal is perfect calibration."""
    marks = "".join(
        f'<circle cx="{_x(one.predicted):.1f}" cy="{_y(one.observed):.1f}" r="4"/>'
        for one in calibration.bins
    )
    ticks = "".join(
        f'<text x="{_x(v):.1f}" y="{_SIDE + _MARGIN + 16}" text-anchor="middle">{v:g}</text>'
        f'<text x="{_MARGIN - 6}" y="{_y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (0.0, 0.5, 1.0)
    )
    size = _SIDE + 2 * _MARGIN
    return (
        f'<svg role="img" width="{size}" height="{size}" viewBox="0 0 {size} {size}" '
        'font-size="12" fill="currentColor" stroke="none">'
        f"<title>Reliability plot, {escape(calibration.scope)}: the table below says the same"
        f'</title><rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" '
        f'stroke="currentColor"/><line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" '
        f'stroke="currentColor" stroke-dasharray="4 4"/>{marks}{ticks}'
        f'<text x="{size / 2}" y="{size - 6}" text-anchor="middle">predicted risk</text>'
        f'<text x="12" y="{size / 2}" text-anchor="middle" '
        f'transform="rotate(-90 12 {size / 2})">observed share</text></svg>'
    )


def _x(value: float) -> float:
    return _MARGIN + value * _SIDE


def _y(value: float) -> float:
    return _MARGIN + (1 - value) * _SIDE


def _features(features: Sequence[Feature]) -> str:
    rows = [
        (
            f"{one.name}: {one.description}" if one.description else one.name,
            one.kind,
            ", ".join(one.codes),
            one.unit if one.kind in {"number", "age"} else " / ".join(one.categories),
            "" if one.plausible is None else f"{one.plausible[0]:g} to {one.plausible[1]:g}",
            "any time before" if one.window_days is None else f"{one.window_days} days before",
            f"({one.center:g}, {one.scale:g}), clipped to {one.clip[0]:g} to {one.clip[1]:g}",
            one.missing,
            one.source,
        )
        for one in features
    ]
    heads = ("Name", "Kind", "Codes", "Unit or categories", "Plausible", "Window",
             "Centre, scale", "Missing", "Source")  # fmt: skip
    return f'<div class="wide">{_table("The feature contract", heads, rows)}</div>'


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
