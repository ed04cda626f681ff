"""How a table writes numbers: the marks before decimals and between thousands, and comparators."""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from fedtwin_client.records.reading import UnusableError, finite

_COMPARED: Final = re.compile(r"(<=|>=|<|>)?\s*(.*)\Z", re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z")
_THOUSANDS: Final = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}\Z")
# One sign for each of those that programs put in its place.
_ALIKE: Final = str.maketrans(
    {"≤": "<=", "≥": ">=", "\N{MINUS SIGN}": "-", "\N{RIGHT SINGLE QUOTATION MARK}": "'"}
    | dict.fromkeys("\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{THIN SPACE}", " ")
)


class Figures(NamedTuple):
    """The marks in a table's numbers.

    Attributes:
        decimal: before decimals, `.` or `,`.
        thousands: between thousands; none: there is none, and numbers that seem to have one are
            refused.
    """

    decimal: str = "."
    thousands: str | None = None


PLAIN: Final = Figures()


def number_of(cell: str, figures: Figures) -> tuple[float, str | None]:
    """A cell's number, and the comparator before it.

    Raises:
        UnusableError: it is no finite number, or may mean two of them.
    """
    match = _COMPARED.match(cell.translate(_ALIKE))
    assert match is not None
    written = match[2]
    if figures.thousands is not None:
        written = _without_thousands(written, figures)
    elif figures.decimal == "," and _THOUSANDS.match(written):
        raise UnusableError("a point before three digits: thousands, or decimals?")
    if figures.decimal == "," and "." not in written:
        written = written.replace(",", ".")
    if _NUMBER.match(written) is None:
        raise UnusableError("expected a number, found text")
    return finite(float(written)), match[1]


def _without_thousands(written: str, figures: Figures) -> str:
    mark = figures.thousands or ""
    if mark not in written:
        return written
    if _grouped(figures).match(written) is None:
        raise UnusableError(f"'{mark}' in a number, and not where thousands have it")
    return written.replace(mark, "")


@lru_cache(maxsize=16)
def _grouped(figures: Figures) -> re.Pattern[str]:
    """Numbers whose thousands are all marked: 1.234.567,8."""
    mark, decimal = re.escape(figures.thousands or ""), re.escape(figures.decimal)
    return re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:{mark}\d{{3}})+(?:{decimal}\d*)?\Z")
