"""From counts to colours: each gate at its threshold, and which features are blocked.

Red means beyond the threshold, amber beyond the part `amber_at` of the way there. A measure that
must stay low is amber above threshold x amber_at; a number that must be reached (cohort, outcome
events) is amber below threshold / amber_at. Coverage is judged by what is missing: at 50 % and
amber_at 0.5 it is red if more than half lack a value, amber if more than a quarter do. Exactly at a
threshold is not beyond it. A feature is blocked by its own red gates, never by those of the study.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from fedtwin_client.readiness.counts import FeatureCounts, Report
from fedtwin_client.readiness.thresholds import Thresholds

Colour = Literal["green", "amber", "red", "not judged"]
Verdict = Literal["allow", "block", "judge"]
WHOLE_STUDY: Final = ""
"""Stands for the study where a finding is of no feature."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One gate's answer.

    Attributes:
        feature: whose; empty for the study as a whole.
        gate: its name, as for `--gate`.
        colour: the verdict.
        text: the measure in words.
        failing: rows or patients that count against it; none where it is no share.
        of: out of so many.
        limit: the threshold; none: not judged.
    """

    feature: str
    gate: str
    colour: Colour
    text: str
    failing: int | None = None
    of: int | None = None
    limit: float | None = None


class Block(NamedTuple):
    """Why a feature counts as missing at this hospital."""

    feature: str
    reason: str


class Word(NamedTuple):
    """What a person said of a feature; the last one stands; `judge` leaves it to the gates."""

    verdict: Verdict
    because: str
    by: str
    time: str


def judge(report: Report, thresholds: Thresholds) -> list[Finding]:
    """All findings of a report: the study's first, then feature by feature."""
    found = list(_of_study(report, thresholds))
    for feature in report.features:
        found += _of_feature(report, feature, thresholds)
    return found


def blocked(
    report: Report | None, thresholds: Thresholds, words: Mapping[str, Word]
) -> tuple[Block, ...]:
    """The features that count as missing here.

    Args:
        report: the last one; none was made: only a person's word blocks.
        thresholds: the hospital's.
        words: what persons said, by feature; it goes before the gates.
    """
    reasons: dict[str, str] = {}
    for finding in () if report is None else judge(report, thresholds):
        if finding.colour == "red" and finding.feature != WHOLE_STUDY:
            before = reasons.get(finding.feature)
            text = f"{finding.gate}: {finding.text}"
            reasons[finding.feature] = f"{before}; {text}" if before else text
    for name, word in words.items():
        if word.verdict == "allow":
            reasons.pop(name, None)
        elif word.verdict == "block":
            reasons[name] = f"blocked by {word.by}: {word.because}"
    return tuple(Block(name, reason) for name, reason in reasons.items())


def _of_study(report: Report, limits: Thresholds) -> Iterable[Finding]:
    site, cohort = report.site, report.cohort
    if cohort is None:
        text = f"the cohort cannot be built: {report.cohort_fault}"
        yield Finding(feature=WHOLE_STUDY, gate="cohort", colour="red", text=text)
    else:
        yield _at_least("cohort", cohort.patients, limits.cohort, limits, "patients")
        if cohort.events is None:
            text = "the endpoint is a value, which has no events"
            yield Finding(
                feature=WHOLE_STUDY, gate="outcome_events", colour="not judged", text=text
            )
        else:
            yield _at_least(
                "outcome_events", cohort.events, limits.outcome_events, limits, "outcome events"
            )
    yield _share(
        (WHOLE_STUDY, "unmapped"),
        (site.unmapped, site.coded),
        limits.unmapped_percent,
        limits,
        "events have a code of a local vocabulary",
    )
    lag = None if site.newest is None else (report.made - site.newest).total_seconds() / 86400
    yield _lag(WHOLE_STUDY, lag, limits, "since the newest event of all")


def _of_feature(report: Report, counts: FeatureCounts, limits: Thresholds) -> Iterable[Finding]:
    name = counts.name
    wrong_unit = counts.unknown_unit + counts.refused_unit
    if counts.kind == "number":
        yield _share(
            (name, "unknown_unit"),
            (wrong_unit, counts.values + wrong_unit),
            limits.unknown_unit_percent,
            limits,
            "numbers have no unit or one that does not convert"
            + (f", {counts.refused_unit:,} of them in quarantine" if counts.refused_unit else ""),
        )
    if counts.kind in {"number", "flag", "category"}:
        yield _share(
            (name, "implausible"),
            (counts.implausible, counts.values),
            limits.implausible_percent,
            limits,
            "values are implausible"
            + (f", {counts.not_finite:,} of them no finite number" if counts.not_finite else ""),
        )
        yield _lag(name, report.lag_days(counts.newest), limits, "behind the newest event of all")
    yield _coverage(report, counts, limits)
    if counts.kind == "number":
        yield _distance(counts, limits)


def _coverage(report: Report, counts: FeatureCounts, limits: Thresholds) -> Finding:
    where = (counts.name, "coverage")
    if counts.kind == "presence":
        return _unjudged(where, "absence is an answer")
    if report.cohort is None or counts.covered is None:
        return _unjudged(where, "there is no cohort")
    missing = report.cohort.patients - counts.covered
    most = None if limits.coverage_percent is None else 100 - limits.coverage_percent
    text = "patients of the cohort lack a value in the look-back"
    return _share(where, (missing, report.cohort.patients), most, limits, text)


def _distance(counts: FeatureCounts, limits: Thresholds) -> Finding:
    where = (counts.name, "ks")
    if counts.ks is None:
        return _unjudged(where, "there is no reference for it, or no value")
    text = f"Kolmogorov-Smirnov distance {counts.ks:.3f} from the reference"
    colour = _colour(counts.ks, limits.ks, limits)
    return Finding(feature=where[0], gate=where[1], colour=colour, text=text, limit=limits.ks)


def _lag(feature: str, lag: float | None, limits: Thresholds, words: str) -> Finding:
    if lag is None:
        return _unjudged((feature, "lag"), "there is no row")
    colour = _colour(lag, limits.lag_days, limits)
    text = f"{lag:.1f} days {words}"
    return Finding(feature=feature, gate="lag", colour=colour, text=text, limit=limits.lag_days)


def _share(
    where: tuple[str, str],
    count: tuple[int, int],
    limit: float | None,
    limits: Thresholds,
    words: str,
) -> Finding:
    """`count` is how many, of how many."""
    failing, of = count
    if not of:
        return _unjudged(where, "there is nothing to judge")
    percent = 100 * failing / of
    return Finding(
        feature=where[0],
        gate=where[1],
        colour=_colour(percent, limit, limits),
        text=f"{failing:,} of {of:,} {words} ({percent:.3g} %)",
        failing=failing,
        of=of,
        limit=limit,
    )


def _at_least(gate: str, count: int, limit: int | None, limits: Thresholds, words: str) -> Finding:
    colour: Colour = "green"
    if limit is None:
        colour = "not judged"
    elif count < limit:
        colour = "red"
    elif count * limits.amber_at < limit:
        colour = "amber"
    text = f"{count:,} {words}"
    return Finding(feature=WHOLE_STUDY, gate=gate, colour=colour, text=text, limit=limit)


def _colour(value: float, limit: float | None, limits: Thresholds) -> Colour:
    if limit is None:
        return "not judged"
    if value > limit:
        return "red"
    return "amber" if value > limit * limits.amber_at else "green"


def _unjudged(where: tuple[str, str], text: str) -> Finding:
    return Finding(feature=where[0], gate=where[1], colour="not judged", text=text)
