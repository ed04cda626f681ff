"""From the units that values are stored in to the unit that a study asks for.

Converted numbers are tidied to 12 significant digits, so that a value that was stored in another
unit comes back as it was written, and a threshold is not crossed by the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence

import duckdb
import pyarrow as pa

from fedtwin_client.records.analytes import analyte_conversion
from fedtwin_client.records.units import normal_unit
from fedtwin_protocol.errors import CohortError

TIDY = """
CREATE TEMP MACRO tidy(value, factor, shift) AS CASE
    WHEN (factor = 1.0 AND shift = 0.0) OR value = 0.0 OR NOT isfinite(value) THEN value
    ELSE round(value, 11 - floor(log10(abs(value)))::INTEGER) END
"""
_UNITS = """
SELECT code, unit, count(*) FROM events
WHERE numeric_value IS NOT NULL AND code IN (SELECT unnest($codes::VARCHAR[]))
GROUP BY code, unit ORDER BY code, unit
"""


def unit_conversions(
    db: duckdb.DuckDBPyConnection, codes: list[str], unit: str, asked_by: str
) -> pa.Table:
    """How to convert every unit that is stored for some codes.

    Args:
        db: a connection with the view `events`.
        codes: as the store writes them.
        unit: the unit wanted.
        asked_by: the feature or endpoint, for the error.

    Returns:
        Rows of code, unit (empty for none), factor and shift: wanted = stored * factor + shift.

    Raises:
        CohortError: a stored unit cannot be converted.
    """
    return conversions_of(stored_units(db, codes), codes, unit, asked_by)


def stored_units(
    db: duckdb.DuckDBPyConnection, codes: Iterable[str]
) -> dict[str, list[tuple[str | None, int]]]:
    """The units that each code's numbers are stored in, with how many there are.

    Args:
        db: a connection with the view `events`.
        codes: as the store writes them.
    """
    found: dict[str, list[tuple[str | None, int]]] = {}
    for code, stored, count in db.execute(_UNITS, {"codes": sorted(codes)}).fetchall():
        found.setdefault(code, []).append((stored, count))
    return found


def conversions_of(
    units: Mapping[str, Sequence[tuple[str | None, int]]],
    codes: Sequence[str],
    unit: str,
    asked_by: str,
) -> pa.Table:
    """As `unit_conversions`, of units that are known already.

    Args:
        units: of each code, from `stored_units`.
        codes: as the store writes them.
        unit: the unit wanted.
        asked_by: the feature or endpoint, for the error.

    Raises:
        CohortError: a stored unit cannot be converted.
    """
    wanted = normal_unit(unit) or unit
    rows = []
    listed = [(code, *found) for code in codes for found in units.get(code, ())]
    for code, stored, count in listed:
        found = (normal_unit(stored) or stored) if stored else "1"
        convert = analyte_conversion(code, found, wanted)
        if convert is None:
            raise CohortError(
                f"{asked_by} is asked for in '{unit}', but {count} values of {code} here have "
                f"{_named(stored)}; correct the unit at the source or in the mapping and import "
                "again"
            )
        rows.append((code, stored or "", convert.factor, convert.offset))
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    kinds = (pa.string(), pa.string(), pa.float64(), pa.float64())
    return pa.table(
        [pa.array(column, type=kind) for column, kind in zip(columns, kinds, strict=True)],
        names=["code", "unit", "factor", "shift"],
    )


def _named(stored: str | None) -> str:
    """A stored unit in words; text that is no known unit may be anything, and is not shown."""
    if not stored:
        return "no unit"
    return f"'{stored}'" if normal_unit(stored) else "a unit that is not known here"
