"""The order of events in a file: by subject, time (none first), available time, source and code."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_FIRST: Final = np.iinfo(np.int64).min
_LAST: Final = np.iinfo(np.int64).max
_BITS: Final = 64

_Rows = NDArray[np.int64]


def in_order(events: pa.Table) -> pa.Table:
    """The events in the order of a file.

    Args:
        events: with the columns of `REPEATED` as dictionaries.
    """
    events = events.unify_dictionaries().combine_chunks()
    if events.num_rows < 2:
        return events
    subject = events["subject_id"].to_numpy()
    time = _filled(events["time"], _FIRST)
    order = _by_subject_and_time(subject, time)
    tied = _agrees(subject[order]) & _agrees(time[order])
    places = _with_others(tied)
    if len(places):
        known = _filled(events["available_time"], _LAST)
        order[places] = _untied(
            events, known, order[places], np.cumsum(~tied, dtype=np.int64)[places]
        )
    return events.take(pa.array(order))


def _by_subject_and_time(subject: _Rows, time: _Rows) -> _Rows:
    """The order by both; of rows that agree in them any may come first."""
    if not len(subject):
        return np.zeros(0, dtype=np.int64)
    by_subject = np.argsort(subject)
    ordered = subject[by_subject]
    rank = np.empty(len(subject), dtype=np.uint64)
    rank[by_subject] = np.cumsum(np.append(False, ordered[1:] != ordered[:-1]))
    timed = time != _FIRST
    first = int(time.min(initial=_LAST, where=timed))
    last = int(time.max(initial=first, where=timed))
    bits = (last - first + 1).bit_length()
    if int(rank.max()).bit_length() + bits > _BITS:
        return np.lexsort((time, subject))
    # One number for both is sorted several times as fast as one after the other.
    since = np.where(timed, time - first + 1, 0).astype(np.uint64)
    return np.argsort((rank << np.uint64(bits)) | since)


def _agrees(ordered: _Rows) -> NDArray[np.bool_]:
    """Where a column agrees with the place before."""
    agrees = np.zeros(len(ordered), dtype=np.bool_)
    agrees[1:] = ordered[1:] == ordered[:-1]
    return agrees


def _with_others(tied: NDArray[np.bool_]) -> _Rows:
    """Places in the order that agree with the one before or the one after."""
    return np.flatnonzero(tied | np.append(tied[1:], False)[: len(tied)])


def _untied(events: pa.Table, known: _Rows, rows: _Rows, group: _Rows) -> _Rows:
    """Rows that agree with others in subject and time, by available time, source and code.

    Args:
        events: all.
        known: (all rows,) the available times.
        rows: some, those that agree side by side.
        group: (rows,) rises from those that agree to the next that do.
    """
    finer = np.lexsort((rows, known[rows], group))
    rows, group = rows[finer], group[finer]
    tied = _agrees(group) & _agrees(known[rows])
    places = _with_others(tied)
    if len(places):
        chosen = events.select(["source", "code"]).take(pa.array(rows[places]))
        keys = pa.table(
            {
                "group": np.cumsum(~tied)[places],
                "source": chosen["source"],
                "code": chosen["code"].cast(pa.string()),
            }
        )
        by = [(name, "ascending") for name in keys.column_names]
        rows[places] = rows[places][pc.sort_indices(keys, sort_keys=by).to_numpy()]
    return rows


def _filled(times: pa.ChunkedArray, absent: int) -> _Rows:
    return np.asarray(pc.fill_null(times.cast(pa.int64()), absent))
