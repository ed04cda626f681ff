"""What the cells of one column look like: numbers, dates with their format, marks, codes, text."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fedtwin_client.records.codes.units import normal_unit
from fedtwin_client.records.moments import read_moment, read_zone
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.tables.figures import Figures, number_of
from fedtwin_client.records.tables.proposals.names import NO, YES

Looks: TypeAlias = Literal["empty", "number", "date", "flag", "coded", "codes", "unit", "text"]
NOT_RECORDED = frozenset({"", "NA", "NaN", "null"})
# Marks that people write for nothing, beyond those that every mapping knows.
_MARKS = frozenset(
    {
        *("?", "-", "--", ".", "*", "n/a", "N/A", "n.a.", "#N/A", "NULL", "None", "none", "NONE"),
        *("nan", "na", "missing", "Missing", "MISSING", "unknown", "Unknown", "UNKNOWN", "unk"),
        *("UNK", "nd", "ND", "n.d.", "k.A.", "k.a.", "entf.", "inconnu", "desconocido"),
    }
)
SENTINELS = frozenset({-1.0, -9.0, -99.0, -999.0, -9999.0, 99.0, 999.0, 9999.0, 99999.0})
_DAYS = (
    *("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *("%d.%m.%y", "%d/%m/%y", "%m/%d/%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%d%b%Y"),
    *("%b %d, %Y", "%d %B %Y", "%B %d, %Y"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", " %I:%M %p")
ISO = "ISO 8601"
_FORMATS = tuple(f"{day}{time}" for day in _DAYS for time in _TIMES)
_PATTERNS = {
    "LOINC": re.compile(r"\d{3,5}-\d\Z"),
    "ATC": re.compile(r"[A-Z]\d\d[A-Z]{2}\d\d\Z"),
    "ICD10": re.compile(r"[A-TV-Z]\d[0-9A-Z](?:\.[0-9A-Z]{1,4})?[+*!]?\Z"),
}
# What every date has: a year beside another figure, or eight figures in a row.
_HAS_DATE = re.compile(r"\d{1,4}[-./ ]?(?:\d{1,2}|[A-Za-z]{3,})[-./ ,]*\d{2,4}|\d{4}-\d\d")
_FEW = 20
_MOST_DATES = 5_000
_UTC = read_zone("UTC")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one column holds.

    Attributes:
        name: the column.
        count: cells with something in them.
        missing: cells without, or with a mark for nothing.
        distinct: different cells.
        looks: what most of them are.
        numbers: their values, in order of the rows; empty unless it looks like numbers or marks.
        comparators: numbers with `<` or `>` before them.
        marks: marks for nothing that it holds, beyond those that every mapping knows.
        formats: date formats that the same number of cells fit, nine in ten at least.
        values: its most frequent cells, if they are few.
        vocabulary: of cells that look like codes.
        strays: cells that are not what it looks like.
        figures: cells that a mapping would read as numbers.
    """

    name: str
    count: int
    missing: int
    distinct: int
    looks: Looks
    numbers: npt.NDArray[np.float64]
    comparators: int = 0
    marks: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    vocabulary: str | None = None
    strays: int = 0
    figures: int = 0


def profile_of(name: str, cells: Sequence[str], figures: Figures) -> Profile:
    """Look at one column.

    Args:
        name: the column.
        cells: stripped.
        figures: the marks in numbers.
    """
    counts = Counter(cells)
    marks = tuple(sorted(mark for mark in counts if mark in _MARKS))
    nothing = NOT_RECORDED | set(marks)
    present = {cell: count for cell, count in counts.items() if cell not in nothing}
    count = sum(present.values())
    looks, strays = _looks(present, count, figures)
    values: tuple[str, ...] = ()
    if len(present) <= _FEW and looks in {"flag", "coded", "number", "unit"}:
        values = tuple(sorted(present, key=lambda cell: (-present[cell], cell)))
    numbers = _numbers(cells, figures) if looks in {"number", "flag", "coded"} else np.empty(0)
    return Profile(
        name=name,
        count=count,
        missing=len(cells) - count,
        distinct=len(present),
        looks=looks,
        numbers=numbers,
        comparators=sum(n for cell, n in present.items() if cell[0] in "<>"),
        marks=marks,
        formats=_date_formats(present) if looks == "date" else (),
        values=values,
        vocabulary=_vocabulary(list(present)) if looks == "codes" else None,
        strays=strays,
        figures=_figures(present, figures),
    )


