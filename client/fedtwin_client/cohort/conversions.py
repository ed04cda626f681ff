"""From the units that values are stored in to the unit that a study asks for.

Converted numbers are tidied to 12 significant digits, so that a value that was stored in another
unit comes back as it was written, and a threshold is not crossed by the last bit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
_CONVERSIONS = pa.schema(
    [
        ("code", pa.string()),
        ("unit", pa.string()),
        ("factor", pa.float64()),
        ("shift", pa.float64()),
    ]
)
_UNITS = """
SELECT code, unit, number FROM units
WHERE code IN (SELECT unnest($codes::VARCHAR[])) ORDER BY ALL
"""


StoredUnits = Mapping[str, Sequence[tuple[str, int]]]
"""For each code with numbers: the units they have (empty: none), and how many numbers have each."""


def stored_units(db: duckdb.DuckDBPyConnection, codes: Iterable[str]) -> StoredUnits:
    """The units of all numbers of some codes.

    Args:
        db: a connection with the view `units`.
        codes: as the store writes them.
    """
    found: dict[str, list[tuple[str, int]]] = {}
    for code, unit, count in db.execute(_UNITS, {"codes": sorted(set(codes))}).fetchall():
        found.setdefault(code, []).append((unit, int(count)))
    return found


def unit_conversions(
    stored: StoredUnits, codes: Iterable[str], unit: str, asked_by: str
) -> list[dict[str, Any]]:
    """How to convert every unit that is stored for some codes.

    Args:
        stored: what `stored_units` found.
        codes: as the store writes them.
        unit: the unit wanted.
        asked_by: the feature or endpoint, for the error.

    Returns:
        mappings of code, unit (empty for none), factor and shift: wanted = stored * factor + shift.

    Raises:
        CohortError: a stored unit cannot be converted.
    """
    wanted = normal_unit(unit) or unit
    rows: list[dict[str, Any]] = []
    for code, (written, count) in [(one, seen) for one in codes for seen in stored.get(one, ())]:
        found = (normal_unit(written) or written) if written else "1"
        convert = analyte_conversion(code, found, wanted)
        if convert is None:
            raise CohortError(
                f"{asked_by} is asked for in '{unit}', but {count} values of {code} here have "
                f"{_named(written)}; correct the unit at the source or in the mapping and import "
                "again"
            )
        rows.append(
            {"code": code, "unit": written, "factor": convert.factor, "shift": convert.offset}
        )
    return rows


def conversion_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of `unit_conversions` as a table, for DuckDB."""
    return pa.Table.from_pylist(rows, schema=_CONVERSIONS)


def _named(stored: str) -> str:
    """A stored unit in words; text that is no known unit may be anything, and is not shown."""
    if not stored:
        return "no unit"
    return f"'{stored}'" if normal_unit(stored) else "a unit that is not known here"
