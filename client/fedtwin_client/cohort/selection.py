"""Who takes part in a study, as of each patient's index date, and what became of them.

A patient is left out for the first reason that holds, in this order:

1. no index event; 2. died before the index date; 3. no birth date; 4. too young or too old;
5. lacks a required code; 6. has an excluding code; 7. the endpoint is not known.

Codes count for 5 and 6 only if they happened and were known by the index date. Only the endpoint
looks ahead: at (index date, index date + horizon].
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import unit_conversions
from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_patients import Endpoint

_MEDS = {"MEDS//BIRTH": BIRTH, "MEDS//DEATH": DEATH}

_PEOPLE = """
CREATE TEMP TABLE people AS
WITH births AS (
    SELECT subject_id, min(time) AS birth FROM events WHERE code = $birth GROUP BY subject_id
), deaths AS (
    SELECT subject_id, min(time) AS death FROM events WHERE code = $death GROUP BY subject_id
), sexes AS (
    SELECT subject_id, CASE WHEN count(DISTINCT text_value) = 1 THEN min(text_value) END AS sex
    FROM events WHERE code = $sex GROUP BY subject_id
), records AS (
    SELECT subject_id, max(time) AS last_time FROM events
    WHERE time <= $now OR time IS NULL GROUP BY subject_id
), aged AS (
    SELECT *, date_sub('year', birth, index_time) AS years
    FROM records LEFT JOIN indexes USING (subject_id) LEFT JOIN births USING (subject_id)
    LEFT JOIN deaths USING (subject_id) LEFT JOIN sexes USING (subject_id)
)
SELECT subject_id, index_time, birth, death, last_time,
    CASE sex WHEN 'male' THEN 1.0 WHEN 'female' THEN 0.0 END AS sex,
    years + (epoch_us(index_time) - epoch_us(birth + to_years(years)))
        / (epoch_us(birth + to_years(years + 1)) - epoch_us(birth + to_years(years))) AS age
FROM aged
"""
_INDEX_BY_EVENT = """
CREATE TEMP TABLE indexes AS
SELECT subject_id, CASE WHEN $last THEN max(time) ELSE min(time) END AS index_time FROM events
WHERE code IN (SELECT unnest($codes::VARCHAR[])) AND time <= $now GROUP BY subject_id
"""
_INDEX_BY_DATE = """
CREATE TEMP TABLE indexes AS
SELECT DISTINCT subject_id, $date::TIMESTAMP AS index_time FROM events
"""
_KNOWN_BY_INDEX = """
SELECT DISTINCT subject_id FROM events JOIN people USING (subject_id)
WHERE code IN (SELECT unnest($codes::VARCHAR[]))
    AND time <= index_time AND available_time <= index_time
"""
_EVENT_AFTER = """
SELECT DISTINCT subject_id, 1.0 AS label FROM events JOIN people USING (subject_id)
WHERE code IN (SELECT unnest($codes::VARCHAR[]))
    AND time > index_time AND time <= index_time + to_days($horizon) AND time <= $now
"""
_FIRST_VALUE_AFTER = """
SELECT subject_id,
    (tidy(numeric_value * factor + shift, factor, shift) > $threshold)::DOUBLE AS label
FROM events JOIN people USING (subject_id) JOIN endpoint_units AS u
    ON events.code = u.code AND coalesce(events.unit, '') = u.unit
WHERE numeric_value IS NOT NULL
    AND time > index_time AND time <= index_time + to_days($horizon) AND time <= $now
QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY time, available_time, source) = 1
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The patients of a study, in the order of their pseudonyms.

    Attributes:
        subject_ids: (patients,) int64.
        age: (patients,) years at the index date.
        sex: (patients,) 1 male, 0 female, NaN unknown.
        labels: (patients,) 1 where the endpoint happened, 0 where not.
        exclusions: how many patients each reason left out.
    """

    subject_ids: NDArray[np.int64]
    age: NDArray[np.float64]
    sex: NDArray[np.float64]
    labels: NDArray[np.float64]
    exclusions: dict[str, int]


def stored_codes(codes: tuple[str, ...]) -> list[str]:
    """A plan's codes as the store writes them."""
    return sorted({_MEDS.get(code, code) for code in codes})


