"""The tables that codes and units are read by: those shipped, and the site's own additions to them.

`units.csv` and `analytes.csv` lie in this package. A site adds files of the same names, and
`codes.csv` with what its local codes stand for and `missing_units.csv` with the units of values
that come without one, in the folder `codes` of its timeline store; every row of these has a
reviewer and a date. A site's row may add a code, a unit or a spelling, and may set another
plausible range; it cannot change the unit that a shipped code is kept in, since studies rely on it,
nor the meaning of a shipped spelling.

One set of tables is in use at a time, for everything that reads (`using`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Final

from fedtwin_client.records.codes.analyte_table import Analyte, convert_analyte
from fedtwin_client.records.codes.rows import (
    ALIAS_COLUMNS,
    ANALYTE_COLUMNS,
    ASSUMED_COLUMNS,
    UNIT_COLUMNS,
    Alias,
    Line,
    alias_of,
    analyte_of,
    check_range,
    read_lines,
    signed,
    spelling_of,
)
from fedtwin_client.records.codes.unit_table import Conversion, Spelling, UnitTable, squeeze

SHIPPED: Final = Path(__file__).parent / "shipped_tables"
UNITS, ANALYTES, CODES, ASSUMED = "units.csv", "analytes.csv", "codes.csv", "missing_units.csv"
_MOST_REMEMBERED: Final = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeTables:
    """All that is known of codes and units.

    Attributes:
        units: spellings, and conversion within a kind.
        analytes: what codes measure.
        aliases: local codes and the standard codes that they are read as.
        assumed: units that a person says a code's values are in where they come without one.
        version: of the tables, for reports: dates and the start of a hash over all rows.
    """

    units: UnitTable
    analytes: Mapping[str, Analyte]
    aliases: Mapping[str, Alias]
    version: str
    assumed: Mapping[str, str] = field(default_factory=dict)
    _ways: dict[tuple[str, str, str], Conversion | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def convert(self, code: str, source: str, target: str) -> Conversion | None:
        """How to convert a code's values between two units; none if there is no honest way."""
        asked = code, source, target
        if asked not in self._ways:
            if len(self._ways) >= _MOST_REMEMBERED:
                self._ways.clear()
            known = self.analytes.get(code)
            self._ways[asked] = (
                self.units.conversion(source, target)
                if known is None
                else convert_analyte(known, source, target, self.units)
            )
        return self._ways[asked]

    def standard(self, code: str) -> str:
        """The code that a code is read as: itself, if the site has said nothing of it."""
        alias = self.aliases.get(code)
        return code if alias is None else alias.standard


@cache
def shipped() -> CodeTables:
    """The tables of this package.

    Raises:
        RecordError: they are damaged.
    """
    unit_file, analyte_file = SHIPPED / UNITS, SHIPPED / ANALYTES
    units = UnitTable.of(_shipped_spellings(unit_file))
    analytes: dict[str, Analyte] = {}
    newest = ""
    for line in read_lines(analyte_file, ANALYTE_COLUMNS, ("code", "name", "unit", "date")):
        code, analyte = analyte_of(line, units)
        if code in analytes:
            raise line.fault(f"{code} comes twice")
        _check_ways(line, code, analyte, units)
        analytes[code] = analyte
        newest = max(newest, line.get("date"))
    version = f"{newest} {_digest([unit_file, analyte_file])}"
    return CodeTables(units=units, analytes=analytes, aliases={}, version=version)


def site_tables(store: Path) -> CodeTables:
    """The shipped tables with the additions of a site.

    Args:
        store: its timeline store's folder; `codes` in it may be absent.

    Raises:
        RecordError: a row of the site's cannot be used.
    """
    base = shipped()
    folder = store / "codes"
    files = [path for name in (UNITS, ANALYTES, CODES, ASSUMED) if (path := folder / name).exists()]
    if not files:
        return base
    dates: list[date] = []
    units = _site_units(folder / UNITS, base, dates)
    analytes = _site_analytes(folder / ANALYTES, base, units, dates)
    aliases = _site_aliases(folder / CODES, analytes, dates)
    assumed = _site_assumed(folder / ASSUMED, units, analytes, dates)
    newest = f"{max(dates).isoformat()} " if dates else ""
    version = f"{base.version}; site {newest}{_digest(files)}, {len(dates)} rows"
    return CodeTables(
        units=units, analytes=analytes, aliases=aliases, version=version, assumed=assumed
    )


@dataclass(slots=True)
class InUse:
    """The tables that a thread and the tasks it starts read by; others may be put in their place.

    Attributes:
        tables: those.
    """

    tables: CodeTables


_IN_USE: ContextVar[InUse | None] = ContextVar("code tables in use", default=None)


def in_use() -> CodeTables:
    """The tables to read by: those of `using`, or the shipped ones."""
    used = _IN_USE.get()
    return shipped() if used is None else used.tables


@contextmanager
def using(tables: CodeTables) -> Iterator[InUse]:
    """Read by these tables, in this thread and in the tasks that it starts."""
    used = InUse(tables)
    token = _IN_USE.set(used)
    try:
        yield used
    finally:
        _IN_USE.reset(token)


def mark_of_site_tables(store: Path) -> tuple[tuple[int, ...], ...]:
    """Changes when a file of the site's does.

    Args:
        store: its timeline store's folder.
    """
    found: list[tuple[int, ...]] = []
    for name in (UNITS, ANALYTES, CODES, ASSUMED):
        try:
            stat = (store / "codes" / name).stat()
            found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append(())
    return tuple(found)


