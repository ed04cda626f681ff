"""Who takes part in a study, as of each patient's index date, and what became of them.

A patient is left out for the first reason that holds, in this order:

1. no index event; 2. died before the index date; 3. no birth date; 4. too young or too old;
5. lacks a required code; 6. has an excluding code; 7. the endpoint is not known.

Codes count for 5 and 6 only if they happened and were known by the index date. Only the endpoint
looks ahead: at (index date, index date + horizon]. Of index events, deaths, the end of the record
and the endpoint nothing counts that happened after now, or was not known by now.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.endpoints import DAY_US, outcomes_of
from fedtwin_client.cohort.times import absent, literals, microseconds, stored_codes
from fedtwin_client.records.events import BIRTH, DEATH, SEX
from fedtwin_protocol.errors import CohortError
from fedtwin_protocol.study import StudyPlan

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
    FROM events WHERE code IN {all_codes}
)
GROUP BY subject_id
"""
_PEOPLE = """
CREATE TEMP TABLE people AS
WITH seen AS (
    SELECT subject_id, max(
        CASE WHEN time IS NULL THEN '-infinity'::TIMESTAMP
        WHEN time <= {now} AND available_time <= {now} THEN time END
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The patients of a study, in the order of their pseudonyms.

    Attributes:
        subject_ids: (patients,) int64.
        age: (patients,) years at the index date.
        sex: (patients,) 1 male, 0 female, NaN unknown.
        labels: (patients,) 1 where the endpoint happened, 0 where not; or its scaled value; or the
            number of events.
        days: (patients,) days from the index date to the event, or to where the patient is lost
            from sight; none unless the endpoint is a time to event.
        clipped: (patients,) whose outcome lies beyond the plan's bounds.
        exclusions: how many patients each reason left out.
    """

    subject_ids: NDArray[np.int64]
    age: NDArray[np.float64]
    sex: NDArray[np.float64]
    labels: NDArray[np.float64]
    days: NDArray[np.float64] | None
    clipped: NDArray[np.bool_]
    exclusions: dict[str, int]


def select_patients(db: duckdb.DuckDBPyConnection, plan: StudyPlan, now: datetime) -> Selected:
    """Apply a plan's cohort and endpoint; leaves the table `people` with index dates behind.

    Args:
        db: a connection with the views `events` and `units` and the macro `tidy`.
        plan: the study.
        now: UTC without a zone; nothing after it counts.

    Raises:
        CohortError: the endpoint's values are in a unit that does not fit.
    """
    _find_people(db, plan, now)
    people = db.execute("SELECT * FROM people ORDER BY subject_id").fetchnumpy()
    ids = np.asarray(people["subject_id"], dtype=np.int64)
    index_us, death_us = microseconds(people["index_time"]), microseconds(people["death"])
    age = _floats(people["age"])
    ended_us = microseconds(people["last_time"])
    if plan.endpoint.kind == "time_to_event":
        ended_us = np.fmin(death_us, ended_us)
    outcome = outcomes_of(db, plan.endpoint, now, ids, (ended_us - index_us) / DAY_US)
    cohort = plan.cohort
    rules: list[tuple[str, NDArray[np.bool_]]] = [
        ("no index event", np.isnan(index_us)),
        ("died before the index date", death_us < index_us),
        ("no birth date", absent(people["birth"])),
        (f"younger than {cohort.minimum_age_years:g} years", age < cohort.minimum_age_years - 1e-9),
        (f"older than {cohort.maximum_age_years:g} years", age > cohort.maximum_age_years + 1e-9),
        (
            "lacks a required code by the index date",
            ~_known(db, cohort.require_codes, ids)
            if cohort.require_codes
            else np.zeros(len(ids), dtype=np.bool_),
        ),
        ("has an excluding code by the index date", _known(db, cohort.exclude_codes, ids)),
        (outcome.why_unknown, outcome.unknown),
    ]
    keep, exclusions = _first_reason(rules, len(ids))
    return Selected(
        subject_ids=ids[keep],
        age=age[keep],
        sex=_floats(people["sex"])[keep],
        labels=outcome.labels[keep],
        days=None if outcome.days is None else outcome.days[keep],
        clipped=outcome.clipped[keep],
        exclusions=exclusions,
    )


def _find_people(db: duckdb.DuckDBPyConnection, plan: StudyPlan, now: datetime) -> None:
    """The table `people`, in two passes over the events: the few with certain codes, and all."""
    index = plan.cohort.index
    date = None if index.date is None else index.date.astimezone(UTC).replace(tzinfo=None)
    if date is not None and date > now:
        raise CohortError(
            f"study {plan.study} asks for the index date {index.date:%Y-%m-%d}, which is to come"
        )
    codes = stored_codes(index.codes)
    asked = {"birth": BIRTH, "death": DEATH, "sex": SEX, "last": index.which == "last"}
    asked |= {"codes": codes, "now": now}
    db.execute(_MARKED.format(all_codes=literals((BIRTH, DEATH, SEX, *codes))), asked)
    db.execute(_PEOPLE.format(now=f"TIMESTAMP '{now}'"), {"date": date})


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


def _floats(column: Any) -> NDArray[np.float64]:
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)