def select_patients(db: duckdb.DuckDBPyConnection, plan: StudyPlan, now: datetime) -> Selected:
    """Apply a plan's cohort and endpoint; leaves the table `people` with index dates behind.

    Args:
        db: a connection with the view `events` and the macro `tidy`.
        plan: the study.
        now: UTC without a zone; nothing after it counts.

    Raises:
        CohortError: the endpoint's values are in a unit that does not fit.
    """
    _find_indexes(db, plan, now)
    db.execute(_PEOPLE, {"birth": BIRTH, "death": DEATH, "sex": SEX, "now": now})
    people = db.execute("SELECT * FROM people ORDER BY subject_id").fetchnumpy()
    ids = np.asarray(people["subject_id"], dtype=np.int64)
    index_us, death_us = _microseconds(people["index_time"]), _microseconds(people["death"])
    age = _floats(people["age"])
    labels = _labels(db, plan.endpoint, now, ids)
    unknown, why = _endpoint_unknown(plan.endpoint, labels, index_us, people)
    cohort = plan.cohort
    rules: list[tuple[str, NDArray[np.bool_]]] = [
        ("no index event", np.isnan(index_us)),
        ("died before the index date", death_us < index_us),
        ("no birth date", _absent(people["birth"])),
        (f"younger than {cohort.minimum_age_years:g} years", age < cohort.minimum_age_years - 1e-9),
        (f"older than {cohort.maximum_age_years:g} years", age > cohort.maximum_age_years + 1e-9),
        (
            "lacks a required code by the index date",
            ~_known(db, cohort.require_codes, ids)
            if cohort.require_codes
            else np.zeros(len(ids), dtype=np.bool_),
        ),
        ("has an excluding code by the index date", _known(db, cohort.exclude_codes, ids)),
        (why, unknown),
    ]
    keep, exclusions = _first_reason(rules, len(ids))
    return Selected(
        subject_ids=ids[keep],
        age=age[keep],
        sex=_floats(people["sex"])[keep],
        labels=np.nan_to_num(labels[keep], nan=0.0),
        exclusions=exclusions,
    )


def _find_indexes(db: duckdb.DuckDBPyConnection, plan: StudyPlan, now: datetime) -> None:
    index = plan.cohort.index
    if index.date is None:
        last = index.which == "last"
        codes = stored_codes(index.codes)
        db.execute(_INDEX_BY_EVENT, {"last": last, "codes": codes, "now": now})
        return
    date = index.date.astimezone(UTC).replace(tzinfo=None)
    if date > now:
        raise CohortError(
            f"study {plan.study} asks for the index date {index.date:%Y-%m-%d}, which is to come"
        )
    db.execute(_INDEX_BY_DATE, {"date": date})


def _labels(
    db: duckdb.DuckDBPyConnection, endpoint: Endpoint, now: datetime, ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """1 or 0 where the endpoint is known from events within the horizon, NaN elsewhere."""
    codes = stored_codes(endpoint.codes)
    values: dict[str, Any] = {"horizon": endpoint.horizon_days, "now": now}
    if endpoint.kind == "event":
        found = db.execute(_EVENT_AFTER, {**values, "codes": codes}).fetchnumpy()
    else:
        units = unit_conversions(db, codes, endpoint.unit, f"endpoint '{endpoint.name}'")
        db.register("endpoint_units", units)
        values["threshold"] = endpoint.threshold
        found = db.execute(_FIRST_VALUE_AFTER, values).fetchnumpy()
    labels = np.full(len(ids), np.nan)
    labels[np.searchsorted(ids, np.asarray(found["subject_id"], dtype=np.int64))] = found["label"]
    return labels


def _endpoint_unknown(
    endpoint: Endpoint,
    labels: NDArray[np.float64],
    index_us: NDArray[np.float64],
    people: dict[str, Any],
) -> tuple[NDArray[np.bool_], str]:
    if endpoint.kind == "value_above":
        return np.isnan(labels), "no value of the endpoint within the horizon"
    horizon_us = endpoint.horizon_days * 86_400e6
    ended = _microseconds(people["last_time"]) < index_us + horizon_us
    follow = np.isnan(labels) & ended & endpoint.require_follow_up
    return follow, "record ends before the horizon without the endpoint"


def _known(
    db: duckdb.DuckDBPyConnection, codes: tuple[str, ...], ids: NDArray[np.int64]
) -> NDArray[np.bool_]:
    if not codes:
        return np.zeros(len(ids), dtype=np.bool_)
    found = db.execute(_KNOWN_BY_INDEX, {"codes": stored_codes(codes)}).fetchnumpy()
    return np.isin(ids, np.asarray(found["subject_id"], dtype=np.int64))


def _first_reason(
    rules: list[tuple[str, NDArray[np.bool_]]], patients: int
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    keep = np.ones(patients, dtype=np.bool_)
    exclusions: Counter[str] = Counter()
    for reason, holds in rules:
        out = keep & holds
        if out.any():
            exclusions[reason] += int(out.sum())
        keep &= ~holds
    return keep, dict(exclusions)


def _absent(column: Any) -> NDArray[np.bool_]:
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column) | np.isnat(column.data)
    return np.asarray(np.isnat(column))


def _microseconds(column: Any) -> NDArray[np.float64]:
    """Microseconds since 1970; below 2**53 for all years to come, so exact."""
    data = np.ma.getdata(column).astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.where(_absent(column), np.nan, data)


def _floats(column: Any) -> NDArray[np.float64]:
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
