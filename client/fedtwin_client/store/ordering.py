"""The order of events in a file: by subject, time (none first), available time, source and code."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_FIRST: Final = np.iinfo(np.int64).min
_LAST: Final = np.iinfo(np.int64).max


def in_order(events: pa.Table) -> pa.Table:
    """The events in the order of a file.

    Args:
        events: with the columns of `REPEATED` as dictionaries.
    """
    events = events.unify_dictionaries().combine_chunks()
    subject = events["subject_id"].to_numpy()
    time = _filled(events["time"], _FIRST)
    known = _filled(events["available_time"], _LAST)
    order = np.lexsort((known, time, subject))
    alike = np.ones((len(order), 3), dtype=np.bool_)
    for place, column in enumerate((subject, time, known)):
        alike[1:, place] = column[order[1:]] == column[order[:-1]]
    tied: NDArray[np.bool_] = np.all(alike, axis=1)
    if len(order):
        tied[0] = False
    return events.take(pa.array(_untied(events, order, tied)))


def _untied(
    events: pa.Table, order: NDArray[np.int64], tied: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The order, with rows that agree in all times put by source and code.

    Args:
        events: all.
        order: (rows,) by subject and times.
        tied: (rows,) whether a place in the order agrees with the place before.
    """
    either = tied | np.append(tied[1:], False)
    places = np.flatnonzero(either)
    if len(places):
        rows = order[places]
        chosen = events.select(["source", "code"]).take(pa.array(rows))
        keys = pa.table(
            {
                "group": np.cumsum(~tied)[places],
                "source": chosen["source"],
                "code": chosen["code"].cast(pa.string()),
            }
        )
        by = [(name, "ascending") for name in keys.column_names]
        order[places] = rows[pc.sort_indices(keys, sort_keys=by).to_numpy()]
    return order


def _filled(times: pa.ChunkedArray, absent: int) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(times.cast(pa.int64()), absent))
