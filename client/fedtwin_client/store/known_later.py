"""When a value became known that its source sends anew, under the time of the value before.

A laboratory may send a final result once more with another value and the time of the first report.
Nobody knew that value before it was sent: it is known when the first version was made that says so,
if one before said something else. Versions that repeat it change nothing. Versions are compared
that come in one job, or live one after the other, and with what lies in the files. Only rows with a
status are, as results have; a patient's birth and sex were always what they are.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_SAID: Final = ("numeric_value", "comparator", "unit", "text_value")
_ROW: Final = ("source", "code")


def known_later(
    events: pa.Table, changed: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> pa.Table:
    """The wanted events, none known before what it says was said.

    Args:
        events: with the columns of the store's schema, those that repeat as dictionaries; first
            those of the files.
        changed: (events,) when their versions were changed, microseconds; 0 where it is not said.
        wanted: (events,) which are of the newest versions.
    """
    events = events.unify_dictionaries().combine_chunks()
    rows = _compared(events)
    if not len(rows) or not wanted[rows].any():
        return events.filter(pa.array(wanted))
    chosen = events.take(pa.array(rows))
    names, said = (_texts(chosen, columns) for columns in (_ROW, _SAID))
    times = np.asarray(chosen["available_time"].cast(pa.int64()))
    made = changed[rows]
    known = times.copy()
    _, row_of = np.unique(names, return_inverse=True)
    order = np.lexsort((rows, made, row_of))
    for before, place in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
        if row_of[before] == row_of[place]:
            known[place] = later(
                (known[before], made[before]),
                (known[place], made[place]),
                differs=said[before] != said[place],
            )
    return _with_times(events, rows, known).filter(pa.array(wanted))


def later(before: tuple[int, int], now: tuple[int, int], *, differs: bool) -> int:
    """When a value became known, in microseconds.

    Args:
        before: when the one before it became known, and its version was made; 0: not said.
        now: the same of the value, as its source says.
        differs: whether it is another value.
    """
    known, made = now
    if differs and 0 < before[1] < made:
        return max(known, made)
    return max(known, before[0]) if before[0] <= made else known


def _compared(events: pa.Table) -> NDArray[np.int64]:
    """The rows with a status and a known time that come more than once."""
    source = pc.dictionary_encode(events["source"].combine_chunks()).indices.to_numpy()
    fit = pc.and_(events["status"].is_valid(), events["available_time"].is_valid()).to_numpy()
    fit &= np.bincount(source, weights=fit, minlength=1)[source] > 1 if len(source) else fit
    return np.flatnonzero(fit)


def _texts(events: pa.Table, columns: tuple[str, ...]) -> NDArray[np.str_]:
    """What stands in some columns of each row, as one text."""
    plain = [
        pc.fill_null(events[name].cast(pa.string()).cast(pa.large_string()), "") for name in columns
    ]
    joined = pc.binary_join_element_wise(*plain, pa.scalar("\x1f", pa.large_string()))
    return np.asarray(joined.to_pylist(), dtype=object)


def _with_times(events: pa.Table, rows: NDArray[np.int64], known: NDArray[np.int64]) -> pa.Table:
    at = events.schema.get_field_index("available_time")
    field = events.schema.field(at)
    times = np.asarray(pc.fill_null(events["available_time"].cast(pa.int64()), 0)).copy()
    times[rows] = known
    column = pa.array(times, mask=events["available_time"].is_null().to_numpy())
    return events.set_column(at, field, column.cast(field.type))
