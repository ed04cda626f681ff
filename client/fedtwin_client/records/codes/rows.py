"""Reading the rows of a table of units, of analytes or of local codes: each checked, none guessed.

A faulty row stops the whole table, with its file, its line and what to write instead: half a table
would convert some values and not others.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

from fedtwin_client.records.codes.analyte_table import Analyte, molar_mass
from fedtwin_client.records.codes.unit_table import Conversion, Spelling, UnitTable
from fedtwin_protocol.errors import RecordError

UNIT_COLUMNS: Final = (
    "spelling", "exact", "unit", "kind", "factor", "offset", "source", "reviewer", "date",
)  # fmt: skip
ANALYTE_COLUMNS: Final = (
    "code", "name", "unit", "formula", "charge", "other_unit", "factor", "offset", "low", "high",
    "written", "source", "reviewer", "date",
)  # fmt: skip
ASSUMED_COLUMNS: Final = ("code", "unit", "reviewer", "date", "note")
ALIAS_COLUMNS: Final = ("local", "standard", "reviewer", "date", "note")
CODE: Final = re.compile(r"[^\s/]+//\S{1,200}\Z")
_LOINC: Final = re.compile(r"LOINC//(\d{1,7})-(\d)\Z")
_LOINC_OTHER: Final = re.compile(r"LOINC//(?:LA|LG|LL|LP|MTHU)\d{1,9}(?:-\d)?\Z")
_YES: Final = {"yes": True, "": False, "no": False}
_LONGEST: Final = 200


class Line(NamedTuple):
    """One row of a table: where it stands, and its stripped cells by column."""

    file: Path
    number: int
    cells: Mapping[str, str]

    def get(self, column: str) -> str:
        """A cell; empty where the table has no such column."""
        return self.cells.get(column, "")

    def fault(self, text: str) -> RecordError:
        """An error that says where."""
        return RecordError(f"{self.file}, line {self.number}: {text}")

    def number_in(self, column: str) -> float | None:
        """The number in a cell; none if it is empty."""
        text = self.get(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.fault(f"expected a number as {column}, got '{text[:40]}'")
        return value


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """A local code and the standard code that it is read as.

    Attributes:
        local: `<SYSTEM>//<code>`, as the report of an import writes it.
        standard: `<VOCABULARY>//<code>`.
        reviewer: who says so.
        date: when.
        note: anything they want to keep with it.
    """

    local: str
    standard: str
    reviewer: str
    date: date
    note: str = ""


def read_lines(file: Path, columns: tuple[str, ...], needed: tuple[str, ...]) -> Iterator[Line]:
    """The rows of a CSV file whose first line names its columns.

    Raises:
        RecordError: it cannot be read, is no CSV, or has other columns.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened, strict=True)
            names = [name.strip() for name in next(reader, [])]
            _check_columns(file, names, columns, needed)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(names):
                    raise RecordError(
                        f"{file}, line {reader.line_num}: expected {len(names)} cells, found "
                        f"{len(cells)}"
                    )
                stripped = (cell.strip() for cell in cells)
                line = Line(file, reader.line_num, dict(zip(names, stripped, strict=True)))
                if any(len(cell) > _LONGEST for cell in line.cells.values()):
                    raise line.fault(f"a cell of more than {_LONGEST} characters")
                yield line
    except OSError as error:
        raise RecordError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{file} is not UTF-8 text: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise RecordError(f"{file} is not CSV: {error}") from error


def _check_columns(
    file: Path, names: list[str], columns: tuple[str, ...], needed: tuple[str, ...]
) -> None:
    odd = [name for name in names if name not in columns] or [
        name for name in set(names) if names.count(name) > 1
    ]
    absent = [name for name in needed if name not in names]
    if odd or absent:
        fault = f"does not know the column '{odd[0][:40]}'" if odd else f"lacks '{absent[0]}'"
        raise RecordError(
            f"{file}: the first line {fault}; it names columns of {', '.join(columns)}"
        )


def signed(line: Line) -> date:
    """When a site's row was reviewed; it must say by whom.

    Raises:
        RecordError: it does not.
    """
    if not line.get("reviewer"):
        raise line.fault("expected the name or initials of a person as reviewer")
    try:
        return date.fromisoformat(line.get("date"))
    except ValueError as error:
        raise line.fault(
            f"expected a date such as 2026-11-28, got '{line.get('date')[:40]}'"
        ) from error


