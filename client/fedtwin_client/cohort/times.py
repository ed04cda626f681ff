"""How the store writes times and codes, for those who ask it."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.events import BIRTH, DEATH

_MEDS = {"MEDS//BIRTH": BIRTH, "MEDS//DEATH": DEATH}


def stored_codes(codes: tuple[str, ...]) -> list[str]:
    """A plan's codes as the store writes them."""
    return sorted({_MEDS.get(code, code) for code in codes})


def literals(codes: Iterable[str]) -> str:
    """Codes as an SQL list, which a scan can use where it cannot use a parameter."""
    quoted = (code.replace("'", "''") for code in codes)
    return "(" + ", ".join(f"'{code}'" for code in quoted) + ")"


def absent(column: Any) -> NDArray[np.bool_]:
    """Where a column of times, as DuckDB gives it, holds none."""
    if isinstance(column, np.ma.MaskedArray):
        return np.ma.getmaskarray(column) | np.isnat(column.data)
    return np.asarray(np.isnat(column))


def microseconds(column: Any) -> NDArray[np.float64]:
    """Microseconds since 1970; below 2**53 for all years to come, so exact."""
    data = np.ma.getdata(column).astype("datetime64[us]").astype(np.int64).astype(np.float64)
    return np.where(absent(column), np.nan, data)