def number_in(cell: str, figures: Figures) -> float | None:
    """The number that a mapping would read in a cell."""
    try:
        return number_of(cell, figures)[0]
    except UnusableError:
        return None


def _looks(present: dict[str, int], count: int, figures: Figures) -> tuple[Looks, int]:
    """What most cells are, and how many are something else."""
    if not present:
        return "empty", 0
    if all(_is_unit(cell) and number_in(cell, figures) is None for cell in present):
        return "unit", 0
    formats = _date_formats(present)
    if formats:
        return "date", _date_strays(present, formats[0])
    if _is_flag(present):
        return "flag", 0
    numbers = _figures(present, figures)
    if numbers >= 0.9 * count:
        return "number", count - numbers
    return _looks_of_words(present, count), 0


def _figures(present: dict[str, int], figures: Figures) -> int:
    return sum(n for cell, n in present.items() if number_in(cell, figures) is not None)


def _looks_of_words(present: dict[str, int], count: int) -> Looks:
    if _vocabulary(list(present)) is not None:
        return "codes"
    few = len(present) <= _FEW and (count >= 2 * len(present) or len(present) <= 3)
    return "coded" if few else "text"


def _is_unit(cell: str) -> bool:
    """Whether a cell is a unit, and not a mark of one letter such as F or M."""
    return normal_unit(cell) not in {None, "1"} and (len(cell) > 1 or cell == "%")


def _is_flag(present: dict[str, int]) -> bool:
    if set(present) <= {"0", "1", "0.0", "1.0"}:
        return True
    words = {_word(cell) for cell in present}
    return words <= {*YES, *NO} and len(words) <= 3


def means_yes(cell: str) -> bool:
    """Whether a cell of a flag says yes."""
    return cell in {"1", "1.0"} or _word(cell) in YES


def _word(cell: str) -> str:
    return " ".join(cell.lower().replace("í", "i").replace("_", " ").split())


def _numbers(cells: Sequence[str], figures: Figures) -> npt.NDArray[np.float64]:
    found = (number_in(cell, figures) for cell in cells)
    return np.array([value for value in found if value is not None], dtype=np.float64)


def _date_formats(present: dict[str, int]) -> tuple[str, ...]:
    """The formats that most cells fit, best first; none if no format fits nine in ten."""
    cells = dict(islice(present.items(), _MOST_DATES))
    start = [cell for cell in islice(cells, 20) if _HAS_DATE.search(cell)]
    if 2 * len(start) < min(20, len(cells)):
        return ()
    shares: dict[str, int] = {}
    for form in (ISO, *_FORMATS):
        if any(_fits(cell, form) for cell in start):
            shares[form] = sum(n for cell, n in cells.items() if _fits(cell, form))
    most = max(shares.values(), default=0)
    if most < 0.9 * sum(cells.values()):
        return ()
    return tuple(form for form, count in shares.items() if count == most)


def _date_strays(present: dict[str, int], form: str) -> int:
    return sum(n for cell, n in present.items() if not _fits(cell, form))


def _fits(cell: str, form: str) -> bool:
    if form == ISO:
        return len(cell) >= 7 and read_moment(cell, _UTC) is not None
    try:
        return 1900 <= datetime.strptime(cell, form).year <= 2100
    except ValueError:
        return False


def _vocabulary(cells: list[str]) -> str | None:
    for name, pattern in _PATTERNS.items():
        if all(pattern.match(cell) for cell in cells):
            return name
    return None
