"""The raw values of a study's features, as of each patient's index date.

A value counts if it happened and was known by the index date and lies in the feature's window. A
number outside the plausible range is no value: it is counted, and not summarised. Of several
values the summary is taken in the order of time, available time and source (the order in which the
store keeps a patient's events), so that equal times never make the result depend on chance.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import stored_units, unit_conversions
from fedtwin_client.cohort.selection import Selected
from fedtwin_client.cohort.times import stored_codes
from fedtwin_protocol.contract import Feature
from fedtwin_protocol.study import StudyPlan

_QUESTIONS = pa.schema(
    [
        ("series", pa.int32()),
        ("presence", pa.bool_()),
        ("category", pa.bool_()),
        ("code", pa.string()),
        ("unit", pa.string()),
        ("factor", pa.float64()),
        ("shift", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("days", pa.int32()),
    ]
)
_CHOSEN = """
CREATE TEMP TABLE chosen AS
SELECT place, subject_id, index_time FROM places JOIN people USING (subject_id)
"""
# What no patient can use is left out before the joins. That is all where every patient has the same
# index date and every question the same window.
_BOUNDS = "e.time <= {latest} AND e.available_time <= {latest} AND e.time >= {earliest}"
_EACH = """
    AND e.time <= c.index_time AND e.available_time <= c.index_time
    AND (q.days IS NULL OR e.time >= c.index_time - to_days(q.days))
