"""Masking small cells of a table, and as many others as it takes that none can be worked out.

A table is shown with its row totals, column totals and grand total. A masked cell can be solved if
the equations between cells and totals fix its value, whatever the other masked cells hold: in terms
of linear algebra, if its unit vector lies in the row space of the equations over the masked cells.
While there is such a cell, the other three corners of a rectangle are masked too (complementary
suppression): four masked corners can move up and down together without any total moving, so none of
them is fixed. Of all rectangles the one is taken that withholds the least, and totals last.
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
        for row, column in _rectangle(table, fate, divmod(int(cells[0]), table.shape[1])):
            if fate[row, column] == SHOWN:
                fate[row, column] = WITHHELD


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


def _rectangle(
    table: Numbers, fate: NDArray[np.int64], corner: tuple[int, int]
) -> list[tuple[int, int]]:
    """The other corners of the cheapest rectangle with a cell in one corner."""
    price = np.where(fate == SHOWN, table, 0.0)
    beyond = table.sum() + 1.0
    price[-1, :] += np.where(fate[-1, :] == SHOWN, beyond, 0.0)
    price[:-1, -1] += np.where(fate[:-1, -1] == SHOWN, beyond, 0.0)
    row, column = corner
    rows = [other for other in range(table.shape[0]) if other != row]
    columns = [other for other in range(table.shape[1]) if other != column]
    _, r, c = min(
        (price[r, column] + price[row, c] + price[r, c], r, c) for r in rows for c in columns
    )
    return [(r, column), (row, c), (r, c)]
