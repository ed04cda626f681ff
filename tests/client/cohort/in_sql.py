"""The same questions in SQL, over the store as DuckDB sees it: with joins, groups and windows.

It shares no line with the way that the product takes, so what both say is what the words mean.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from fedtwin_client.cohort.conversions import TIDY, unit_conversions
from fedtwin_client.cohort.times import stored_codes
from fedtwin_client.store.timeline import Timeline
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.study import StudyPlan

BIRTH, DEATH, SEX = "MEDS_BIRTH", "MEDS_DEATH", "SEX"
_UNITS = """
CREATE TEMP VIEW units AS
SELECT code, coalesce(unit, '') AS unit, count(*) AS number FROM events
WHERE numeric_value IS NOT NULL GROUP BY ALL
"""
_MARKED = """
CREATE TEMP TABLE marked AS
SELECT subject_id, min(time) FILTER (code = $birth) AS birth,
    min(time) FILTER (code = $death AND time <= $now AND available_time <= $now) AS death,
    CASE WHEN count(DISTINCT text_value) FILTER (code = $sex) = 1
        THEN min(text_value) FILTER (code = $sex) END AS sex,
    CASE WHEN $last THEN max(time) FILTER (marks) ELSE min(time) FILTER (marks) END AS marked_time
FROM (
    SELECT *, list_contains($codes::VARCHAR[], code)
        AND time <= $now AND available_time <= $now AS marks
    FROM events WHERE code IN (SELECT unnest($all_codes::VARCHAR[]))
)
GROUP BY subject_id
"""
_PEOPLE = """
CREATE TEMP TABLE people AS
WITH seen AS (
    SELECT subject_id, max(
        CASE WHEN time IS NULL THEN '-infinity'::TIMESTAMP
        WHEN time <= $now AND available_time <= $now THEN time END
    ) AS last_time FROM events GROUP BY subject_id
), records AS (
    SELECT subject_id, nullif(last_time, '-infinity'::TIMESTAMP) AS last_time
    FROM seen WHERE last_time IS NOT NULL
), dated AS (
    SELECT *, coalesce($date::TIMESTAMP, marked_time) AS index_time
    FROM records LEFT JOIN marked USING (subject_id)
), aged AS (
    SELECT *, date_sub('year', birth, index_time) AS years
    FROM dated
)
SELECT subject_id, index_time, birth, death, last_time,
    CASE sex WHEN 'male' THEN 1.0 WHEN 'female' THEN 0.0 END AS sex,
    years + (epoch_us(index_time) - epoch_us(birth + to_years(years)))
        / (epoch_us(birth + to_years(years + 1)) - epoch_us(birth + to_years(years))) AS age
FROM aged
"""
_KNOWN_BY_INDEX = """
SELECT DISTINCT subject_id FROM events JOIN people USING (subject_id)
WHERE code IN (SELECT unnest($codes::VARCHAR[]))
    AND time <= index_time AND available_time <= index_time
"""

_EVENTS_AFTER = """
SELECT subject_id, count(DISTINCT time)::DOUBLE AS number,
    (epoch_us(min(time)) - epoch_us(any_value(index_time)))::DOUBLE / $day AS days
FROM events JOIN people USING (subject_id)
WHERE code IN (SELECT unnest($codes::VARCHAR[]))
    AND time > index_time AND time <= index_time + to_days($horizon)
    AND time <= $now AND available_time <= $now
GROUP BY subject_id
"""
_FIRST_VALUE_AFTER = """
SELECT subject_id,
    tidy(numeric_value * factor + shift, factor, shift) AS label
FROM events JOIN people USING (subject_id) JOIN endpoint_units AS u
    ON events.code = u.code AND coalesce(events.unit, '') = u.unit
WHERE numeric_value IS NOT NULL
    AND time > index_time AND time <= index_time + to_days($horizon)
    AND time <= $now AND available_time <= $now
QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY file_row_number) = 1
"""

# One question at a time; of all values in the window, each in the unit that is asked for.
_VALUES = """
SELECT subject_id, file_row_number AS position, value, value BETWEEN $low AND $high AS sound
FROM (
    SELECT e.*, p.index_time,
        CASE WHEN $presence THEN 1.0
            ELSE tidy(e.numeric_value * u.factor + u.shift, u.factor, u.shift) END AS value
    FROM events AS e JOIN people AS p USING (subject_id)
    LEFT JOIN given_units AS u ON e.code = u.code AND coalesce(e.unit, '') = u.unit
    WHERE e.code IN (SELECT unnest($codes::VARCHAR[]))
        AND ($presence OR (e.numeric_value IS NOT NULL AND u.factor IS NOT NULL))
)
WHERE time <= index_time AND available_time <= index_time
    AND ($days::INTEGER IS NULL OR time >= index_time - to_days($days::INTEGER))