"""
_CONVERTED = "tidy(e.numeric_value * q.factor + q.shift, q.factor, q.shift)"
_NUMBERS = """
SELECT series, place, {summaries}, count(*) - count(value) AS outside
FROM (
    SELECT q.series, c.place, e.file_row_number AS position,
        CASE WHEN {number} BETWEEN q.low AND q.high THEN {number} END AS value
    FROM events AS e
    JOIN questions AS q ON e.code = q.code AND {in_unit}
    JOIN chosen AS c ON c.subject_id = e.subject_id
    WHERE NOT q.category AND {number} IS NOT NULL AND {in_time}
) GROUP BY series, place
"""
_ANSWERS = """
SELECT series, place, arg_min(answer, position) AS first, arg_max(answer, position) AS last
FROM (
    SELECT q.series, c.place, e.file_row_number AS position, e.numeric_value AS value,
        coalesce(e.text_value, CASE WHEN value = floor(value) AND abs(value) < 1e15
        THEN value::BIGINT::VARCHAR ELSE value::VARCHAR END) AS answer
    FROM events AS e JOIN questions AS q ON e.code = q.code
    JOIN chosen AS c ON c.subject_id = e.subject_id
    WHERE q.category AND {in_time}
) WHERE answer IS NOT NULL GROUP BY series, place
"""
_SUMMARIES = {
    "last": "arg_max(value, position) AS last",
    "first": "arg_min(value, position) AS first",
    "mean": "fsum(value) / count(value) AS mean",
    "min": "min(value) AS min",
    "max": "max(value) AS max",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFeatures:
    """Values before encoding.

    Attributes:
        columns: for each feature (patients,) values in its unit; NaN or none where missing.
        implausible: for each numeric feature, how many values lay outside the plausible range.
    """

    columns: dict[str, Any]
    implausible: dict[str, int]


def raw_features(
    db: duckdb.DuckDBPyConnection,
    plan: StudyPlan,
    selected: Selected,
    without: Collection[str] = (),
) -> RawFeatures:
    """Collect all features of the selected patients in one pass over their events.

    Args:
        db: a connection with `events`, `units`, `people` (with index dates) and the macro `tidy`.
        plan: the study.
        selected: whose features, and in which order.
        without: features that are not looked at, and missing for everybody.

    Raises:
        CohortError: a feature's values are in a unit that does not fit; it is named.
    """
    series = _series([feature for feature in plan.features if feature.name not in without])
    db.register("asked", _questions(db, series))
    db.execute("CREATE TEMP TABLE questions AS SELECT * FROM asked")  # with statistics, for joins
    db.register("places", _places(selected.subject_ids))
    db.execute(_CHOSEN)
    in_time, (number, several) = _in_time(db), _number(db)
    patients = len(selected.subject_ids)
    columns: dict[str, Any] = {
        feature.name: _absent(feature, patients)
        if feature.name in without
        else _start(feature, selected, patients)
        for feature in plan.features
    }
    implausible = dict.fromkeys(columns, 0)
    asked = {_summary(feature) for alike in series for feature in alike}
    summaries = ", ".join(text for name, text in _SUMMARIES.items() if name in asked)
    numbers = db.execute(
        _NUMBERS.format(
            summaries=summaries or "0 AS nothing",
            in_time=in_time,
            number=number,
            in_unit="q.unit IS NULL OR coalesce(e.unit, '') = q.unit" if several else "true",
        )
    ).fetchnumpy()
    outside = np.bincount(
        np.asarray(numbers["series"], dtype=np.int64),
        weights=np.asarray(numbers["outside"], dtype=np.float64),
        minlength=len(series),
    )
    for alike, count in zip(series, outside, strict=True):
        implausible |= {feature.name: int(count) for feature in alike}
    _fill(columns, series, numbers)
    if any(feature.kind == "category" for feature in plan.features):
        _fill(
            columns,
            series,
            db.execute(_ANSWERS.format(in_time=in_time)).fetchnumpy(),
            categories=True,
        )
    return RawFeatures(columns=columns, implausible=implausible)


def _in_time(db: duckdb.DuckDBPyConnection) -> str:
    """The condition, as SQL, that a value may be used."""
    ((latest, first, longest, windows),) = db.execute(
        "SELECT max(index_time), min(index_time),"
        " (SELECT CASE WHEN count(days) = count(*) THEN max(days) END FROM questions),"
        " (SELECT count(DISTINCT coalesce(days, -1)) FROM questions) FROM chosen"
    ).fetchall()
    whole = first is None or longest is None
    earliest = datetime.min if whole else first - timedelta(days=longest)
    bounds = _BOUNDS.format(
        latest=f"TIMESTAMP '{latest or datetime.min}'", earliest=f"TIMESTAMP '{earliest}'"
    )
    return bounds if latest == first and windows <= 1 else bounds + _EACH


def _number(db: duckdb.DuckDBPyConnection) -> tuple[str, bool]:
    """A value in the unit that is asked for, as SQL, and whether its unit must be looked at."""
    ((converting, presence, several),) = db.execute(
        "SELECT bool_or(factor <> 1.0 OR shift <> 0.0), bool_or(presence),"
        " bool_or(unit IS NOT NULL) FROM questions WHERE NOT category"
    ).fetchall()
    number = _CONVERTED if converting else "e.numeric_value"
    return f"CASE WHEN q.presence THEN 1.0 ELSE {number} END" if presence else number, several


def _series(features: Iterable[Feature]) -> list[list[Feature]]:
    """Features that ask for the same values and differ only in how these are summarised."""
    found: dict[tuple[Any, ...], list[Feature]] = {}
    for feature in features:
        if feature.kind in {"number", "flag", "presence", "category"}:
            codes = tuple(stored_codes(feature.codes))
            asked = (feature.kind, codes, feature.unit, feature.plausible, feature.window_days)
            found.setdefault(asked, []).append(feature)
    return list(found.values())


def _questions(db: duckdb.DuckDBPyConnection, series: list[list[Feature]]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    measured = (alike[0] for alike in series if alike[0].kind == "number")
    stored = stored_units(db, (code for one in measured for code in stored_codes(one.codes)))
    for number, (feature, *_) in enumerate(series):
        asked = {
            "series": number,
            "presence": feature.kind == "presence",
            "category": feature.kind == "category",
            "days": feature.window_days,
        }
        codes = stored_codes(feature.codes)
        if feature.kind == "number":
            assert feature.plausible is not None
            low, high = feature.plausible
            units = unit_conversions(stored, codes, feature.unit, f"feature '{feature.name}'")
            for unit in units:
                if len(stored[unit["code"]]) == 1:  # so that nobody has to look at units
                    unit["unit"] = None
            rows += [{**asked, **unit, "low": low, "high": high} for unit in units]
        else:
            every = {"factor": 1.0, "shift": 0.0, "low": -np.inf, "high": np.inf}
            rows += [{**asked, **every, "code": code} for code in codes]
    return pa.Table.from_pylist(rows, schema=_QUESTIONS)


def _summary(feature: Feature) -> str:
    """Words have no mean, and presence needs one event only."""
    if feature.kind == "category":
        return "first" if feature.summary == "first" else "last"
    return "last" if feature.kind == "presence" else feature.summary


def _places(subject_ids: NDArray[np.int64]) -> pa.Table:
    places = np.arange(len(subject_ids), dtype=np.int64)
    return pa.table({"subject_id": subject_ids, "place": places})


def _start(feature: Feature, selected: Selected, patients: int) -> Any:
    if feature.kind == "age":
        return selected.age
    if feature.kind == "sex":
        return selected.sex
    if feature.kind == "presence":
        return np.zeros(patients)
    return _absent(feature, patients)


def _absent(feature: Feature, patients: int) -> Any:
    if feature.kind == "category":
        return np.full(patients, None, dtype=object)
    return np.full(patients, np.nan)


def _fill(
    columns: dict[str, Any],
    series: list[list[Feature]],
    found: dict[str, Any],
    *,
    categories: bool = False,
) -> None:
    numbers = np.asarray(found["series"])
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(len(series) + 1))
    for number, alike in enumerate(series):
        here = order[edges[number] : edges[number + 1]]
        if not len(here) or (alike[0].kind == "category") != categories:
            continue
        places = np.asarray(found["place"])[here]
        for feature in alike:
            values = found[_summary(feature)][here]
            columns[feature.name][places] = np.ma.filled(values, None if categories else np.nan)
