"""One cell of a table into an event: numbers, flags, texts, presences and codes."""

from dataclasses import dataclass, replace

from fedtwin_client.records.codes.concepts import codes_of, standard_code
from fedtwin_client.records.events import Event
from fedtwin_client.records.reading import UnusableError, checked_number
from fedtwin_client.records.tables.figures import Figures, number_of
from fedtwin_client.records.tables.mapping import ColumnMeaning, MarkTable, TableMapping
from fedtwin_client.records.tables.rows import Row

_YES = {"1", "1.0", "true", "yes", "y", "t"}
_NO = {"0", "0.0", "false", "no", "n", "f"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One meaning of one column, ready to look cells up in."""

    name: str
    meaning: ColumnMeaning
    missing: MarkTable
    values: MarkTable | None
    number: int


def columns_of(mapping: TableMapping, figures: Figures) -> list[Column]:
    """Every meaning of every column, in the order of the mapping."""
    return [
        Column(
            name=name,
            meaning=meaning,
            missing=MarkTable(((mark, None) for mark in meaning.missing), figures),
            values=None if meaning.values is None else MarkTable(meaning.values.items(), figures),
            number=number,
        )
        for name, meanings in mapping.columns.items()
        for number, meaning in enumerate(meanings)
    ]


def cell_event(
    row: Row, column: Column, start: Event, missing: MarkTable, figures: Figures
) -> Event:
    """The event of one cell, at the row's time.

    Args:
        row: the whole row: a unit or a value may stand beside the cell.
        column: what the cell means.
        start: the event that all of the row's events start from.
        missing: marks for "not recorded" in every column.
        figures: the marks in numbers.

    Raises:
        UnusableError: the cell makes no event.
    """
    cell, meaning = row.cells[column.name], column.meaning
    if not cell or missing.find(cell)[0] or column.missing.find(cell)[0]:
        raise UnusableError("not recorded", wrong=False)
    if column.values is not None:
        listed, stands_for = column.values.find(cell)
        if not listed:
            raise UnusableError("not among the values of the mapping")
        cell = str(stands_for).lower() if isinstance(stands_for, bool) else str(stands_for)
    event = replace(
        start,
        code=standard_code(meaning.code or ""),
        source=f"{start.source}/{column.name}/{column.number}",
    )
    if meaning.kind == "text":
        return replace(event, text_value=cell)
    if meaning.kind == "number":
        return _with_number(event, cell, row, meaning, figures)
    if meaning.kind == "code":
        return _with_code(event, cell, row, column, (missing, figures))
    yes = _yes_or_no(cell)
    if meaning.kind == "presence":
        if not yes:
            raise UnusableError("no, which makes no event", wrong=False)
        return event
    return replace(event, numeric_value=float(yes))


def _with_number(
    event: Event, cell: str, row: Row, meaning: ColumnMeaning, figures: Figures
) -> Event:
    value, comparator = number_of(cell, figures)
    unit = meaning.unit if meaning.unit_column is None else row.cells[meaning.unit_column]
    number = checked_number(event.code, value, unit)
    return replace(
        event,
        numeric_value=number.value,
        unit=number.unit,
        src_unit=number.src_unit,
        comparator=comparator,
    )


def _with_code(
    event: Event, cell: str, row: Row, column: Column, marks: tuple[MarkTable, Figures]
) -> Event:
    missing, figures = marks
    meaning = column.meaning
    coded = replace(event, code=_code(cell, row, meaning))
    if meaning.value_column is None:
        return coded
    value = row.cells[meaning.value_column]
    if not value or missing.find(value)[0] or column.missing.find(value)[0]:
        raise UnusableError(f"{meaning.value_column}: not recorded", wrong=False)
    return _with_number(coded, value, row, meaning, figures)


def _code(cell: str, row: Row, meaning: ColumnMeaning) -> str:
    """The code that a cell of kind `code` holds."""
    if meaning.system_column is None:
        return standard_code(f"{meaning.vocabulary}//{'_'.join(cell.split())}")
    system = row.cells[meaning.system_column]
    if not system:
        raise UnusableError(f"{meaning.system_column}: a code without its system")
    found = codes_of({"coding": [{"system": system, "code": cell}]})
    return found[0]


def _yes_or_no(cell: str) -> bool:
    word = cell.lower()
    if word not in _YES | _NO:
        raise UnusableError("expected yes or no")
    return word in _YES
