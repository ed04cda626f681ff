"""A report as lines of text, and as JSON with keys that stay the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedtwin_client.readiness.counts import FeatureCounts, Report
from fedtwin_client.readiness.gates import WHOLE_STUDY, Block, Finding, Word

_SIGNS = {"green": "ok  ", "amber": "LOOK", "red": "RED ", "not judged": "-   "}


def lines(
    report: Report,
    findings: Sequence[Finding],
    blocks: Sequence[Block],
    words: Mapping[str, Word],
) -> list[str]:
    """The summary: the study's gates, each feature with what is not green, and what is blocked."""
    stale = report.made
    said = [
        f"readiness of study {report.study}, counted {stale:%Y-%m-%d %H:%M} UTC; it stays here",
        f"  {report.site.rows:,} events of {report.site.subjects:,} patients",
    ]
    said += [_line(one) for one in findings if one.feature == WHOLE_STUDY]
    if report.cohort is not None:
        said += [f"       left out: {n:,} {why}" for why, n in report.cohort.exclusions.items()]
    for feature in report.features:
        said.append(_about(feature))
        mine = [one for one in findings if one.feature == feature.name]
        said += [f"  {_line(one)}" for one in mine if one.colour in {"amber", "red"}]
        said += [f"         {text}" for text in defects(feature)]
    said += [
        f"blocked: {name} counts as missing for everybody here ({why})" for name, why in blocks
    ]
    said += [
        f"{name}: {word.verdict} said by {word.by} on {word.time[:10]}: {word.because}"
        for name, word in words.items()
        if word.verdict != "judge"
    ]
    said += _put_aside(report)
    if report.reference is None:
        said.append("not compared with other hospitals: no reference was given (--reference)")
    return said


def _put_aside(report: Report) -> list[str]:
    counts = Counter(report.site.put_aside)
    if not counts:
        return []
    common = "; ".join(f"{reason} ({count:,})" for reason, count in counts.most_common(3))
    return [f"put aside, see 'fedtwin client records quarantine': {counts.total():,}: {common}"]


def defects(feature: FeatureCounts) -> list[str]:
    """What else is wrong with a feature's rows, where anything is."""
    counts = {
        "rows without a value": feature.null,
        "rows in the future": feature.future,
        "rows before birth": feature.before_birth,
        "rows after death": feature.after_death,
        "exact duplicates": feature.duplicates,
    }
    return [f"{count:,} {what}" for what, count in counts.items() if count]


def values(feature: FeatureCounts) -> str:
    """The percentiles of a feature's values, in its unit."""
    if feature.p50 is None:
        return ""
    return f"{feature.p01:.4g} / {feature.p50:.4g} / {feature.p99:.4g} {feature.unit}"


def as_values(
    report: Report,
    findings: Sequence[Finding],
    blocks: Sequence[Block],
    words: Mapping[str, Word],
) -> dict[str, Any]:
    """Plain JSON values: counts, findings, blocked features and what persons said."""
    return {
        "report": report.model_dump(mode="json"),
        "findings": [
            {
                "feature": one.feature,
                "gate": one.gate,
                "colour": one.colour,
                "failing": one.failing,
                "of": one.of,
                "threshold": one.limit,
                "text": one.text,
            }
            for one in findings
        ],
        "blocked": [block._asdict() for block in blocks],
        "words": {name: word._asdict() for name, word in words.items()},
    }


def _line(finding: Finding) -> str:
    return f"  {_SIGNS[finding.colour]} {finding.gate}: {finding.text}"


def _about(feature: FeatureCounts) -> str:
    if feature.kind in {"age", "sex"}:
        return f"  {feature.name}: of the patient, in no row"
    text = f"  {feature.name}: {feature.rows:,} rows of {feature.subjects:,} patients"
    found = values(feature)
    return f"{text}; 1st, 50th, 99th percentile {found}" if found else text
