"""Which marks a table's numbers have, before decimals and between thousands, if they tell."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice

from fedtwin_client.records.tables.figures import Figures

_LOOKED_AT = 2_000
_COMPARED = r"[<>]?=?\s*[-+]?"
_COMMA = re.compile(rf"{_COMPARED}\d*,\d+\Z")
_POINT = re.compile(rf"{_COMPARED}\d*\.\d+([eE][-+]?\d+)?\Z")
_MAYBE_THOUSANDS = re.compile(rf"{_COMPARED}[1-9]\d{{0,2}}[.,]\d{{3}}\Z")
# A cell that can be read in one way: another mark behind, or the same mark twice.
_TELLING = {
    ".": re.compile(rf"{_COMPARED}[1-9]\d{{0,2}}((\.\d{{3}})+,\d+|(\.\d{{3}}){{2,}})\Z"),
    ",": re.compile(rf"{_COMPARED}[1-9]\d{{0,2}}((,\d{{3}})+\.\d+|(,\d{{3}}){{2,}})\Z"),
    "'": re.compile(rf"{_COMPARED}[1-9]\d{{0,2}}(['\u2019]\d{{3}})+([.,]\d+)?\Z"),
    " ": re.compile(rf"{_COMPARED}[1-9]\d{{0,2}}([ \u00a0\u202f]\d{{3}})+([.,]\d+)?\Z"),
}
_DECIMAL_BESIDE = {".": ",", ",": "."}


def figures_of(columns: Sequence[Sequence[str]], unsure: dict[str, str]) -> Figures:
    """The marks of a table's numbers.

    Args:
        columns: the cells of each, stripped.
        unsure: gets what a person must look at, by key of the mapping.
    """
    cells = [cell for column in columns for cell in islice(column, _LOOKED_AT)]
    commas, points = _count(_COMMA, cells), _count(_POINT, cells)
    telling = {mark: _count(pattern, cells) for mark, pattern in _TELLING.items()}
    found = [mark for mark, count in telling.items() if count]
    if len(found) == 1:
        (mark,) = found
        decimal = _DECIMAL_BESIDE.get(mark, "," if commas > points else ".")
        unsure["thousands"] = f"{telling[mark]:,} numbers have it so: do all columns?"
        like_it = _count(_MAYBE_THOUSANDS, (cell for cell in cells if mark in cell))
        left = {",": points, ".": commas}[decimal] - (like_it if mark in _DECIMAL_BESIDE else 0)
        if left:
            unsure["decimal"] = f"{left:,} numbers have another mark"
        return Figures(decimal, mark)
    if found:
        unsure["decimal"] = "there are numbers with different marks between thousands"
        return Figures("," if commas > points else ".")
    three = _count(_MAYBE_THOUSANDS, cells)
    if three and three == commas + points and not (commas and points):
        unsure["decimal"] = f"all {three:,} numbers with a mark have it before three figures: "
        unsure["decimal"] += "decimals, or thousands?"
    elif commas and points:
        unsure["decimal"] = f"{points:,} numbers have a point and {commas:,} a comma"
        if three:
            unsure["decimal"] += (
                f"; {three:,} have it before three figures: if for thousands, write 'thousands'"
            )
    return Figures("," if commas > points else ".")


def _count(pattern: re.Pattern[str], cells: Iterable[str]) -> int:
    return sum(pattern.match(cell) is not None for cell in cells)
