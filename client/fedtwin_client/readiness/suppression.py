"""Masking small cells of a table, and as many others as it takes that none can be worked out.

A table is shown with its row totals, column totals and grand total. A masked cell can be solved if
the equations between cells and totals fix its value, whatever the other masked cells hold: in terms
of linear algebra, if its unit vector lies in the row space of the equations over the masked cells.
While there is such a cell, the smallest shown cell of an equation that it stands in is masked too
(complementary suppression), a total only where there is nothing else.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]
SHOWN: Final = 0
SMALL: Final = 1
WITHHELD: Final = 2


def with_totals(inner: Numbers) -> Numbers:
    """A table (rows, columns) with a column and a row of totals added."""
    rows = np.concatenate([inner, inner.sum(axis=1, keepdims=True)], axis=1)
    whole: Numbers = np.concatenate([rows, rows.sum(axis=0, keepdims=True)], axis=0)
    return whole


def suppress(table: Numbers, smallest: float) -> NDArray[np.int64]:
    """What to do with each cell of a table with totals.

    Args:
        table: (rows + 1, columns + 1), as `with_totals` gives it.
        smallest: the smallest number that may be shown.

    Returns:
        (rows + 1, columns + 1): `SHOWN`; `SMALL` where the number is below the smallest;
        `WITHHELD` where showing it would give away another one.
    """
    fate = np.where(table < smallest, SMALL, SHOWN).astype(np.int64)
    equations = _equations(table.shape)
    while True:
        masked = (fate != SHOWN).ravel()
        cells = solvable(equations, masked)
        if not len(cells):
            return fate
        place = _cheapest(table, equations, masked, int(cells[0]))
        fate.ravel()[place] = WITHHELD


def solvable(equations: Numbers, masked: Mask) -> NDArray[np.int64]:
    """Which masked cells the equations fix, (some,) places in the flattened table.

    Args:
        equations: (equations, cells), each of which sums to 0.
        masked: (cells,).
    """
    places = np.flatnonzero(masked)
    if not len(places):
        return places
    _, sizes, directions = np.linalg.svd(equations[:, places], full_matrices=False)
    space = directions[sizes > 1e-9]
    # A unit vector lies in the row space if its projection on it has length 1.
    lengths = (space**2).sum(axis=0)
    found: NDArray[np.int64] = places[lengths > 1 - 1e-9]
    return found


def _equations(shape: tuple[int, ...]) -> Numbers:
    """Rows sum to their totals, columns to theirs, the row of totals included."""
    rows, columns = shape
    found = []
    for row in range(rows):
        one = np.zeros(shape)
        one[row, :-1], one[row, -1] = 1.0, -1.0
        found.append(one.ravel())
    for column in range(columns):
        one = np.zeros(shape)
        one[:-1, column], one[-1, column] = 1.0, -1.0
        found.append(one.ravel())
    return np.array(found)


def _cheapest(table: Numbers, equations: Numbers, masked: Mask, cell: int) -> int:
    """The shown cell to mask next: of the cell's equations, the smallest, and totals last."""
    rows, columns = table.shape
    beside = (equations[equations[:, cell] != 0] != 0).any(axis=0)
    candidates = np.flatnonzero(beside & ~masked)
    if not len(candidates):  # it hangs on equations further away
        candidates = np.flatnonzero(~masked)

    def price(place: int) -> tuple[bool, float, int]:
        total = place // columns == rows - 1 or place % columns == columns - 1
        return bool(total), float(table.ravel()[place]), place

    return min((int(place) for place in candidates), key=price)
