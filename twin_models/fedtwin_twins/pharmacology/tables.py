"""Dated tables of facts about drugs, as CSV with their origin on top; a site may load newer ones.

A table begins with lines `# key: value`, of which `format`, `version` (a date), `source` and
`licence` must be there; then comes a row of column names, then the rows. Every row names its source
and says in `verified` how far it was checked when it was typed:

- `read`: seen in the named source, or in a copy of it;
- `transcription`: seen in somebody else's transcription, which the source names;
- `memory`: from memory; to be looked up before anybody relies on it.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from math import isfinite
from typing import Final, Literal, TypeVar, cast

from fedtwin_twins.twin.refusals import Problem, Refusal

Verified = Literal["read", "transcription", "memory"]
VERIFIED: Final = ("read", "transcription", "memory")
HOW_CHECKED: Final[dict[Verified | None, str]] = {
    "read": "read in the source",
    "transcription": "from a transcription of the source",
    "memory": "from memory, not checked",
    None: "not said how far it was checked",
}
"""In words, for whoever sees a row's value."""
_LARGEST: Final = 8_000_000
_HEAD: Final = ("format", "version", "source", "licence")
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a table comes from.

    Attributes:
        name: of the file.
        version: the day of its newest fact.
        source: in words.
        licence: of its content.
    """

    name: str
    version: date
    source: str
    licence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row, with the place that an error names."""

    origin: Origin
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """A cell that may be empty."""
        return self.cells[column]

    def needed(self, column: str) -> str:
        """A cell that must not be empty.

        Raises:
            Refusal: it is.
        """
        if not self.cells[column]:
            raise self.refusal(column, "a value")
        return self.cells[column]

    def one_of(self, column: str, allowed: Sequence[str]) -> str:
        """A cell with one of a few words.

        Raises:
            Refusal: it has another.
        """
        if self.cells[column] not in allowed:
            raise self.refusal(column, ", ".join(allowed))
        return self.cells[column]

    def number(self, column: str) -> float | None:
        """A cell with a finite number; none where it is empty.

        Raises:
            Refusal: it has something else.
        """
        return self._read(column, _finite, "a number or nothing")

    def day(self, column: str) -> date | None:
        """A cell with a day; none where it is empty.

        Raises:
            Refusal: it has something else.
        """
        return self._read(column, date.fromisoformat, "a day such as 2026-02-04, or nothing")

    def verified(self) -> Verified:
        """How far the row was checked."""
        return cast(Verified, self.one_of("verified", VERIFIED))

    def refusal(self, column: str, allowed: str) -> Refusal:
        """What is wrong with a cell, and where."""
        return Refusal(
            Problem(
                field=f"{self.origin.name}, line {self.line}, column '{column}'",
                value=self.cells[column] or "empty",
                allowed=allowed,
                remedy="mend the table and load it again",
            )
        )

    def _read(self, column: str, read: Callable[[str], _T], allowed: str) -> _T | None:
        text = self.cells[column]
        if not text:
            return None
        try:
            return read(text)
        except ValueError as error:
            raise self.refusal(column, allowed) from error


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value


def built_in_text(name: str) -> str:
    """A table that comes with this package."""
    return (files(__package__) / "tables" / name).read_text(encoding="utf-8")


def read_table(
    text: str, name: str, form: str, columns: Sequence[str]
) -> tuple[Origin, tuple[Row, ...]]:
    """A table's origin and its rows.

    Args:
        text: of the file.
        name: of the file, for errors.
        form: what the line `# format:` must say.
        columns: that it must have; others are refused, for a misspelt one would go unseen.

    Raises:
        Refusal: it is no such table; with file, line and what was expected.
    """
    if len(text) > _LARGEST:
        raise _no_table(name, f"more than {_LARGEST} characters", "a smaller file")
    head, body = _split(text)
    missing = [key for key in _HEAD if not head.get(key)]
    if missing:
        raise _no_table(name, f"no line '# {missing[0]}: …'", "these lines at the top of the file")
    if head["format"] != form:
        raise _no_table(name, f"format {head['format']}", form)
    try:
        version = date.fromisoformat(head["version"])
    except ValueError as error:
        raise _no_table(name, f"version {head['version']}", "a day such as 2026-02-04") from error
    origin = Origin(name=name, version=version, source=head["source"], licence=head["licence"])
    return origin, tuple(_rows(body, origin, columns))


def _split(text: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
    head: dict[str, str] = {}
    body = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            head[key.strip()] = value.strip()
        elif line.strip():
            body.append((number, line))
    return head, body


def _rows(body: Sequence[tuple[int, str]], origin: Origin, columns: Sequence[str]) -> Iterator[Row]:
    try:
        read = list(csv.reader(io.StringIO("\n".join(line for _, line in body)), strict=True))
    except csv.Error as error:
        raise _no_table(origin.name, f"something that is no CSV ({error})", "CSV") from error
    if len(read) != len(body):
        raise _no_table(origin.name, "a cell with a line break", "every row on one line")
    if not read or sorted(read[0]) != sorted(columns):
        given = ", ".join(read[0]) if read else "nothing"
        raise _no_table(origin.name, f"the columns {given}", ", ".join(columns))
    if len(read) == 1:
        raise _no_table(origin.name, "no row", "at least one")
    for (number, _), cells in zip(body[1:], read[1:], strict=True):
        if len(cells) != len(read[0]):
            raise _no_table(
                f"{origin.name}, line {number}", f"{len(cells)} cells", f"{len(read[0])} cells"
            )
        named = dict(zip(read[0], (cell.strip() for cell in cells), strict=True))
        yield Row(origin=origin, line=number, cells=named)


def _no_table(where: str, found: str, expected: str) -> Refusal:
    form = "see docs/pharmacogenes.md for the form"
    return Refusal(Problem(field=where, value=found, allowed=expected, remedy=form))
