"""From the units that values are stored in to the unit that a study asks for.

Converted numbers are tidied to 12 significant digits, so that a value that was stored in another
unit comes back as it was written, and a threshold is not crossed by the last bit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.store.pieces import Piece, alike, taken
from fedtwin_protocol.errors import CohortError

TIDY = """
CREATE TEMP MACRO tidy(value, factor, shift) AS CASE
    WHEN (factor = 1.0 AND shift = 0.0) OR value = 0.0 OR NOT isfinite(value) THEN value
    ELSE round(value, 11 - floor(log10(abs(value)))::INTEGER) END
"""
"""What `converted` does, for those who ask in SQL."""
_DIGITS: Final = 12
# By the C library, as DuckDB has them: 10 to the 23rd is not the number nearest to 1e23.
_POWERS: Final = np.array([math.pow(10.0, power) for power in range(309)])

StoredUnits = Mapping[str, Sequence[tuple[str, int]]]
"""For each code with numbers: the units they have (empty: none), and how many numbers have each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitConversion:
    """How numbers of one code in one unit (empty: none) become a feature's.

    wanted = stored * factor + shift
    """

    code: str
    unit: str
    factor: float
    shift: float


def unit_conversions(
    stored: StoredUnits, codes: Iterable[str], unit: str, asked_by: str
) -> list[UnitConversion]:
    """How to convert every unit that is stored for some codes.

    Args:
        stored: what the store says.
        codes: as the store writes them.
        unit: the unit wanted.
        asked_by: the feature or endpoint, for the error.

    Raises:
        CohortError: a stored unit cannot be converted.
    """
    wanted = normal_unit(unit) or unit
    found: list[UnitConversion] = []
    for code, (written, count) in [(one, seen) for one in codes for seen in stored.get(one, ())]:
        known = (normal_unit(written) or written) if written else "1"
        convert = analyte_conversion(code, known, wanted)
        if convert is None:
            raise CohortError(
                f"{asked_by} is asked for in '{unit}', but {count} values of {code} here have "
                f"{_named(written)}; correct the unit at the source or in the mapping and import "
                "again"
            )
        found.append(
            UnitConversion(code=code, unit=written, factor=convert.factor, shift=convert.offset)
        )
    return found


class UnitTable:
    """How numbers are converted, for each of several askers.

    Attributes:
        columns: which columns of the store are read for it.
    """

    def __init__(
        self, askers: Sequence[Sequence[UnitConversion] | None], *, all_fit: bool = True
    ) -> None:
        """Put conversions together.

        Args:
            askers: what each knows of the units of its code; none: it takes numbers as they are.
            all_fit: whether they know all units that are stored.
        """
        several = not all_fit or any(known is not None and len(known) > 1 for known in askers)
        units = {one.unit for known in askers if several and known for one in known}
        self._units = {unit: place for place, unit in enumerate(sorted(units))}
        shape = (len(askers), len(units) + 1)
        self._fits = np.zeros(shape, np.bool_)
        self._factor, self._shift = np.ones(shape), np.zeros(shape)
        for asker, known in enumerate(askers):
            if known is None:
                self._fits[asker] = True
            for one in known or ():
                place = (asker, self._units.get(one.unit, len(units)))
                self._fits[place] = True
                self._factor[place], self._shift[place] = one.factor, one.shift
        self._plain = bool((self._factor == 1.0).all() and (self._shift == 0.0).all())
        self.columns = {"numeric_value", "unit"} if units else {"numeric_value"}

    def values(
        self, piece: Piece, rows: NDArray[np.int64], asker: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Numbers in the units that are asked for.

        Args:
            piece: the events.
            rows: (rows,) of the piece.
            asker: (rows,) who asks for each.

        Returns:
            (rows,) the numbers, and where there is one.
        """
        numbers, present = piece.numbers
        made = taken(numbers, rows)
        there = np.ones(len(rows), np.bool_) if present is None else taken(present, rows)
        if self._plain and self._fits.all():
            return made, there
        unit: NDArray[np.int32] | int = len(self._units)
        if self._units:
            unit = piece.of_unit(self._units, len(self._units), np.int32, rows)
        if len(rows) and alike(asker) and (isinstance(unit, int) or alike(unit)):
            return self._converted_alike(made, there, np.ravel(asker)[0], np.ravel(unit)[0])
        place = np.multiply(asker, len(self._units) + 1, dtype=np.int64) + unit
        there &= taken(self._fits.ravel(), place)
        if not self._plain:
            factor, shift = (taken(of.ravel(), place) for of in (self._factor, self._shift))
            made = converted(made, factor, shift)
        return made, there

    def _converted_alike(
        self, made: NDArray[np.float64], there: NDArray[np.bool_], asker: int, unit: int
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The same for rows of which all have one unit and are asked for by one."""
        if not self._fits[asker, unit]:
            there = np.zeros(len(made), np.bool_)
        factor, shift = self._factor[asker, unit], self._shift[asker, unit]
        if factor == 1.0 and shift == 0.0:
            return made, there
        return converted(made, np.full(len(made), factor), np.full(len(made), shift)), there


def converted(
    values: NDArray[np.float64], factor: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values in the unit that is asked for, (values,); those that stay what they are untouched."""
    made = values * factor + shift
    if (factor == 1.0).all() and (shift == 0.0).all():
        return made
    with np.errstate(all="ignore"):
        size = np.floor(np.log10(np.abs(made)))
        tidied = np.isfinite(size) & (size >= _DIGITS - len(_POWERS))  # no power is larger
        tidied &= (factor != 1.0) | (shift != 0.0)
        digits = np.where(tidied, _DIGITS - 1 - size, 0.0).astype(np.int64)
        power = _POWERS[np.abs(digits)]
        shifted = np.where(digits >= 0, made * power, made / power)
        whole = np.trunc(shifted + np.copysign(0.5, shifted))
        rounded = np.where(digits >= 0, whole / power, whole * power)
    return np.where(tidied & np.isfinite(rounded), rounded, made)


def _named(stored: str) -> str:
    """A stored unit in words; text that is no known unit may be anything, and is not shown."""
    if not stored:
        return "no unit"
    return f"'{stored}'" if normal_unit(stored) else "a unit that is not known here"
