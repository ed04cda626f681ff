"""The model card as a page for people: one HTML file without scripts or anything from elsewhere.

Rules: every text is escaped; a content policy forbids all but the page's own style; plots are
inline SVG with a table beside them for those who cannot see them; it prints on paper.
"""

from collections.abc import Sequence
from html import escape

from fedtwin_protocol.card import Calibration, ModelCard
from fedtwin_protocol.card_audits import NO_AUDITS, Audit
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.page import fact_table, plain_table, section, whole_page

_SIDE, _MARGIN = 240, 40
_UNAUDITED = (
    f"<p>{NO_AUDITS} What can be repeated without the sites' data: fedtwin research audit.</p>"
)
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
        section("What it predicts", fact_table(_question_facts(card))),
        section("Privacy", fact_table(_privacy_facts(card))),
        section("How its privacy was audited", audit_table(card.audits) or _UNAUDITED),
        section("Who took part", _sites(card)),
        section("How good it is", _quality(card)),
        section("Before use", f"<p>{escape(card.recalibration)}</p>"),
        section("What it must be given", _features(card.features)),
        section("How it was made", fact_table(_origin_facts(card))),
    ]
    return whole_page(f"{card.title} · model card", parts)


def _limits(card: ModelCard) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in card.limits)
    return f'<section class="note"><h2>Limits</h2><ul>{items}</ul></section>'


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


def audit_table(audits: Sequence[Audit]) -> str:
    """Audits with their results; nothing where there are none."""
    if not audits:
        return ""
    rows = [
        (
            one.name,
            one.asks,
            one.reading,
            f"{one.result:.3g}",
            f"{one.threshold:.3g}",
            "passed" if one.passed else "FAILED",
            f"{one.by}, {one.software}, seed {one.seed}, {one.performed:%Y-%m-%d %H:%M} UTC",
        )
        for one in audits
    ]
    heads = ("Audit", "What is tested", "What was found", "Result", "Threshold", "", "By, when")
    return f'<div class="wide">{plain_table("Audits", heads, rows)}</div>'


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
    return plain_table(
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
    text = plain_table(
        "Figures on held-out patients", ("Figure", "Value", "How it was bought"), rows
    )
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
    table = plain_table(caption, ("Predicted risk", "Observed share", "Patients (noised)"), rows)
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
            f"{one.kind}, counted" if one.counts else one.kind,
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
    return f'<div class="wide">{plain_table("The feature contract", heads, rows)}</div>'