"""
_SUMMARY = {
    "last": "arg_max(value, position) FILTER (sound)",
    "first": "arg_min(value, position) FILTER (sound)",
    "mean": "fsum(value) FILTER (sound) / count(value) FILTER (sound)",
    "min": "min(value) FILTER (sound)",
    "max": "max(value) FILTER (sound)",
    "count": "nullif(count(value) FILTER (sound), 0)",
}
_ANSWERS = """
SELECT subject_id, {which}(answer, position) FROM (
    SELECT e.subject_id, e.file_row_number AS position, e.numeric_value AS value,
        coalesce(e.text_value, CASE WHEN value = floor(value) AND abs(value) < 1e15
        THEN value::BIGINT::VARCHAR ELSE value::VARCHAR END) AS answer
    FROM events AS e JOIN people AS p USING (subject_id)
    WHERE e.code IN (SELECT unnest($codes::VARCHAR[]))
        AND e.time <= p.index_time AND e.available_time <= p.index_time
        AND ($days::INTEGER IS NULL OR e.time >= p.index_time - to_days($days::INTEGER))
) WHERE answer IS NOT NULL GROUP BY subject_id
"""


class InSql:
    """A study's questions to one state of the store."""

    def __init__(self, timeline: Timeline, plan: StudyPlan, now: datetime) -> None:
        self.db, self.plan = timeline.connect(), plan
        self.now = now.astimezone(UTC).replace(tzinfo=None)
        self.db.execute(TIDY)
        self.db.execute(_UNITS)
        index = plan.cohort.index
        codes = stored_codes(index.codes)
        asked: dict[str, Any] = {"birth": BIRTH, "death": DEATH, "sex": SEX, "codes": codes}
        asked |= {"last": index.which == "last", "now": self.now}
        asked["all_codes"] = [BIRTH, DEATH, SEX, *codes]
        self.db.execute(_MARKED, asked)
        date = None if index.date is None else index.date.astimezone(UTC).replace(tzinfo=None)
        self.db.execute(_PEOPLE, {"date": date, "now": self.now})

    def people(self) -> dict[int, dict[str, Any]]:
        """Index date, birth, death, end of the record, sex and age of everybody."""
        rows = self.db.execute("SELECT * FROM people")
        names = [column[0] for column in rows.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in rows.fetchall()}

    def known_by_index(self, codes: tuple[str, ...]) -> set[int]:
        """Who has one of some codes by the index date."""
        rows = self.db.execute(_KNOWN_BY_INDEX, {"codes": stored_codes(codes)}).fetchall()
        return {row[0] for row in rows}

    def events_after(self) -> dict[int, tuple[float, float]]:
        """Of whom the endpoint happened: at how many moments, and after how many days."""
        endpoint = self.plan.endpoint
        asked = {"horizon": endpoint.horizon_days, "now": self.now, "day": 86_400e6}
        asked["codes"] = stored_codes(endpoint.codes)
        rows = self.db.execute(_EVENTS_AFTER, asked).fetchall()
        return {who: (number, days) for who, number, days in rows}

    def first_value_after(self) -> dict[int, float]:
        """Of whom the endpoint has a value."""
        endpoint = self.plan.endpoint
        self._give_units("endpoint_units", endpoint.codes, endpoint.unit)
        asked = {"horizon": endpoint.horizon_days, "now": self.now}
        return dict(self.db.execute(_FIRST_VALUE_AFTER, asked).fetchall())

    def feature(self, feature: Feature) -> tuple[dict[int, Any], dict[int, int]]:
        """Of whom it has a value, and how many implausible ones each has."""
        codes = stored_codes(feature.codes)
        asked: dict[str, Any] = {"codes": codes, "days": feature.window_days}
        if feature.kind == "category":
            which = "arg_min" if feature.summary == "first" else "arg_max"
            return dict(self.db.execute(_ANSWERS.format(which=which), asked).fetchall()), {}
        self._give_units("given_units", feature.codes, feature.unit if feature.plausible else None)
        asked["low"], asked["high"] = feature.plausible or (-np.inf, np.inf)
        asked["presence"] = feature.kind == "presence"
        summary = _SUMMARY["max" if asked["presence"] and not feature.counts else feature.summary]
        rows = self.db.execute(
            f"SELECT subject_id, {summary}, count(*) - count(*) FILTER (sound)"
            f" FROM ({_VALUES}) GROUP BY subject_id",
            asked,
        ).fetchall()
        values = {who: value for who, value, _ in rows if value is not None}
        return values, {who: outside for who, _, outside in rows}

    def _give_units(self, name: str, codes: tuple[str, ...], unit: str | None) -> None:
        stored: dict[str, list[tuple[str, int]]] = {}
        for code, written, number in self.db.execute("FROM units ORDER BY ALL").fetchall():
            stored.setdefault(code, []).append((written, number))
        names = stored_codes(codes)
        if unit is None:  # numbers are taken as they are
            rows = [(code, seen, 1.0, 0.0) for code in names for seen, _ in stored.get(code, ())]
        else:
            found = unit_conversions(stored, names, unit, "what is asked")
            rows = [(one.code, one.unit, one.factor, one.shift) for one in found]
        columns = list(zip(*rows, strict=True)) if rows else [()] * 4
        kinds = (pa.string(), pa.string(), pa.float64(), pa.float64())
        names = ["code", "unit", "factor", "shift"]
        table = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
        self.db.register(name, pa.table(dict(zip(names, table, strict=True))))
