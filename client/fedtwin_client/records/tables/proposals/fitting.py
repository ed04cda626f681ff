"""Which unit a column's numbers are in, told by their values; and whether they are in two.

A unit fits if nearly all values, converted, are plausible and their median is where a cohort's
lies. Values of two units in one column (`5.2` and `201` for cholesterol) make two groups, each
plausible in one unit only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedtwin_client.records.codes.analytes import analyte_conversion
from fedtwin_client.records.codes.units import conversion
from fedtwin_client.records.tables.proposals.lexicon import Measure

_MIXED_SHARE = 0.02
_MIXED_COUNT = 3
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a column's numbers look in one unit.

    Attributes:
        unit: UCUM.
        plausible: share of the values that are plausible in it.
        usual: whether their median is where a cohort's lies.
    """

    unit: str
    plausible: float
    usual: bool

    @property
    def score(self) -> float:
        """From 0 to 1."""
        return 0.6 * self.plausible + (0.4 if self.usual else 0.0)


def fits_of(measure: Measure, numbers: Values) -> list[Fit]:
    """How the numbers look in each unit that the measure may have, best first.

    Args:
        measure: what is measured.
        numbers: of the column; any order.
    """
    if not len(numbers):
        return []
    found = [fit_in(measure, unit, numbers) for unit in measure.codes]
    return sorted(found, key=lambda fit: -fit.score)


def fit_in(measure: Measure, unit: str, numbers: Values) -> Fit:
    """How the numbers look in one unit; in one that does not fit the measure, not at all."""
    converted = _converted(measure, unit, numbers)
    if converted is None or not len(numbers):
        return Fit(unit=unit, plausible=0.0, usual=False)
    low, high = measure.usual
    return Fit(
        unit=unit,
        plausible=float(_plausible(measure, converted).mean()),
        usual=bool(low <= np.median(converted) <= high),
    )


def mixed_units(measure: Measure, numbers: Values) -> tuple[str, str, int] | None:
    """Two units that the column seems to mix, and how many values are in the second.

    Args:
        measure: what is measured.
        numbers: of the column.
    """
    fits = fits_of(measure, numbers)
    if not fits:
        return None
    main = fits[0].unit
    inside = _inside(measure, main, numbers)
    odd = ~inside
    enough = max(_MIXED_COUNT, _MIXED_SHARE * len(numbers))
    if odd.sum() < enough or inside.sum() < enough:
        return None
    for unit in _different(measure, main):
        second = odd & _inside(measure, unit, numbers)
        converted = _converted(measure, unit, numbers[second])
        if converted is None or second.sum() < max(enough, 0.8 * odd.sum()):
            continue
        # What does not fit the first unit must look like a cohort in the second, not like errors.
        low, high = measure.usual
        if 0.7 * low <= np.median(converted) <= 1.4 * high:
            return main, unit, int(second.sum())
    return None


def convertible(measure: Measure, unit: str) -> bool:
    """Whether the measure may be in a unit."""
    return _converted(measure, unit, np.empty(0)) is not None


def code_in(measure: Measure, unit: str | None) -> str:
    """The LOINC code of a measure in a unit or one of its kind, or in its likeliest unit."""
    if unit in measure.codes:
        return f"LOINC//{measure.codes[unit]}"
    for known, code in measure.codes.items():
        if unit is not None and conversion(unit, known) is not None:
            return f"LOINC//{code}"
    return f"LOINC//{measure.codes[measure.unit]}"


def same_scale(measure: Measure, one: str, other: str) -> bool:
    """Whether a value is the same number in both units (10*9/L and 10*3/uL)."""
    convert = analyte_conversion(code_in(measure, one), one, other)
    return convert is not None and bool(np.isclose(convert(1.0), 1.0)) and convert.offset == 0


def _different(measure: Measure, main: str) -> Iterable[str]:
    return [unit for unit in measure.codes if not same_scale(measure, main, unit)]


def _inside(measure: Measure, unit: str, numbers: Values) -> npt.NDArray[np.bool_]:
    converted = _converted(measure, unit, numbers)
    if converted is None:
        return np.zeros(len(numbers), dtype=np.bool_)
    return _plausible(measure, converted)


def _plausible(measure: Measure, converted: Values) -> npt.NDArray[np.bool_]:
    low, high = measure.plausible
    return np.asarray((converted >= low) & (converted <= high))


def _converted(measure: Measure, unit: str, numbers: Values) -> Values | None:
    if unit == measure.unit:
        return numbers
    convert = analyte_conversion(code_in(measure, unit), unit, measure.unit)
    return None if convert is None else numbers * convert.factor + convert.offset
