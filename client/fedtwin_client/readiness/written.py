"""In which units values were written at the source, beside the units that they are stored in."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.store.pieces import Piece, alike, taken

_MOST: Final = 2**12


def pairs_of(piece: Piece, rows: NDArray[np.int64]) -> list[tuple[str, str, int]]:
    """The units of some rows of a piece.

    Returns:
        each unit at the source (empty: not told) with each that is stored (empty: none), and how
        many of the rows have both.
    """
    stored, sources = piece.coded("unit")[0], piece.coded("src_unit")[0]
    place = taken(piece.unit_pairs, rows)
    if len(rows) and alike(place):
        pairs, numbers = place[:1], np.array([len(rows)])
    elif len(sources) * len(stored) <= _MOST:
        numbers = np.bincount(place)
        pairs = np.flatnonzero(numbers)
        numbers = numbers[pairs]
    else:
        pairs, numbers = np.unique(place, return_counts=True)
    return [
        (sources[pair // len(stored)], stored[pair % len(stored)], number)
        for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True)
    ]


def written_otherwise(wanted: str) -> Callable[[str, str], bool]:
    """A question that remembers its answers: was a value written in another unit than is wanted?

    Args:
        wanted: the unit.

    Returns:
        of the unit at the source, and the one that is stored.
    """
    known: dict[tuple[str, str], bool] = {}
    meant = normal_unit(wanted) or wanted

    def asked(source: str, stored: str) -> bool:
        if (source, stored) not in known:
            own = (normal_unit(stored) or stored) if stored else "1"
            known[source, stored] = ((normal_unit(source) or source) if source else own) != meant
        return known[source, stored]

    return asked
