"""Counting: the measures of a readiness report, in a few passes of DuckDB over the timelines."""

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from fedtwin_client.cohort.conversions import TIDY
from fedtwin_client.cohort.selection import Selected, select_patients
from fedtwin_client.readiness.counts import (
    BINS,
    CohortCounts,
    FeatureCounts,
    Report,
    SiteCounts,
    YearCounts,
)
from fedtwin_client.readiness.questions import (
    IN_LOOK_BACK,
    USABLE,
    Stored,
    ask,
    choose,
    know_lives,
)
from fedtwin_client.readiness.reference import Reference, distance
from fedtwin_client.readiness.site import site_counts
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import CohortError, RecordError
from fedtwin_protocol.study import StudyPlan

DRIFT_DAYS: Final = 30
DRIFT_VALUES: Final = 50
_EACH: Final = """
SELECT feature, count(DISTINCT subject_id) AS subjects,
    count(*) FILTER (has_value) AS values_, count(*) FILTER (implausible) AS implausible,
    quantile_cont(value, [0.01, 0.5, 0.99]) FILTER (kind = 'number') AS quantiles,
    max(time) FILTER (time <= $now) AS newest,
    count(*) FILTER (time > $now OR available_time > $now) AS future,
    count(*) FILTER (time < birth) AS before_birth, count(*) FILTER (time > death) AS after_death,
    count(*) - count(DISTINCT hash(subject_id, code, time, numeric_value, text_value, unit))
        AS duplicates,
    count(comparator) AS comparator,
    quantile_cont((epoch_us(available_time) - epoch_us(time)) / 86400e6, [0.5, 0.95]) AS delays
FROM judged LEFT JOIN lives USING (subject_id) WHERE feature = $feature GROUP BY feature
"""
_COVERED: Final = f"""
SELECT feature, count(DISTINCT c.subject_id)
FROM judged JOIN chosen AS c ON judged.subject_id = c.subject_id
WHERE {IN_LOOK_BACK} AND {USABLE} GROUP BY feature
"""  # noqa: S608 - constants
_HISTOGRAM: Final = """
SELECT feature, CASE WHEN value < low THEN 0 WHEN value > high THEN $bins + 1
    ELSE 1 + least($bins - 1, floor($bins * (value - low) / (high - low))::INTEGER) END, count(*)
FROM judged WHERE kind = 'number' AND value IS NOT NULL GROUP BY ALL
"""
_MONTHS: Final = """
SELECT feature, strftime(time, '%Y-%m'), count(*) FROM judged
WHERE time <= $now GROUP BY ALL ORDER BY ALL
"""
_DRIFT: Final = """
WITH near AS (
    SELECT feature, value, time > $newest - to_days($days) AS late FROM judged
    WHERE time > $newest - to_days(2 * $days) AND time <= $newest
        AND kind = 'number' AND value IS NOT NULL AND NOT implausible
), steps AS (
    SELECT feature, value, count(*) FILTER (late) AS late, count(*) FILTER (NOT late) AS early
    FROM near GROUP BY feature, value
), sums AS (
    SELECT feature, sum(late) OVER upto AS late, sum(early) OVER upto AS early,
        sum(late) OVER whole AS all_late, sum(early) OVER whole AS all_early
    FROM steps WINDOW upto AS (PARTITION BY feature ORDER BY value),
        whole AS (PARTITION BY feature)
)
SELECT feature, any_value(all_late)::BIGINT, any_value(all_early)::BIGINT,
    max(abs(late / nullif(all_late, 0) - early / nullif(all_early, 0)))
FROM sums GROUP BY feature
"""
_AGAINST: Final = """
SELECT feature, len(list_filter(quantiles, lambda one: one < value)) AS above_strictly,
    len(list_filter(quantiles, lambda one: one <= value)) AS above, count(*)
FROM judged JOIN sketches USING (feature)
WHERE value IS NOT NULL AND NOT implausible GROUP BY ALL
"""

Progress = Callable[[str], None]


def measure(
    timeline: Timeline,
    plan: StudyPlan,
    now: datetime,
    reference: Reference | None = None,
    progress: Progress = lambda _: None,
) -> Report:
    """Count everything that a readiness report holds.

    Args:
        timeline: the store.
        plan: the study.
        now: aware.
        reference: what values are compared with.
        progress: is told what is counted next.

    Raises:
        RecordError: the records cannot be read.
    """
    moment = now.astimezone(UTC).replace(tzinfo=None)
    try:
        with closing(timeline.connect()) as db:
            db.execute(TIDY)
            progress("codes")
            site = site_counts(db, timeline, plan, moment)
            stored = ask(db, plan.features)
            progress("cohort")
            selected, fault = _select(db, plan, moment)
            counting = _Counting(db, plan.features, moment, site, reference)
            features = counting.features(stored, selected, progress)
            cohort = None if selected is None else _cohort(db, plan, selected)
    except duckdb.Error as error:
        raise RecordError(f"the records in {timeline.folder} cannot be read: {error}") from error
    return Report(
        study=plan.study,
        plan_hash=plan.hash,
        made=now,
        site=site,
        cohort=cohort,
        cohort_fault=fault,
        features=features,
        reference=None if reference is None else reference.name,
    )


