"""A report as one HTML page with plots: no script, nothing from elsewhere, no patient's number.

What the records themselves say in words (codes of local vocabularies) is escaped, and stands here
only where at least ten patients share it (`site`).
"""

from collections.abc import Mapping, Sequence
from html import escape

from fedtwin_client.readiness.counts import FeatureCounts, Report
from fedtwin_client.readiness.gates import WHOLE_STUDY, Block, Finding, Word
from fedtwin_client.readiness.words import defects, values
from fedtwin_protocol.page import fact_table, plain_table, section, whole_page

_WIDTH, _HEIGHT, _FOOT = 420, 110, 18
_MONTHS = 36
_MARKS = {"green": "ok", "amber": "look at it", "red": "RED", "not judged": "not judged"}


def readiness_page(
    report: Report,
    findings: Sequence[Finding],
    blocks: Sequence[Block],
    words: Mapping[str, Word],
) -> str:
    """Render a report as one self-contained page."""
    title = f"Readiness for {report.study}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Counted {report.made:%Y-%m-%d %H:%M} UTC. These numbers stay in the hospital.</p>",
        _blocked(blocks, words),
        section("The study as a whole", _whole(report, findings)),
        section("Features at a glance", _overview(report, findings)),
        *(_feature(one, findings) for one in report.features if one.kind not in {"age", "sex"}),
        section("Codes that no shared vocabulary has", _unmapped(report)),
        section("What was put aside", _put_aside(report)),
    ]
    return whole_page(title, parts)


def _blocked(blocks: Sequence[Block], words: Mapping[str, Word]) -> str:
    items = [f"<b>{escape(name)}</b> counts as missing: {escape(why)}" for name, why in blocks]
    items += [
        f"<b>{escape(name)}</b>: {escape(word.by)} said '{word.verdict}' on "
        f"{escape(word.time[:10])}: {escape(word.because)}"
        for name, word in words.items()
        if word.verdict != "judge"
    ]
    if not items:
        return "<p>No feature is blocked.</p>"
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<section class="note"><h2>Blocked and overruled</h2><ul>{listed}</ul></section>'


def _whole(report: Report, findings: Sequence[Finding]) -> str:
    facts = [
        ("Events", f"{report.site.rows:,}"),
        ("Patients with any event", f"{report.site.subjects:,}"),
        ("Compared with", report.reference or "nothing: no reference was given"),
    ]
    text = fact_table(facts) + _gates([one for one in findings if one.feature == WHOLE_STUDY])
    cohort = report.cohort
    if cohort is None:
        return text
    reasons = [(why, f"{count:,}") for why, count in cohort.exclusions.items()]
    if reasons:
        text += plain_table("Left out", ("Reason", "Patients"), reasons)
    rows = [
        (str(year.year), f"{year.patients:,}", "" if year.events is None else f"{year.events:,}")
        for year in cohort.years
    ]
    mean = "" if cohort.mean is None else f"; mean of what is learned {cohort.mean:.4g}"
    return text + plain_table(
        f"By year of the index date{mean}", ("Year", "Patients", "Outcome events"), rows
    )


def _gates(findings: Sequence[Finding]) -> str:
    rows = [
        (
            one.gate.replace("_", " "),
            _MARKS[one.colour],
            one.text,
            "" if one.limit is None else f"{one.limit:g}",
        )
        for one in findings
    ]
    return plain_table("Gates", ("Gate", "", "What was found", "Threshold"), rows)


def _overview(report: Report, findings: Sequence[Finding]) -> str:
    gates = list(dict.fromkeys(one.gate for one in findings if one.feature != WHOLE_STUDY))
    marks = {(one.feature, one.gate): _MARKS[one.colour] for one in findings}
    rows = [
        (one.name, f"{one.rows:,}", f"{one.subjects:,}",
         *(marks.get((one.name, gate), "") for gate in gates))
        for one in report.features
    ]  # fmt: skip
    heads = ("Feature", "Rows", "Patients", *(gate.replace("_", " ") for gate in gates))
    return f'<div class="wide">{plain_table("Every feature and gate", heads, rows)}</div>'