def spelling_of(line: Line) -> Spelling:
    """A row of a table of units.

    Raises:
        RecordError: it is not whole.
    """
    spelling, unit = line.get("spelling"), line.get("unit") or None
    exact = _YES.get(line.get("exact").lower())
    if not spelling:
        raise line.fault("expected a spelling")
    if exact is None:
        raise line.fault(f"expected yes or nothing as exact, got '{line.get('exact')[:40]}'")
    kind, factor = line.get("kind"), line.number_in("factor")
    if not kind and factor is None:
        return Spelling(spelling=spelling, exact=exact, unit=unit)
    if spelling != unit:
        raise line.fault("kind and factor belong to the row whose spelling is the unit itself")
    if not kind or factor is None or factor <= 0:
        raise line.fault("a row that defines a unit needs its kind and a factor above 0")
    to_first = Conversion(factor=factor, offset=line.number_in("offset") or 0.0)
    return Spelling(spelling=spelling, exact=exact, unit=unit, kind=kind, to_first=to_first)


def analyte_of(line: Line, units: UnitTable) -> tuple[str, Analyte]:
    """A row of a table of analytes: its code, and what that measures.

    Raises:
        RecordError: it is not whole, or does not fit the units.
    """
    code = checked_code(line, line.get("code"))
    unit = line.get("unit")
    for each in (unit, line.get("other_unit") or unit, *line.get("written").split()):
        if each not in units.units:
            raise line.fault(f"'{each}' is no UCUM unit that this node knows; add it first")
    low, high = line.number_in("low"), line.number_in("high")
    check_range(line, low, high)
    if not line.get("name"):
        raise line.fault(f"expected a name for {code}")
    found = Analyte(
        name=line.get("name"),
        unit=unit,
        molar_mass=_mass(line),
        charge=_charge(line),
        other_unit=line.get("other_unit") or None,
        equation=_equation(line),
        low=low,
        high=high,
        written=tuple(line.get("written").split()),
        source=line.get("source") or line.get("reviewer"),
    )
    return code, found


def check_range(line: Line, low: float | None, high: float | None) -> None:
    """Refuse a plausible range that is none.

    Raises:
        RecordError: only one end is there, or they are the wrong way round.
    """
    if (low is None) != (high is None) or (low is not None and high is not None and low >= high):
        raise line.fault("expected low and high, low below high, or neither")


def alias_of(line: Line) -> Alias:
    """A row of a table of local codes.

    Raises:
        RecordError: it is not whole, or the standard code cannot be one.
    """
    local = checked_code(line, line.get("local"))
    standard = checked_code(line, line.get("standard"))
    if local == standard:
        raise line.fault(f"{local} is itself the standard code")
    return Alias(
        local=local,
        standard=standard,
        reviewer=line.get("reviewer"),
        date=signed(line),
        note=line.get("note"),
    )


def checked_code(line: Line, code: str) -> str:
    """A code that has a vocabulary, and, if it is LOINC, the right check digit.

    Raises:
        RecordError: it is none.
    """
    if not CODE.match(code):
        raise line.fault(f"expected a code such as LOINC//2093-3, got '{code[:60]}'")
    loinc = _LOINC.match(code)
    if loinc is not None and check_digit(loinc[1]) != int(loinc[2]):
        raise line.fault(f"{code} is mistyped: its check digit would be {check_digit(loinc[1])}")
    return code


def may_be_loinc(code: str) -> bool:
    """Whether a code has LOINC's form, and a term's the right check digit.

    Answers (LA), parts (LP) and groups (LG) of LOINC are codes, too.
    """
    loinc = _LOINC.match(code)
    if loinc is not None:
        return check_digit(loinc[1]) == int(loinc[2])
    return _LOINC_OTHER.match(code) is not None


def check_digit(number: str) -> int:
    """The LOINC check digit: modulus 10 (LOINC Users' Guide, appendix B)."""
    doubled = str(int(number[::-1][::2][::-1]) * 2)
    total = sum(int(digit) for digit in number[::-1][1::2] + doubled)
    return -total % 10


def _mass(line: Line) -> float | None:
    formula = line.get("formula")
    if not formula:
        return None
    mass = molar_mass(formula)
    if mass is None:
        raise line.fault(f"expected a formula such as C6H12O6, got '{formula[:40]}'")
    return mass


def _charge(line: Line) -> int | None:
    charge = line.number_in("charge")
    if charge is None:
        return None
    if charge not in range(1, 10):
        raise line.fault("expected a charge from 1 to 9")
    return int(charge)


def _equation(line: Line) -> Conversion | None:
    factor, other = line.number_in("factor"), line.get("other_unit")
    if factor is None and not other:
        return None
    if factor is None or factor <= 0 or not other:
        raise line.fault("an equation needs other_unit and a factor above 0")
    return Conversion(factor=factor, offset=line.number_in("offset") or 0.0)
