"""What a readiness report holds: counts, never verdicts.

Verdicts are made when somebody looks (`gates`), so that a threshold can be changed without
counting again. Everything here stays at the hospital.
"""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from fedtwin_protocol.contract import Part

BINS = 20
"""Of the histogram over a feature's plausible range."""


class FeatureCounts(Part):
    """One feature of the contract.

    Attributes:
        name: the feature's.
        kind: the feature's.
        unit: of all values below.
        rows: events with one of the feature's codes.
        subjects: different patients among them.
        null: rows without a value of the kind that is asked for.
        unknown_unit: numbers in a unit that does not convert to the feature's.
        refused_unit: numbers of the same analytes that were put aside because of their unit.
        converted: numbers that were written in another unit.
        values: rows with a value that could be judged, after conversion.
        implausible: of these, outside the plausible range, or not among the answers.
        not_finite: of these, infinite or not a number, which older imports could leave; percentiles
            are without them.
        p01: first percentile of the values; none without any, or where they are no numbers.
        p50: their median.
        p99: their 99th percentile.
        newest: when the newest row up to now happened.
        future: rows that lie, or became known, after the report was made.
        before_birth: rows before the patient's birth.
        after_death: rows after the patient's death.
        duplicates: rows that repeat another one of the patient in code, time, value and unit.
        comparator: rows whose value is a bound.
        delay_p50_days: median from happening to being known.
        delay_p95_days: 95th percentile of the same.
        covered: patients of the cohort with a usable value in the look-back; none: no cohort.
        ks: Kolmogorov-Smirnov distance from the reference; none: not judged.
        drift: the same between the last 30 days and the 30 before; none: fewer than 50 values in
            one of them.
        recent: usable values of the last 30 days, and of the 30 before.
        histogram: values below the plausible range, in 20 equal parts of it, and above.
        months: rows of each month, `2026-03` and the number, oldest first.
    """

    name: str
    kind: str
    unit: str = "1"
    rows: int = 0
    subjects: int = 0
    null: int = 0
    unknown_unit: int = 0
    refused_unit: int = 0
    converted: int = 0
    values: int = 0
    implausible: int = 0
    not_finite: int = 0
    p01: float | None = None
    p50: float | None = None
    p99: float | None = None
    newest: AwareDatetime | None = None
    future: int = 0
    before_birth: int = 0
    after_death: int = 0
    duplicates: int = 0
    comparator: int = 0
    delay_p50_days: float | None = None
    delay_p95_days: float | None = None
    covered: int | None = None
    ks: float | None = None
    drift: float | None = None
    recent: tuple[int, int] = (0, 0)
    histogram: tuple[int, ...] = ()
    months: tuple[tuple[str, int], ...] = ()


class YearCounts(Part):
    """Patients of the cohort by the year of their index date.

    Attributes:
        year: of the index date, UTC.
        patients: of that year.
        events: of the endpoint; none where it is a value.
    """

    year: int
    patients: int
    events: int | None


class CohortCounts(Part):
    """Who would take part.

    Attributes:
        patients: selected, with a known endpoint.
        events: of the endpoint among them; none where it is a value.
        mean: of what is learned: the prevalence of a yes-or-no endpoint, events for each patient of
            a count, the scaled value of a value; none without patients.
        exclusions: how many patients each reason left out.
        years: by index date.
    """

    patients: int
    events: int | None
    mean: float | None
    exclusions: dict[str, int]
    years: tuple[YearCounts, ...]


class CodeCount(Part):
    """A code that no shared vocabulary has."""

    code: str
    rows: int
    subjects: int


class SiteCounts(Part):
    """The timelines as a whole.

    Attributes:
        rows: events.
        subjects: patients with any.
        newest: when the newest event up to now happened.
        coded: events, without births, deaths and sexes.
        unmapped: of these, with a code of a local vocabulary that the plan does not ask for.
        commonest: the 20 such codes with most rows; codes of fewer than 10 patients are not named.
        put_aside: what imports and doors put aside, by reason; quoted parts are left out, and the
            same record put aside again for the same reason counts once.
        refused_units: how many numbers of those had no unit or a wrong one, by analyte.
        doors: what live doors did not use, by reason, since the node was set up.
    """

    rows: int
    subjects: int
    newest: AwareDatetime | None
    coded: int
    unmapped: int
    commonest: tuple[CodeCount, ...]
    put_aside: dict[str, int]
    refused_units: dict[str, int]
    doors: dict[str, int]


class Report(Part):
    """One readiness report.

    Attributes:
        study: the plan's name.
        plan_hash: SHA-256 of the plan.
        made: when it was counted.
        site: the timelines as a whole.
        cohort: who would take part; none: it cannot be built.
        cohort_fault: why not.
        features: in the order of the contract.
        reference: what values were compared with; none: nothing was at hand.
    """

    format: Literal["fedtwin-readiness-1"] = "fedtwin-readiness-1"
    study: str
    plan_hash: str
    made: AwareDatetime
    site: SiteCounts
    cohort: CohortCounts | None
    cohort_fault: str = ""
    features: tuple[FeatureCounts, ...]
    reference: str | None = None

    def feature(self, name: str) -> FeatureCounts | None:
        """The counts of a feature."""
        return next((one for one in self.features if one.name == name), None)

    def lag_days(self, newest: datetime | None) -> float | None:
        """Days from a feature's newest row to the newest row of all; none without any."""
        if newest is None or self.site.newest is None:
            return None
        return (self.site.newest - newest).total_seconds() / 86400
