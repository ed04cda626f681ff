"""Looking over what comes in: numbers outside the plausible range, and units that seem mixed up.

Nothing is changed or left out: what a study does with a number that cannot be is for its feature
contract. A number that is implausible in the unit it was written in and plausible in another one
that laboratories use for the same substance is told apart: 5.2 among cholesterols in mg/dL. Bounds
(`<5`) are not looked at.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.codes.analyte_table import Analyte
from fedtwin_client.records.codes.tables import CodeTables, in_use
from fedtwin_client.records.report import Tally

_Numbers = NDArray[np.float64]


@dataclass(slots=True)
class _Seen:
    """Numbers of one code that were written in one unit."""

    numbers: int = 0
    outside: int = 0
    fits: dict[str, int] = field(default_factory=dict)


class Plausibility:
    """Gathers over one import; the tables of codes and units are those in use."""

    def __init__(self) -> None:
        self._tables = in_use()
        self._seen: dict[tuple[str, str | None], _Seen] = {}

    def see(self, events: pa.Table) -> None:
        """Look at events.

        Args:
            events: with the columns `code`, `numeric_value`, `src_unit`, `comparator`.
        """
        codes, code_of = _encoded(events["code"])
        known = [self._tables.analytes.get(code) for code in codes]
        if not any(known):
            return
        low, high = np.array([_limits(one) for one in known], dtype=np.float64).T
        numbers = events["numeric_value"].to_numpy()
        looked_at = np.isfinite(low)[code_of] & ~np.isnan(numbers)
        looked_at &= np.asarray(events["comparator"].combine_chunks().is_null())
        outside = looked_at & ((numbers < low[code_of]) | (numbers > high[code_of]))
        units, unit_of = _encoded(events["src_unit"])
        pairs = code_of * len(units) + unit_of
        for pair, count in zip(*np.unique(pairs[looked_at], return_counts=True), strict=True):
            code, unit = codes[pair // len(units)], units[pair % len(units)]
            seen = self._seen.setdefault((code, unit), _Seen())
            seen.numbers += int(count)
            rows = np.flatnonzero(outside & (pairs == pair)) if outside.any() else pairs[:0]
            if len(rows):
                self._note_outside(seen, code, unit, numbers[rows])

    def _note_outside(self, seen: _Seen, code: str, unit: str | None, numbers: _Numbers) -> None:
        seen.outside += len(numbers)
        for other, fits in _fits(self._tables, code, unit, numbers).items():
            seen.fits[other] = seen.fits.get(other, 0) + fits

    def tell(self, tally: Tally) -> None:
        """Put what was found among the notes of an import."""
        for (code, unit), seen in self._seen.items():
            known = self._tables.analytes[code]
            if unit is None and code in self._tables.assumed:
                assumed = self._tables.assumed[code]
                note = f"{known.name} ({code}) without a unit read as {assumed}, as the site says"
                tally.notes[note] += seen.numbers
            if not seen.outside or known.low is None or known.high is None:
                continue
            # Without examples: a record's own id may hold the patient's number.
            beyond = (
                f"{known.name} ({code}) outside the plausible range {known.low:g} to "
                f"{known.high:g} {known.unit}"
            )
            tally.notes[beyond] += seen.outside
            other = max(seen.fits, key=lambda one: seen.fits[one], default=None)
            if other is not None and seen.fits[other]:
                share = 100 * seen.fits[other] / seen.numbers
                mixed = (
                    f"{known.name} ({code}) in '{unit or known.unit}': {share:.3g} % of "
                    f"{seen.numbers:,} would be plausible in {other}; wrong or mixed units?"
                )
                tally.notes[mixed] += seen.fits[other]


def implausible(code: str, number: float | None, comparator: str | None) -> str | None:
    """What is odd about one number, in words; none if nothing is."""
    known = in_use().analytes.get(code)
    if number is None or comparator is not None or known is None:
        return None
    if known.low is None or known.high is None or known.low <= number <= known.high:
        return None
    return (
        f"{known.name} ({code}) outside the plausible range {known.low:g} to {known.high:g} "
        f"{known.unit}"
    )


def _limits(known: Analyte | None) -> tuple[float, float]:
    if known is None or known.low is None or known.high is None:
        return -np.inf, np.inf
    return known.low, known.high


def _fits(tables: CodeTables, code: str, unit: str | None, numbers: _Numbers) -> dict[str, int]:
    """How many of the numbers would be plausible, had they been written in another unit."""
    known = tables.analytes[code]
    assert known.low is not None
    assert known.high is not None
    written = (tables.units.normal(unit) if unit else tables.assumed.get(code)) or known.unit
    way = tables.convert(code, written, known.unit)
    if way is None:
        return {}
    back = way.inverse()
    plain = numbers * back.factor + back.offset
    found: dict[str, int] = {}
    for other in (known.unit, *known.written):
        instead = tables.convert(code, other, known.unit)
        if instead is None or other == written:
            continue
        there = plain * instead.factor + instead.offset
        found[other] = int(((there >= known.low) & (there <= known.high)).sum())
    return found


def _encoded(column: pa.ChunkedArray) -> tuple[list[Any], NDArray[np.int64]]:
    """The different values of a column, none among them where there is none, and each row's."""
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], pa.string())
    coded = whole if pa.types.is_dictionary(whole.type) else pc.dictionary_encode(whole)
    values = [*coded.dictionary.to_pylist(), None]
    indices = pc.fill_null(coded.indices, len(values) - 1)
    return values, np.asarray(indices).astype(np.int64)