class _Counting:
    """The features' measures over one connection with the view `judged`."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        features: tuple[Feature, ...],
        now: datetime,
        site: SiteCounts,
        reference: Reference | None,
    ) -> None:
        self._db = db
        self._features = features
        self._now = now
        self._newest = None if site.newest is None else site.newest.replace(tzinfo=None)
        self._reference = reference

    def features(
        self, stored: list[Stored], selected: Selected | None, progress: Progress
    ) -> tuple[FeatureCounts, ...]:
        """All measures, in the order of the contract."""
        know_lives(self._db)
        found: list[dict[str, Any]] = []
        for number, feature in enumerate(self._features):
            progress(feature.name)
            found.append(self._each(number, feature, stored[number]))
        progress("look-back")
        covered = {} if selected is None else self._covered(selected)
        progress("change over time")
        histograms, months = self._histograms(), self._months()
        drifts, distances = self._drifts(), self._distances()
        for number, counts in enumerate(found):
            if selected is not None:
                counts["covered"] = covered.get(number, 0)
            counts["histogram"] = histograms.get(number, ())
            counts["months"] = months.get(number, ())
            counts.update(drifts.get(number, {}))
            counts["ks"] = distances.get(number)
        return tuple(FeatureCounts(**counts) for counts in found)

    def _each(self, number: int, feature: Feature, stored: Stored) -> dict[str, Any]:
        counts: dict[str, Any] = {
            "name": feature.name,
            "kind": feature.kind,
            "unit": feature.unit,
            "rows": stored.rows,
            "null": stored.null,
            "unknown_unit": stored.unknown_unit,
            "converted": stored.converted,
        }
        rows = self._db.execute(_EACH, {"now": self._now, "feature": number}).fetchall()
        if not rows:
            return counts
        names = ("subjects", "values", "implausible", "quantiles", "newest", "future",
                 "before_birth", "after_death", "duplicates", "comparator", "delays")  # fmt: skip
        counts |= dict(zip(names, rows[0][1:], strict=True))
        quantiles, delays = counts.pop("quantiles"), counts.pop("delays")
        if feature.kind == "category":
            counts["null"] = stored.rows - counts["values"]
        if counts["newest"] is not None:
            counts["newest"] = counts["newest"].replace(tzinfo=UTC)
        if quantiles is not None:
            counts |= dict(zip(("p01", "p50", "p99"), quantiles, strict=True))
        if delays is not None:
            counts |= dict(zip(("delay_p50_days", "delay_p95_days"), delays, strict=True))
        return counts

    def _covered(self, selected: Selected) -> dict[int, int]:
        """Patients of the cohort with a usable value; the table `chosen` stays behind."""
        choose(self._db, selected)
        found = {int(number): int(count) for number, count in self._db.execute(_COVERED).fetchall()}
        for number, feature in enumerate(self._features):
            if feature.kind in {"age", "sex"}:
                values = selected.age if feature.kind == "age" else selected.sex
                found[number] = int(np.isfinite(values).sum())
        return found

    def _histograms(self) -> dict[int, tuple[int, ...]]:
        found: dict[int, list[int]] = {}
        for number, place, count in self._db.execute(_HISTOGRAM, {"bins": BINS}).fetchall():
            found.setdefault(int(number), [0] * (BINS + 2))[int(place)] = int(count)
        return {number: tuple(counts) for number, counts in found.items()}

    def _months(self) -> dict[int, tuple[tuple[str, int], ...]]:
        found: dict[int, tuple[tuple[str, int], ...]] = {}
        for number, month, count in self._db.execute(_MONTHS, {"now": self._now}).fetchall():
            found[int(number)] = (*found.get(int(number), ()), (str(month), int(count)))
        return found

    def _drifts(self) -> dict[int, dict[str, Any]]:
        if self._newest is None:
            return {}
        asked = {"newest": self._newest, "days": DRIFT_DAYS}
        return {
            int(number): {
                "recent": (int(late), int(early)),
                "drift": float(most) if min(late, early) >= DRIFT_VALUES else None,
            }
            for number, late, early, most in self._db.execute(_DRIFT, asked).fetchall()
        }

    def _distances(self) -> dict[int, float]:
        if self._reference is None:
            return {}
        quantiles = self._reference.quantiles
        rows = [
            {"feature": number, "quantiles": list(quantiles[feature.name])}
            for number, feature in enumerate(self._features)
            if feature.name in quantiles
        ]
        schema = pa.schema([("feature", pa.int32()), ("quantiles", pa.list_(pa.float64()))])
        self._db.register("sketches", pa.Table.from_pylist(rows, schema=schema))
        numbers = [n for n, feature in enumerate(self._features) if feature.name in quantiles]
        below = {number: np.zeros(20, np.int64) for number in numbers}
        up_to = {number: np.zeros(20, np.int64) for number in numbers}
        for number, strictly, above, count in self._db.execute(_AGAINST).fetchall():
            # A value counts below the quantiles that are above it, and up to those not below it.
            below[number][int(above) :] += int(count)
            up_to[number][int(strictly) :] += int(count)
        return {
            number: distance(below[number][:19].tolist(), up_to[number][:19].tolist(), total)
            for number in below
            if (total := int(up_to[number][19]))
        }


def _select(
    db: duckdb.DuckDBPyConnection, plan: StudyPlan, now: datetime
) -> tuple[Selected | None, str]:
    try:
        return select_patients(db, plan, now), ""
    except CohortError as error:
        return None, str(error)


def _cohort(db: duckdb.DuckDBPyConnection, plan: StudyPlan, selected: Selected) -> CohortCounts:
    found = db.execute("SELECT subject_id, year(index_time) FROM chosen ORDER BY 1").fetchall()
    years = np.array([year for _, year in found], dtype=np.int64)
    counted = plan.endpoint.kind != "value"
    labels = selected.labels

    def events(here: Any) -> int | None:
        return int(labels[here].sum()) if counted else None

    everybody = np.ones(len(labels), np.bool_)
    return CohortCounts(
        patients=len(labels),
        events=events(everybody),
        mean=float(labels.mean()) if len(labels) else None,
        exclusions=selected.exclusions,
        years=tuple(
            YearCounts(year=year, patients=int((years == year).sum()), events=events(years == year))
            for year in sorted(set(years.tolist()))
        ),
    )
