"""The mapping file: what the columns of a hospital's table mean.

Written by the hospital's IT in YAML; `docs/records.md` explains every key. Unknown keys are
refused, and every error names the file and the key.
"""

from codecs import lookup
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from fedtwin_client.records.codes.concepts import standard_code
from fedtwin_client.records.moments import format_precision, read_zone
from fedtwin_client.records.reading import UnusableError, checked_number
from fedtwin_client.records.tables.figures import PLAIN, Figures, number_of
from fedtwin_protocol.contract import Code, complaint
from fedtwin_protocol.errors import RecordError
from fedtwin_protocol.strict_yaml import load_strictly

_LONGEST: Final = 4 * 1024 * 1024


def _is_a_format(value: str) -> str:
    format_precision(value)
    return value


Mark: TypeAlias = StrictBool | StrictInt | StrictFloat | StrictStr
TimeFormat: TypeAlias = Annotated[str, AfterValidator(_is_a_format)]
Marks: TypeAlias = tuple[Mark | None, ...]
Kind: TypeAlias = Literal["number", "flag", "text", "presence", "code"]
OffsetDays: TypeAlias = Annotated[float, Field(ge=-36525, le=36525)]
NOT_RECORDED: Marks = ("", "NA", "NaN", "null")


class Block(BaseModel):
    """A block of the file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SubjectColumn(Block):
    """Whose row it is: a column, or every row another patient.

    With `server` the column holds references to FHIR patients, or their ids, as that server's
    import knows them.
    """

    column: str | None = None
    row_number: bool = False
    system: str | None = Field(default=None, min_length=1)
    server: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")

    @model_validator(mode="after")
    def _one_of_two(self) -> "SubjectColumn":
        if (self.column is not None) == self.row_number:
            raise ValueError("expected either 'column' or 'row_number: true'")
        if self.server is not None and self.column is None:
            raise ValueError("'server' needs a 'column' with references to its patients")
        return self


class TimeColumn(Block):
    """When a row happened: a column, or one date for all rows."""

    column: str | None = None
    format: TimeFormat | None = None
    date: datetime | date | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "TimeColumn":
        if (self.column is None) == (self.date is None):
            raise ValueError("expected either 'column' or 'date'")
        return self


class KnownColumn(Block):
    """When a row became known; a row without it was known when it happened."""

    column: str
    format: TimeFormat | None = None


class BirthColumn(Block):
    """When the patient was born: a date, or the age in years at the row's time."""

    column: str | None = None
    format: TimeFormat | None = None
    age_column: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "BirthColumn":
        if (self.column is None) == (self.age_column is None):
            raise ValueError("expected either 'column' or 'age_column'")
        return self


class SexColumn(Block):
    """Which marks of a column mean male and female."""

    column: str
    male: Marks
    female: Marks


class RowEvent(Block):
    """An event without a value that every row makes."""

    code: Code
    offset_days: OffsetDays = 0.0


class ColumnMeaning(Block):
    """What one column's cells mean."""

    code: Code | None = None
    kind: Kind = "number"
    unit: str | None = None
    unit_column: str | None = None
    vocabulary: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.\-]{1,60}$")
    system_column: str | None = None
    value_column: str | None = None
    missing: Marks = ()
    values: dict[Mark, Mark] | None = None
    offset_days: OffsetDays = 0.0

    @model_validator(mode="after")
    def _adds_up(self) -> "ColumnMeaning":
        if self.kind == "code":
            self._refuse_beside_code()
        elif self.vocabulary or self.system_column or self.value_column:
            raise ValueError(
                "'vocabulary', 'system_column' and 'value_column' belong to kind 'code', and this "
                f"is a {self.kind}"
            )
        elif self.code is None:
            raise ValueError("expected a 'code' such as LOINC//2093-3")
        self._refuse_wrong_unit()
        return self

    def _refuse_beside_code(self) -> None:
        if self.code is not None:
            raise ValueError("the cells of kind 'code' are the codes; 'code' has no place there")
        if (self.vocabulary is None) == (self.system_column is None):
            raise ValueError("kind 'code' needs either 'vocabulary' or 'system_column'")

    def _refuse_wrong_unit(self) -> None:
        given = [self.unit, self.unit_column]
        if self.kind != "number" and self.value_column is None:
            if given != [None, None]:
                key = "unit" if self.unit is not None else "unit_column"
                raise ValueError(f"'{key}' belongs to kind 'number', and this is a {self.kind}")
            return
        if given == [None, None]:
            raise ValueError(
                "a number needs its 'unit'; write unit: \"1\" for a bare number, or 'unit_column'"
            )
        if None not in given:
            raise ValueError("expected either 'unit' or 'unit_column', found both")
        if self.unit is None or self.code is None:
            return
        try:
            checked_number(standard_code(self.code), 1.0, self.unit)
        except UnusableError as error:
            raise ValueError(error.reason) from error

    def beside(self) -> list[str]:
        """The other columns that its cells are read with."""
        named = (self.unit_column, self.system_column, self.value_column)
        return [name for name in named if name is not None]