def _feature(feature: FeatureCounts, findings: Sequence[Finding]) -> str:
    facts = [("Rows", f"{feature.rows:,}"), ("Patients", f"{feature.subjects:,}")]
    if found := values(feature):
        facts.append(("1st / 50th / 99th percentile", found))
    if feature.kind == "number":
        facts.append(("Converted from another unit", f"{feature.converted:,}"))
        facts.append(("In quarantine for their unit", f"{feature.refused_unit:,}"))
    if feature.rows:
        facts.append(("With a comparator (<, >)", _percent(feature.comparator, feature.rows)))
    if feature.delay_p50_days is not None and feature.delay_p95_days is not None:
        delays = f"{feature.delay_p50_days:.2f} / {feature.delay_p95_days:.2f} days"
        facts.append(("From happening to being known, median / 95 %", delays))
    if feature.drift is not None:
        late, early = feature.recent
        text = f"distance {feature.drift:.3f} ({late:,} values against {early:,})"
        facts.append(("Last 30 days against the 30 before", text))
    facts += [("To mend", text) for text in defects(feature)]
    body = fact_table(facts) + _gates([one for one in findings if one.feature == feature.name])
    return section(feature.name, body + _histogram(feature) + _volume(feature))


def _percent(count: int, of: int) -> str:
    return f"{count:,} ({100 * count / of:.1f} %)"


def _histogram(feature: FeatureCounts) -> str:
    if not feature.histogram:
        return ""
    low, *inside, high = feature.histogram
    title = f"Values in the plausible range; {low:,} lie below it and {high:,} above"
    ends = ("lowest plausible", "highest plausible")
    return _bars(feature.name, title, inside, ends)


def _volume(feature: FeatureCounts) -> str:
    if not feature.months:
        return ""
    months = feature.months[-_MONTHS:]
    title = f"Rows of each month with any, the last {len(months)} of them"
    return _bars(feature.name, title, [n for _, n in months], (months[0][0], months[-1][0]))


def _bars(name: str, title: str, counts: Sequence[int], ends: tuple[str, str]) -> str:
    most, step = max(*counts, 1), _WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{_HEIGHT * (1 - count / most):.1f}" '
        f'width="{step * 0.85:.1f}" height="{_HEIGHT * count / most:.1f}">'
        f"<title>{count:,}</title></rect>"
        for place, count in enumerate(counts)
    )
    foot = _HEIGHT + _FOOT - 4
    return (
        f"<figure><figcaption>{escape(name)}: {escape(title)}; the highest bar is {most:,}"
        f'</figcaption><svg role="img" width="{_WIDTH}" height="{_HEIGHT + _FOOT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT + _FOOT}" font-size="11" fill="currentColor">'
        f"<title>{escape(title)}</title>{bars}"
        f'<text x="0" y="{foot}">{escape(ends[0])}</text>'
        f'<text x="{_WIDTH}" y="{foot}" text-anchor="end">{escape(ends[1])}</text></svg></figure>'
    )


def _unmapped(report: Report) -> str:
    rows = [(one.code, f"{one.rows:,}", f"{one.subjects:,}") for one in report.site.commonest]
    caption = "The commonest; codes of fewer than 10 patients are counted above and not named here"
    return plain_table(caption, ("Code", "Rows", "Patients"), rows)


def _put_aside(report: Report) -> str:
    def table(caption: str, counts: Mapping[str, int]) -> str:
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        rows = [(reason, f"{count:,}") for reason, count in ordered]
        return plain_table(caption, ("Reason", "Times"), rows)

    return table("By imports and doors, as it lies in quarantine", report.site.put_aside) + table(
        "What live doors did not use since the node was set up", report.site.doors
    )
