"""The site's own rows of the tables of codes and units: adding one, and showing them.

A row is taken only if the tables are whole with it. It replaces an earlier one for the same local
code, spelling or code. The files are plain CSV, so that they can also be edited by hand.
"""

import csv
import io
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from fedtwin_client.records.codes.rows import (
    ALIAS_COLUMNS,
    ANALYTE_COLUMNS,
    ASSUMED_COLUMNS,
    UNIT_COLUMNS,
    read_lines,
)
from fedtwin_client.records.codes.tables import (
    ANALYTES,
    ASSUMED,
    CODES,
    UNITS,
    CodeTables,
    shipped,
    site_tables,
)
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import RecordError

_COLUMNS: Final = {
    UNITS: UNIT_COLUMNS,
    ANALYTES: ANALYTE_COLUMNS,
    CODES: ALIAS_COLUMNS,
    ASSUMED: ASSUMED_COLUMNS,
}


def add_alias(
    store: Path, local: str, standard: str, *, by: str, today: date, note: str = ""
) -> CodeTables:
    """Say what a local code stands for.

    Args:
        store: the timeline store's folder.
        local: as the report of an import writes it, `<SYSTEM>//<code>`.
        standard: `<VOCABULARY>//<code>`.
        by: name or initials of the person who says so.
        today: when.
        note: anything to keep with it.

    Returns:
        The tables with it.

    Raises:
        RecordError: the tables would not be whole with it; nothing was written.
    """
    row = {"local": local, "standard": standard, "note": note}
    return _add(store, CODES, "local", row, by, today)


def add_spelling(
    store: Path, spelling: str, unit: str, *, by: str, today: date, exact: bool = False
) -> CodeTables:
    """Say which UCUM unit a spelling stands for; `exact` where upper and lower case matter.

    Raises:
        RecordError: as for `add_alias`.
    """
    row = {"spelling": spelling, "unit": unit, "exact": "yes" if exact else ""}
    return _add(store, UNITS, "spelling", row, by, today)


def add_range(
    store: Path, code: str, low: float, high: float, *, by: str, today: date
) -> CodeTables:
    """Set the range outside which values of a shipped code are pointed out, in its kept unit.

    Raises:
        RecordError: as for `add_alias`; also if the code is not shipped.
    """
    if code not in shipped().analytes:
        raise RecordError(
            f"{code} is not among the shipped codes; add a row with its name and unit to "
            f"{store / 'codes' / ANALYTES}"
        )
    row = {"code": code, "low": repr(low), "high": repr(high)}
    return _add(store, ANALYTES, "code", row, by, today)


def add_assumed_unit(
    store: Path, code: str, unit: str, *, by: str, today: date, note: str = ""
) -> CodeTables:
    """Say which unit a code's values are in where they come without one.

    Raises:
        RecordError: as for `add_alias`; also if the code's unit is not known here.
    """
    row = {"code": code, "unit": unit, "note": note}
    return _add(store, ASSUMED, "code", row, by, today)


def site_rows(store: Path) -> dict[str, list[Mapping[str, str]]]:
    """The site's rows of each file.

    Raises:
        RecordError: a file cannot be read.
    """
    return {name: _rows(store / "codes" / name) for name in _COLUMNS}


def _rows(file: Path) -> list[Mapping[str, str]]:
    if not file.exists():
        return []
    return [line.cells for line in read_lines(file, _COLUMNS[file.name], ())]


def _add(store: Path, name: str, key: str, row: dict[str, str], by: str, today: date) -> CodeTables:
    folder = store / "codes"
    signed = {**row, "reviewer": by.strip(), "date": today.isoformat()}
    kept = [one for one in _rows(folder / name) if one.get(key) != row[key]]
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS[name], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, signed])
    data = text.getvalue().encode()
    _check(folder, name, data)
    write_atomically(folder / name, data)
    return site_tables(store)


def _check(folder: Path, name: str, data: bytes) -> None:
    """Refuse what would not be whole, before anything is written in its place."""
    with TemporaryDirectory() as draft:
        codes = Path(draft) / "codes"
        codes.mkdir()
        for other in _COLUMNS:
            if other != name and (folder / other).exists():
                (codes / other).write_bytes((folder / other).read_bytes())
        (codes / name).write_bytes(data)
        try:
            site_tables(Path(draft))
        except RecordError as error:
            told = str(error).replace(str(codes), str(folder))
            raise RecordError(f"{told}; nothing was written") from None