class TableMapping(Block):
    """A whole mapping file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    reviewed: bool = True
    view: str | None = Field(default=None, min_length=1)
    format: Literal["csv", "parquet"] | None = None
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    encoding: str = "utf-8"
    header: bool = True
    column_names: tuple[str, ...] = ()
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", "'", " "] | None = None
    timezone: str = "UTC"
    missing: Marks = NOT_RECORDED
    subject: SubjectColumn
    time: TimeColumn
    known: KnownColumn | None = None
    birth: BirthColumn | None = None
    sex: SexColumn | None = None
    events: tuple[RowEvent, ...] = ()
    columns: dict[str, tuple[ColumnMeaning, ...]] = Field(default_factory=dict)

    @field_validator("columns", mode="before")
    @classmethod
    def _one_meaning_is_a_list_of_one(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {
            str(column): meaning if isinstance(meaning, list) else [meaning]
            for column, meaning in value.items()
        }

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            name = lookup(value).name
            "".encode(value)  # refuses codecs that are no text, such as base64
        except LookupError as error:
            raise ValueError("expected an encoding such as utf-8, latin-1 or cp1252") from error
        return "utf-8-sig" if name == "utf-8" else name

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            read_zone(value)
        except RecordError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _adds_up(self) -> "TableMapping":
        if self.header == bool(self.column_names):
            raise ValueError("'column_names' belongs to 'header: false', and is needed there")
        twice = {name for name in self.column_names if self.column_names.count(name) > 1}
        if twice:
            raise ValueError(f"'column_names' names twice: {', '.join(sorted(twice))}")
        if not self.columns and not self.events:
            raise ValueError("expected at least one entry under 'columns' or 'events'")
        if self.thousands == self.decimal:
            raise ValueError("'thousands' and 'decimal' cannot be one mark")
        self._refuse_beside_view()
        return self

    def _refuse_beside_view(self) -> None:
        if self.view is None:
            return
        of_files = (
            "format", "delimiter", "encoding", "header", "column_names", "decimal", "thousands",
        )  # fmt: skip
        given = [key for key in of_files if key in self.model_fields_set]
        if given:
            raise ValueError(f"'{given[0]}' speaks of a file of cells, and a 'view' has none")
        if self.subject.row_number:
            raise ValueError("the rows of a 'view' name their patient: expected 'subject.column'")

    def needed(self) -> list[str]:
        """The columns that the file must have, in the order of the mapping."""
        named: list[str | None] = [self.subject.column, self.time.column]
        if self.known is not None:
            named.append(self.known.column)
        if self.birth is not None:
            named += [self.birth.column, self.birth.age_column]
        if self.sex is not None:
            named.append(self.sex.column)
        for column, meanings in self.columns.items():
            named += [column, *(name for meaning in meanings for name in meaning.beside())]
        return list(dict.fromkeys(name for name in named if name is not None))


class MarkTable:
    """Looks a cell up among marks: by its text, or by its number where both are numbers.

    YAML reads unquoted yes, no, on, off, true and false as truth values; these match any of those
    words of the same sense.
    """

    def __init__(self, marks: Iterable[tuple[Mark | None, Any]], figures: Figures = PLAIN) -> None:
        """Take marks.

        Args:
            marks: each with what it stands for.
            figures: how the cells write numbers, so that -9 also matches `-9,0`.
        """
        self._figures = figures
        self._texts: dict[str, Any] = {}
        self._numbers: dict[float, Any] = {}
        for mark, meaning in marks:
            if isinstance(mark, bool):
                words = ("true", "yes", "on") if mark else ("false", "no", "off")
                self._texts |= {
                    spelling: meaning
                    for word in words
                    for spelling in (word, word.upper(), word.capitalize())
                }
                continue
            text = "" if mark is None else str(mark).strip()
            self._texts[text] = meaning
            number = _number(text)
            if number is not None:
                self._numbers[number] = meaning

    def find(self, text: str) -> tuple[bool, Any]:
        """Whether a stripped cell is among the marks, and what it stands for."""
        if text in self._texts:
            return True, self._texts[text]
        number = self._number(text) if self._numbers else None
        if number is not None and number in self._numbers:
            return True, self._numbers[number]
        return False, None

    def _number(self, cell: str) -> float | None:
        try:
            number, comparator = number_of(cell, self._figures)
        except UnusableError:
            return None
        return number if comparator is None else None


def read_mapping(path: Path) -> TableMapping:
    """Read a mapping file.

    Raises:
        RecordError: it cannot be read, is not YAML, or a key is wrong (named in the text).
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except OSError as error:
        raise RecordError(f"cannot read the mapping {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"the mapping {path} is not YAML: {error}") from error
    if len(text) > _LONGEST:
        raise RecordError(f"{path} is larger than any mapping; is it the table itself?")
    return parse_mapping(text, path)


def parse_mapping(text: str, path: Path) -> TableMapping:
    """Read what stands in a mapping file.

    Args:
        text: YAML.
        path: what errors call it.

    Raises:
        RecordError: it is not YAML, or a key is wrong (named in the text).
    """
    try:
        value = load_strictly(text)
    except yaml.YAMLError as error:
        raise RecordError(f"the mapping {path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise RecordError(f"the mapping {path} holds no keys; expected 'name', 'subject', 'time' …")
    try:
        mapping = TableMapping.model_validate(value)
    except ValidationError as error:
        raise RecordError(_explain(error, path)) from error
    if not mapping.reviewed:
        raise RecordError(
            f"the mapping {path} is a proposal that nobody has reviewed: decide every line marked "
            "'# unsure', then remove the line 'reviewed: no'"
        )
    return mapping


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"the mapping {path} does not add up (keys are explained in docs/records.md):"]
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "the file as a whole"
        lines.append(f"  {place}: {complaint(item)}")
    return "\n".join(lines)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
