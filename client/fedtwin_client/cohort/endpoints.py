"""What became of each patient within the horizon: the one question that looks ahead.

Only what lies in (index date, index date + horizon], and happened and was known by now, counts. A
time to event ends with the event (1), or where the patient is lost from sight: at death, at the end
of the record, at the horizon (0); what was written down after a death is no event. Events at one
moment are one, because one event is often coded twice. A value with a comparator counts as its
bound, as in features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.cohort.conversions import StoredUnits, UnitTable, unit_conversions
from fedtwin_client.cohort.times import DAY_US, earliest, stored_codes
from fedtwin_client.store.pieces import NEVER, Piece
from fedtwin_protocol.study_patients import LARGEST_VALUE, Endpoint
from fedtwin_protocol.transforms import Transform, forward

VALUES = frozenset({"value_above", "value"})
"""Kinds of endpoints that ask for a value."""


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


class EndpointValues:
    """The values that an endpoint asks for, in its unit."""

    def __init__(self, endpoint: Endpoint, stored: StoredUnits) -> None:
        """Understand what is stored.

        Raises:
            CohortError: it is in a unit that does not fit.
        """
        codes = stored_codes(endpoint.codes)
        asked_by = f"endpoint '{endpoint.name}'"
        conversions = [unit_conversions(stored, [code], endpoint.unit, asked_by) for code in codes]
        self._askers = {code: asker for asker, code in enumerate(codes)}
        self._units = UnitTable(conversions)
        self.columns = self._units.columns

    def first(self, piece: Piece, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(patients,) the first value among some rows of the endpoint's codes; NaN without any."""
        asker = piece.of_code(self._askers, 0, np.int64)[rows]
        values, there = self._units.values(piece, rows, asker)
        owner, values = piece.owner[rows][there], values[there]
        fresh = np.ones(len(owner), np.bool_)
        fresh[1:] = owner[1:] != owner[:-1]
        found = np.full(len(piece.starts), np.nan)
        found[owner[fresh]] = values[fresh]
        return found


def within_horizon(
    endpoint: Endpoint, piece: Piece, rows: NDArray[np.int64], index: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Those of some rows that lie in (index date, index date + horizon].

    Args:
        endpoint: what is asked.
        piece: the events.
        rows: that happened and were known by now.
        index: (patients,) microseconds, `NEVER` where there is none.
    """
    start = index[piece.owner[rows]]
    rows, start = rows[start != NEVER], start[start != NEVER]
    time = piece.time[rows]
    late = (time > start) & (time - start <= endpoint.horizon_days * DAY_US)
    return np.asarray(rows[late])


def outcomes_of(
    endpoint: Endpoint,
    values: EndpointValues | None,
    piece: Piece,
    rows: NDArray[np.int64],
    index: NDArray[np.int64],
    followed_days: NDArray[np.float64],
) -> Outcomes:
    """The endpoint of every patient of a piece.

    Args:
        endpoint: what is asked.
        values: in the endpoint's unit; none where it asks for none.
        piece: the events.
        rows: with one of the endpoint's codes, within the horizon.
        index: (patients,) microseconds, `NEVER` where there is none.
        followed_days: (patients,) from the index date to the end of the record, or to death
            before it where a time to event is asked for; NaN where either is not known.
    """
    if values is not None:
        return _of_values(endpoint, values.first(piece, rows))
    patients = len(index)
    owner, time = piece.owner[rows], piece.time[rows]
    first = earliest(owner, time, patients)
    happened = first != NEVER
    if endpoint.kind == "time_to_event":
        days = np.where(happened, first - np.where(happened, index, 0), 0) / DAY_US
        happened &= days <= followed_days
        lost = np.clip(np.nan_to_num(followed_days), 0.0, endpoint.horizon_days)
        seen = np.where(happened, days, lost)
        return Outcomes(
            labels=happened.astype(np.float64),
            days=seen,
            unknown=seen <= 0,
            why_unknown="record ends at the index date",
            clipped=np.zeros(patients, np.bool_),
        )
    short = (followed_days < endpoint.horizon_days) & endpoint.require_follow_up
    if endpoint.kind == "count":
        # In the order of time the events of one moment are neighbours.
        fresh = np.ones(len(rows), np.bool_)
        fresh[1:] = (owner[1:] != owner[:-1]) | (time[1:] != time[:-1])
        number = np.bincount(owner[fresh], minlength=patients).astype(np.float64)
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
        clipped=np.zeros(patients, np.bool_),
    )


def _of_values(endpoint: Endpoint, values: NDArray[np.float64]) -> Outcomes:
    """From the first value within the horizon, (patients,)."""
    values = forward(endpoint.transform, values)
    unknown = np.isnan(values)
    clipped = np.zeros(len(values), np.bool_)
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
