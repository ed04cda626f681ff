"""Counting: the measures of a readiness report, in a few passes of DuckDB over the timelines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

import duckdb
import numpy as np

from fedtwin_client.cohort.conversions import TIDY
from fedtwin_client.cohort.selection import Selected, select_patients
from fedtwin_client.cohort.times import stored_codes, years_of
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
from fedtwin_client.readiness.reference import LEVELS, Reference, distance
from fedtwin_client.readiness.site import site_counts
from fedtwin_client.records.analytes import analyte
from fedtwin_client.store.pieces import PatientColumns
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.errors import CohortError, RecordError
from fedtwin_protocol.study import StudyPlan

DRIFT_DAYS: Final = 30
DRIFT_VALUES: Final = 50
# The timelines are read once for several features, up to so many rows, so that memory stays small;
# every measure is of one feature's rows.
_ROWS_AT_ONCE: Final = 3_000_000
_SEVERAL: Final = """
CREATE OR REPLACE TEMP TABLE several AS
SELECT feature, subject_id, time, available_time, value, has_value, implausible,
    comparator IS NOT NULL AS bound, hash(code, numeric_value, text_value, unit) AS said
FROM judged WHERE feature BETWEEN $first AND $last AND code IN ({codes})
"""
_ONE: Final = """
CREATE OR REPLACE TEMP VIEW one AS
SELECT * EXCLUDE (feature), '{kind}' AS kind, {low}::DOUBLE AS low, {high}::DOUBLE AS high,
    {days}::INTEGER AS days FROM several WHERE feature = {feature}
"""
_EACH: Final = """
SELECT count(DISTINCT subject_id) AS subjects, count(*) FILTER (has_value) AS values_,
    count(*) FILTER (implausible) AS implausible,
    quantile_cont(value, [0.01, 0.5, 0.99]) FILTER (kind = 'number') AS quantiles,
    max(time) FILTER (time <= $now) AS newest,
    count(*) FILTER (time > $now OR available_time > $now) AS future,
    count(*) FILTER (bound) AS comparator,
    quantile_cont((epoch_us(available_time) - epoch_us(time)) / 86400e6, [0.5, 0.95]) AS delays
FROM one HAVING count(*) > 0
"""
_LIFETIME: Final = """
SELECT count(*) FILTER (time < birth), count(*) FILTER (time > death)
FROM one JOIN lives USING (subject_id)
"""
# In the order of the store all events of a patient at one moment are neighbours. Whether they are
# is checked, because an engine promises no order: as many runs as patients, and no step back.
_NEIGHBOURS: Final = """
CREATE OR REPLACE TEMP TABLE neighbours AS
SELECT subject_id, time, lag(subject_id) OVER () IS DISTINCT FROM subject_id AS first,
    lag(time) OVER () AS before FROM one
"""
_IN_ORDER: Final = """
SELECT count(*) FILTER (first) = count(DISTINCT subject_id)
    AND count(*) FILTER (NOT first AND before > time) = 0 FROM neighbours
"""
_TOGETHER: Final = """
(SELECT one.* FROM one SEMI JOIN
    (SELECT DISTINCT subject_id, time FROM neighbours WHERE NOT first AND before = time) AS several
    USING (subject_id, time))
"""
_DUPLICATES: Final = """
SELECT coalesce(sum(copies - 1), 0)::BIGINT
FROM (SELECT count(*) AS copies FROM {rows} GROUP BY subject_id, time, said)
"""
_COVERED: Final = f"""
SELECT count(DISTINCT c.subject_id) FROM one AS judged
JOIN chosen AS c ON judged.subject_id = c.subject_id WHERE {IN_LOOK_BACK} AND {USABLE}
"""  # noqa: S608 - constants
_HISTOGRAM: Final = """
SELECT CASE WHEN value < low THEN 0 WHEN value > high THEN $bins + 1
    ELSE 1 + least($bins - 1, floor($bins * (value - low) / (high - low))::INTEGER) END, count(*)
