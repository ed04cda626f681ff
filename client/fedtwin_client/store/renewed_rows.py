"""Which of many rows are of records that have a newer version, without comparing every name.

A row can only be one if the bytes before its first '#', eight or as many as the shortest of the
records' names has, are a record's last. Whether they may be is looked up in a table of bits, and
only rows that may be are compared by name.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.store.replacing import origins_of

_WORD: Final = 8
_BITS: Final = 22
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio (Knuth, vol. 3, 6.4)


def rows_of(sources: pa.ChunkedArray, origins: pa.Array) -> NDArray[np.int64]:
    """The rows whose origin is one of some.

    Args:
        sources: of events, strings.
        origins: to look for, strings; none of them null.
    """
    whole = sources.combine_chunks()
    shortest = pc.min(pc.binary_length(origins)).as_py()
    marks = _marks(whole) if len(whole) and shortest else None
    if marks is None:
        return np.flatnonzero(pc.is_in(origins_of(sources)["origin"], origins))
    bits = np.zeros(1 << _BITS, np.bool_)
    bits[_places(origins, _edges(origins)[1:], shortest)] = True
    rows = np.flatnonzero(bits[_places(whole, marks, shortest)])
    among = origins_of(pa.chunked_array([whole.take(pa.array(rows))]))["origin"]
    return rows[np.flatnonzero(pc.is_in(among, origins))]


def _marks(sources: pa.Array) -> NDArray[np.int64] | None:
    """Where in the bytes the first '#' of each stands; none if one has none."""
    if sources.null_count:
        return None
    edges, data = _edges(sources), _bytes(sources)
    starts, ends = edges[:-1], edges[1:]
    marks = np.flatnonzero(data[starts[0] : ends[-1]] == ord("#")) + starts[0]
    if len(marks) != len(starts):
        firsts = np.searchsorted(marks, starts)
        if firsts[-1] == len(marks):
            return None
        marks = marks[firsts]
    return marks if ((marks >= starts) & (marks < ends)).all() else None


def _places(texts: pa.Array, ends: NDArray[np.int64], length: int) -> NDArray[np.uint64]:
    """Places in the table of bits for the bytes before some ends, `length` of them, at most 8."""
    data = np.concatenate([np.zeros(_WORD, np.uint8), _bytes(texts)])
    words: NDArray[np.uint64] = np.ndarray(
        (len(data) - _WORD + 1,), np.dtype("<u8"), buffer=data, strides=(1,)
    )
    others = np.uint64((1 << 8 * max(_WORD - length, 0)) - 1)  # the last byte is the highest
    found: NDArray[np.uint64] = (words[ends] & ~others) * _SPREAD
    return found >> np.uint64(64 - _BITS)


def _edges(texts: pa.Array) -> NDArray[np.int64]:
    edges = np.frombuffer(texts.buffers()[1], np.int32)
    return edges[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)


def _bytes(texts: pa.Array) -> NDArray[np.uint8]:
    return np.frombuffer(texts.buffers()[2] or b"", np.uint8)