def _shipped_spellings(file: Path) -> list[Spelling]:
    lines = list(read_lines(file, UNIT_COLUMNS, ("spelling", "unit", "kind", "factor")))
    spellings = [spelling_of(line) for line in lines]
    defined = {row.unit for row in spellings if row.kind is not None}
    seen: set[tuple[bool, str]] = set()
    for line, row in zip(lines, spellings, strict=True):
        if row.unit is not None and row.unit not in defined:
            raise line.fault(f"no row defines the unit '{row.unit}'")
        key = _key(row)
        if key in seen:
            raise line.fault(f"'{row.spelling}' comes twice")
        seen.add(key)
    return spellings


def _key(row: Spelling) -> tuple[bool, str]:
    plain = squeeze(row.spelling)
    exact = row.exact or row.unit is None
    return exact, plain if exact else plain.lower()


def _site_units(file: Path, base: CodeTables, dates: list[date]) -> UnitTable:
    if not file.exists():
        return base.units
    rows = [(line, spelling_of(line)) for line in read_lines(file, UNIT_COLUMNS, ("spelling",))]
    own = {row.unit for _, row in rows if row.kind is not None}
    kinds = {kind for kind, _ in base.units.units.values()}
    seen: set[tuple[bool, str]] = set()
    for line, row in rows:
        dates.append(signed(line))
        if row.unit is None:
            raise line.fault("expected the UCUM unit that the spelling stands for")
        if row.unit not in own and row.unit not in base.units.units:
            raise line.fault(
                f"'{row.unit}' is no UCUM unit that this node knows; define it in a row of its own "
                f"with kind and factor (kinds: {', '.join(sorted(kinds))})"
            )
        meant = base.units.normal(row.spelling)
        if meant is not None and (meant != row.unit or row.kind is not None):
            raise line.fault(f"'{row.spelling}' is shipped and means {meant}; remove this row")
        if _key(row) in seen:
            raise line.fault(f"'{row.spelling}' comes twice")
        seen.add(_key(row))
    together = UnitTable.of(row for _, row in rows)
    return UnitTable(
        {**base.units.units, **together.units},
        {**base.units.exact, **together.exact},
        {**base.units.loose, **together.loose},
    )


def _site_analytes(
    file: Path, base: CodeTables, units: UnitTable, dates: list[date]
) -> Mapping[str, Analyte]:
    if not file.exists():
        return base.analytes
    own: dict[str, Analyte] = {}
    for line in read_lines(file, ANALYTE_COLUMNS, ("code",)):
        dates.append(signed(line))
        if (known := base.analytes.get(line.get("code"))) is not None:
            code, analyte = line.get("code"), _with_range(line, known)
        else:
            code, analyte = analyte_of(line, units)
            _check_ways(line, code, analyte, units)
        if code in own:
            raise line.fault(f"{code} comes twice")
        own[code] = analyte
    return {**base.analytes, **own}


def _with_range(line: Line, known: Analyte) -> Analyte:
    """A shipped analyte with the site's plausible range, which is all that a site may change."""
    fixed = ("formula", "charge", "other_unit", "factor", "offset", "written")
    if any(line.get(column) for column in fixed) or line.get("unit") not in {"", known.unit}:
        raise line.fault(
            f"{line.get('code')} is shipped and kept in {known.unit}; a site can set low and high "
            "only, because studies rely on the rest"
        )
    low, high = line.number_in("low"), line.number_in("high")
    check_range(line, low, high)
    if low is None:
        raise line.fault(f"{line.get('code')} is shipped; expected low and high in {known.unit}")
    return replace(known, low=low, high=high, source=line.get("source") or line.get("reviewer"))


def _site_aliases(
    file: Path, analytes: Mapping[str, Analyte], dates: list[date]
) -> Mapping[str, Alias]:
    if not file.exists():
        return {}
    found: dict[str, Alias] = {}
    lines: dict[str, Line] = {}
    for line in read_lines(file, ALIAS_COLUMNS, ("local", "standard", "reviewer", "date")):
        alias = alias_of(line)
        if alias.local in found:
            raise line.fault(f"{alias.local} comes twice")
        shown, meant = analytes.get(alias.local), analytes.get(alias.standard)
        if shown is not None and (meant is None or meant.name != shown.name):
            raise line.fault(
                f"{alias.local} is known as {shown.name}, and {alias.standard} "
                f"{'is not known' if meant is None else f'as {meant.name}'}; a known code can only "
                "be read as another of the same measure"
            )
        found[alias.local], lines[alias.local] = alias, line
        dates.append(alias.date)
    for alias in found.values():
        if alias.standard in found:
            raise lines[alias.local].fault(
                f"{alias.standard} is itself read as another code; name that one"
            )
    return found


def _site_assumed(
    file: Path, units: UnitTable, analytes: Mapping[str, Analyte], dates: list[date]
) -> Mapping[str, str]:
    if not file.exists():
        return {}
    found: dict[str, str] = {}
    for line in read_lines(file, ASSUMED_COLUMNS, ("code", "unit", "reviewer", "date")):
        dates.append(signed(line))
        code, unit = line.get("code"), line.get("unit")
        known = analytes.get(code)
        if known is None:
            raise line.fault(f"'{code[:60]}' is no code whose unit is known here")
        if unit not in units.units or convert_analyte(known, unit, known.unit, units) is None:
            raise line.fault(f"{known.name} is kept in {known.unit}, which '{unit}' does not fit")
        if code in found:
            raise line.fault(f"{code} comes twice")
        found[code] = unit
    return found


def _check_ways(line: Line, code: str, analyte: Analyte, units: UnitTable) -> None:
    for unit in analyte.written:
        if convert_analyte(analyte, unit, analyte.unit, units) is None:
            raise line.fault(f"{code} is kept in {analyte.unit}, which '{unit}' does not fit")


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:8]