FROM one WHERE value IS NOT NULL GROUP BY ALL
"""
_MONTHS: Final = """
SELECT year(time) AS year, month(time) AS month, count(*) FROM one
WHERE time <= $now GROUP BY ALL ORDER BY ALL
"""
_DRIFT: Final = """
WITH steps AS (
    SELECT value, count(*) FILTER (time > $newest - to_days($days)) AS late,
        count(*) FILTER (time <= $newest - to_days($days)) AS early
    FROM one WHERE time > $newest - to_days(2 * $days) AND time <= $newest
        AND value IS NOT NULL AND NOT implausible
    GROUP BY value
), sums AS (
    SELECT sum(late) OVER upto AS late, sum(early) OVER upto AS early,
        sum(late) OVER () AS all_late, sum(early) OVER () AS all_early
    FROM steps WINDOW upto AS (ORDER BY value)
)
SELECT any_value(all_late)::BIGINT, any_value(all_early)::BIGINT,
    max(abs(late / nullif(all_late, 0) - early / nullif(all_early, 0)))
FROM sums HAVING count(*) > 0
"""
_AGAINST: Final = """
SELECT len(list_filter($quantiles::DOUBLE[], lambda one: one < value)) AS above_strictly,
    len(list_filter($quantiles::DOUBLE[], lambda one: one <= value)) AS above, count(*)
FROM one WHERE value IS NOT NULL AND NOT implausible GROUP BY ALL
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
            selected, fault = _select(timeline, plan, moment)
            counting = _Counting(db, moment, site, selected, reference)
            features = []
            for first, last in together([one.rows for one in stored]):
                counting.read(plan.features, first, last)
                for number in range(first, last + 1):
                    progress(plan.features[number].name)
                    features.append(counting.feature(number, plan.features[number], stored[number]))
            cohort = None if selected is None else _cohort(plan, selected)
    except duckdb.Error as error:
        raise RecordError(f"the records in {timeline.folder} cannot be read: {error}") from error
    return Report(
        study=plan.study,
        plan_hash=plan.hash,
        made=now,
        site=site,
        cohort=cohort,
        cohort_fault=fault,
        features=tuple(features),
        reference=None if reference is None else reference.name,
    )


