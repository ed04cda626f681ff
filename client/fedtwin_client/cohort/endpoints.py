"""What became of each patient within the horizon: the one question that looks ahead.

Only what lies in (index date, index date + horizon], and happened and was known by now, counts. A
time to event ends with the event (1), or where the patient is lost from sight: at death, at the end
of the record, at the horizon (0); what was written down after a death is no event. Events at one
moment are one, because one event is often coded twice. A value with a comparator counts as its
bound, as in features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import conversion_table, stored_units, unit_conversions
from fedtwin_client.cohort.times import literals, stored_codes
from fedtwin_protocol.study_patients import LARGEST_VALUE, Endpoint
from fedtwin_protocol.transforms import Transform, forward

DAY_US: Final = 86_400e6
_EVENTS_AFTER = """
SELECT subject_id, count(DISTINCT time)::DOUBLE AS number,
    (epoch_us(min(time)) - epoch_us(any_value(index_time)))::DOUBLE / $day AS days
FROM events JOIN people USING (subject_id)
WHERE code IN {codes}
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


_WITHOUT_VALUE: Final[Mapping[Transform, str]] = {
    "none": "no value of the endpoint within the horizon",
    "square_root": "no value of the endpoint within the horizon, or one below 0 without a root",
    "logarithm": "no value of the endpoint within the horizon, or none above 0 with a logarithm",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcomes:
    """What became of patients.

    Attributes:
        labels: (patients,) finite; 0 where unknown.
        days: (patients,) days to the event or out of sight; none unless asked for.
        unknown: (patients,) who must be left out.
        why_unknown: the reason, for the hospital alone.
        clipped: (patients,) whose value or count lies beyond the plan's bounds, and counts as the
            nearest bound.
    """

    labels: NDArray[np.float64]
    days: NDArray[np.float64] | None
    unknown: NDArray[np.bool_]
    why_unknown: str
    clipped: NDArray[np.bool_]


def outcomes_of(
    db: duckdb.DuckDBPyConnection,
    endpoint: Endpoint,
    now: datetime,
    ids: NDArray[np.int64],
    followed_days: NDArray[np.float64],
) -> Outcomes:
    """The endpoint of every patient.

    Args:
        db: a connection with `events`, `units`, `people` and the macro `tidy`.
        endpoint: what is asked.
        now: UTC without a zone.
        ids: (patients,) ascending.
        followed_days: (patients,) from the index date to the end of the record, or to death
            before it where a time to event is asked for.

    Raises:
        CohortError: the endpoint's values are in a unit that does not fit.
    """
    if endpoint.kind in {"value_above", "value"}:
        return _of_values(db, endpoint, now, ids)
    asked = {"horizon": endpoint.horizon_days, "now": now, "day": DAY_US}
    codes = literals(stored_codes(endpoint.codes))
    found = db.execute(_EVENTS_AFTER.format(codes=codes), asked).fetchnumpy()
    number, days = (_by_patient(found, name, ids) for name in ("number", "days"))
    happened = ~np.isnan(number)
    number = np.nan_to_num(number, nan=0.0)
    if endpoint.kind == "time_to_event":
        happened &= days <= followed_days
        lost = np.clip(np.nan_to_num(followed_days), 0.0, endpoint.horizon_days)
        seen = np.where(happened, days, lost)
        return Outcomes(
            labels=happened.astype(np.float64),
            days=seen,
            unknown=seen <= 0,
            why_unknown="record ends at the index date",
            clipped=np.zeros(len(ids), np.bool_),
        )
    short = (followed_days < endpoint.horizon_days) & endpoint.require_follow_up
    if endpoint.kind == "count":
        return Outcomes(
            labels=np.minimum(number, endpoint.most),
            days=None,
            unknown=short,
            why_unknown="record ends before the horizon",
            clipped=number > endpoint.most,
        )
    return Outcomes(
        labels=happened.astype(np.float64),
        days=None,
        unknown=short & ~happened,
        why_unknown="record ends before the horizon without the endpoint",
        clipped=np.zeros(len(ids), np.bool_),
    )


def _of_values(
    db: duckdb.DuckDBPyConnection, endpoint: Endpoint, now: datetime, ids: NDArray[np.int64]
) -> Outcomes:
    codes = stored_codes(endpoint.codes)
    asked_by = f"endpoint '{endpoint.name}'"
    units = unit_conversions(stored_units(db, codes), codes, endpoint.unit, asked_by)
    db.register("endpoint_units", conversion_table(units))
    asked = {"horizon": endpoint.horizon_days, "now": now}
    values = _by_patient(db.execute(_FIRST_VALUE_AFTER, asked).fetchnumpy(), "label", ids)
    values = forward(endpoint.transform, values)
    unknown = np.isnan(values)
    clipped = np.zeros(len(ids), np.bool_)
    if endpoint.threshold is not None:
        labels = (values > endpoint.threshold).astype(np.float64)
    else:
        scaled = (np.where(unknown, endpoint.center, values) - endpoint.center) / endpoint.scale
        labels = np.clip(scaled, -LARGEST_VALUE, LARGEST_VALUE)
        clipped = labels != scaled
    return Outcomes(
        labels=labels,
        days=None,
        unknown=unknown,
        why_unknown=_WITHOUT_VALUE[endpoint.transform],
        clipped=clipped,
    )


def _by_patient(found: dict[str, Any], name: str, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.full(len(ids), np.nan)
    places = np.searchsorted(ids, np.asarray(found["subject_id"], dtype=np.int64))
    values[places] = np.ma.filled(np.ma.asarray(found[name], dtype=np.float64), np.nan)
    return values
