"""The raw values of a study's features, as of each patient's index date.

A value counts if it happened and was known by the index date and lies in the feature's window. A
number outside the plausible range is no value: it is counted, and not summarised. Of several
values the summary is taken in the order of time, available time and source (the order in which the
store keeps a patient's events), so that equal times never make the result depend on chance.
"""

from collections.abc import Collection
from dataclasses import dataclass
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
        ("feature", pa.int32()),
        ("kind", pa.string()),
        ("summary", pa.string()),
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
_FOUND = """
CREATE TEMP VIEW found AS
SELECT q.feature, q.summary, q.kind, q.low, q.high, c.place, e.file_row_number AS position,
    e.text_value, CASE WHEN q.kind = 'presence' THEN 1.0
        WHEN q.kind = 'number' THEN tidy(e.numeric_value * q.factor + q.shift, q.factor, q.shift)
        ELSE e.numeric_value END AS value
FROM events AS e
JOIN questions AS q ON e.code = q.code AND (q.unit IS NULL OR coalesce(e.unit, '') = q.unit)
JOIN chosen AS c ON c.subject_id = e.subject_id
WHERE e.time <= c.index_time AND e.available_time <= c.index_time
    AND (q.days IS NULL OR e.time >= c.index_time - to_days(q.days))
"""
_NUMBERS = """
SELECT feature, place,
    CASE any_value(summary)
        WHEN 'last' THEN arg_max(value, position) FILTER (plausible)
        WHEN 'first' THEN arg_min(value, position) FILTER (plausible)
        WHEN 'mean' THEN fsum(value) FILTER (plausible) / count(*) FILTER (plausible)
        WHEN 'min' THEN min(value) FILTER (plausible)
        ELSE max(value) FILTER (plausible) END AS value,
    count(*) FILTER (NOT plausible) AS outside
FROM (
    SELECT *, low IS NULL OR value BETWEEN low AND high AS plausible FROM found
    WHERE kind <> 'category' AND value IS NOT NULL
) GROUP BY feature, place
"""
_ANSWERS = """
SELECT feature, place,
    CASE any_value(summary) WHEN 'first' THEN arg_min(answer, position)
        ELSE arg_max(answer, position) END AS value
FROM (
    SELECT *, coalesce(text_value, CASE WHEN value = floor(value) AND abs(value) < 1e15
        THEN value::BIGINT::VARCHAR ELSE value::VARCHAR END) AS answer
    FROM found WHERE kind = 'category'
) WHERE answer IS NOT NULL GROUP BY feature, place
"""


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
        db: a connection with `events`, `people` (with index dates) and the macro `tidy`.
        plan: the study.
        selected: whose features, and in which order.
        without: features that are not looked at, and missing for everybody.

    Raises:
        CohortError: a feature's values are in a unit that does not fit; it is named.
    """
    db.register("questions", _questions(db, plan.features, without))
    db.register("places", _places(selected.subject_ids))
    db.execute(_CHOSEN)
    db.execute(_FOUND)
    patients = len(selected.subject_ids)
    columns: dict[str, Any] = {
        feature.name: _absent(feature, patients)
        if feature.name in without
        else _start(feature, selected, patients)
        for feature in plan.features
    }
    numbers = db.execute(_NUMBERS).fetchnumpy()
    _fill(columns, plan.features, numbers)
    if any(feature.kind == "category" for feature in plan.features):
        _fill(columns, plan.features, db.execute(_ANSWERS).fetchnumpy())
    outside = np.bincount(
        np.asarray(numbers["feature"], dtype=np.int64),
        weights=np.asarray(numbers["outside"], dtype=np.float64),
        minlength=len(plan.features),
    )
    return RawFeatures(
        columns=columns,
        implausible={
            feature.name: int(count) for feature, count in zip(plan.features, outside, strict=True)
        },
    )


def _questions(
    db: duckdb.DuckDBPyConnection, features: tuple[Feature, ...], without: Collection[str]
) -> pa.Table:
    rows: list[dict[str, Any]] = []
    asked_for = [(n, one) for n, one in enumerate(features) if one.name not in without]
    measured = (feature for _, feature in asked_for if feature.kind == "number")
    stored = stored_units(db, (code for one in measured for code in stored_codes(one.codes)))
    for number, feature in asked_for:
        asked = {
            "feature": number,
            "kind": feature.kind,
            "summary": _summary(feature),
            "days": feature.window_days,
        }
        codes = stored_codes(feature.codes)
        if feature.kind == "number":
            assert feature.plausible is not None
            low, high = feature.plausible
            units = unit_conversions(stored, codes, feature.unit, f"feature '{feature.name}'")
            rows += [{**asked, **unit, "low": low, "high": high} for unit in units]
        elif feature.kind in {"flag", "presence", "category"}:
            rows += [{**asked, "code": code} for code in codes]
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


def _fill(columns: dict[str, Any], features: tuple[Feature, ...], found: dict[str, Any]) -> None:
    numbers = np.asarray(found["feature"])
    for number, feature in enumerate(features):
        here = numbers == number
        if not here.any():
            continue
        absent = None if feature.kind == "category" else np.nan
        places = np.asarray(found["place"])[here]
        columns[feature.name][places] = np.ma.filled(found["value"][here], absent)