class _Counting:
    """The features' measures over one connection with the view `judged`."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        now: datetime,
        site: SiteCounts,
        selected: Selected | None,
        reference: Reference | None,
    ) -> None:
        self._db = db
        self._now = now
        self._newest = None if site.newest is None else site.newest.replace(tzinfo=None)
        self._refused = site.refused_units
        self._selected = selected
        self._reference = reference
        know_lives(db)
        if selected is not None:
            choose(db, selected)

    def read(self, features: tuple[Feature, ...], first: int, last: int) -> None:
        """Read the events about some features, which stand side by side."""
        codes = [code for one in features[first : last + 1] for code in stored_codes(one.codes)]
        # Parameters one by one: of a list DuckDB does not know while it reads what to leave out.
        named = {f"code_{place}": code for place, code in enumerate(sorted(set(codes)))}
        sql = _SEVERAL.format(codes=", ".join(f"${name}" for name in named) or "NULL")
        self._db.execute(sql, {"first": first, "last": last, **named})

    def feature(self, number: int, feature: Feature, stored: Stored) -> FeatureCounts:
        """All measures of one feature of the contract."""
        counts: dict[str, Any] = {
            "name": feature.name,
            "kind": feature.kind,
            "unit": feature.unit,
            "rows": stored.rows,
            "null": stored.null,
            "unknown_unit": stored.unknown_unit,
            "converted": stored.converted,
        }
        if feature.kind in {"age", "sex"}:
            counts["covered"] = self._known(feature.kind)
            return FeatureCounts(**counts)
        low, high = feature.plausible or (0.0, 1.0)
        days = "NULL" if feature.window_days is None else f"{feature.window_days:d}"
        self._db.execute(
            _ONE.format(
                kind=feature.kind, low=repr(low), high=repr(high), days=days, feature=number
            )
        )
        counts |= self._each()
        if feature.kind == "category":
            counts["null"] = stored.rows - counts.get("values", 0)
        if self._selected is not None:
            counts["covered"] = self._count(_COVERED)
        if feature.kind == "number":
            known = {found.name for code in feature.codes if (found := analyte(code))}
            counts["refused_unit"] = sum(self._refused.get(name, 0) for name in known)
            counts |= self._numbers(feature)
        return FeatureCounts(**counts)

    def _known(self, kind: str) -> int | None:
        if self._selected is None:
            return None
        values = self._selected.age if kind == "age" else self._selected.sex
        return int(np.isfinite(values).sum())

    def _each(self) -> dict[str, Any]:
        """What every kind of feature has; nothing without a row."""
        rows = self._db.execute(_EACH, {"now": self._now}).fetchall()
        if not rows:
            return {}
        names = ("subjects", "values", "implausible", "quantiles", "newest", "future",
                 "comparator", "delays")  # fmt: skip
        counts = dict(zip(names, rows[0], strict=True))
        quantiles, delays = counts.pop("quantiles"), counts.pop("delays")
        if counts["newest"] is not None:
            counts["newest"] = counts["newest"].replace(tzinfo=UTC)
        if quantiles is not None:
            counts |= dict(zip(("p01", "p50", "p99"), quantiles, strict=True))
        if delays is not None:
            counts |= dict(zip(("delay_p50_days", "delay_p95_days"), delays, strict=True))
        before, after = self._db.execute(_LIFETIME).fetchone() or (0, 0)
        months = self._db.execute(_MONTHS, {"now": self._now}).fetchall()
        return counts | {
            "before_birth": before,
            "after_death": after,
            "duplicates": self._duplicates(),
            "months": tuple((f"{year:04d}-{month:02d}", count) for year, month, count in months),
        }

    def _duplicates(self) -> int:
        self._db.execute(_NEIGHBOURS)
        rows = _TOGETHER if self._count(_IN_ORDER) else "one"
        return self._count(_DUPLICATES.format(rows=rows))

    def _numbers(self, feature: Feature) -> dict[str, Any]:
        """What only measured values have."""
        bins = [0] * (BINS + 2)
        for place, count in self._db.execute(_HISTOGRAM, {"bins": BINS}).fetchall():
            bins[int(place)] = int(count)
        return {
            "histogram": tuple(bins) if any(bins) else (),
            "ks": self._distance(feature),
            **self._drift(),
        }

    def _drift(self) -> dict[str, Any]:
        asked = {"newest": self._newest, "days": DRIFT_DAYS}
        rows = [] if self._newest is None else self._db.execute(_DRIFT, asked).fetchall()
        if not rows:
            return {}
        late, early, most = rows[0]
        enough = min(late, early) >= DRIFT_VALUES
        return {"recent": (late, early), "drift": most if enough else None}

    def _distance(self, feature: Feature) -> float | None:
        quantiles = () if self._reference is None else self._reference.quantiles.get(feature.name)
        if not quantiles:
            return None
        below, up_to = (np.zeros(len(LEVELS) + 1, np.int64) for _ in range(2))
        asked = {"quantiles": list(quantiles)}
        for strictly, above, count in self._db.execute(_AGAINST, asked).fetchall():
            # A value counts below the quantiles that are above it, and up to those not below it.
            below[int(above) :] += int(count)
            up_to[int(strictly) :] += int(count)
        values = int(up_to[-1])
        return distance(below[:-1].tolist(), up_to[:-1].tolist(), values) if values else None

    def _count(self, sql: str) -> int:
        found = self._db.execute(sql).fetchone()
        assert found is not None
        return int(found[0])


def together(rows: Sequence[int], most: int = _ROWS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """Features that are read at once: the first and the last of each group.

    Args:
        rows: of each feature.
        most: rows at once; a feature with more is read by itself.
    """
    first, held = 0, 0
    for number, count in enumerate(rows):
        if number > first and held + count > most:
            yield first, number - 1
            first, held = number, 0
        held += count
    if rows:
        yield first, len(rows) - 1


def _select(timeline: Timeline, plan: StudyPlan, now: datetime) -> tuple[Selected | None, str]:
    try:
        return select_patients(PatientColumns(timeline=timeline), plan, now), ""
    except CohortError as error:
        return None, str(error)


def _cohort(plan: StudyPlan, selected: Selected) -> CohortCounts:
    years = years_of(selected.index)
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
