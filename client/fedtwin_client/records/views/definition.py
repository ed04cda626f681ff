"""A ViewDefinition as its author writes it: JSON, checked key by key before anything runs.

The keys are those of SQL on FHIR v2 (sql-on-fhir.org, StructureDefinition-ViewDefinition). An error
names the file and the path of the key in it, such as `select[0].column[1].path`.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from fedtwin_protocol.contract import complaint
from fedtwin_protocol.errors import RecordError

Name: TypeAlias = Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=200)]
Expression: TypeAlias = Annotated[StrictStr, Field(min_length=1, max_length=10_000)]
Carrier: TypeAlias = Literal["boolean", "integer", "decimal", "text"]

# FHIR primitive types and FHIRPath's own, with how a table carries their values. Dates stay text,
# because they may be known only to the month.
_WHOLE = ("integer", "integer64", "positiveInt", "unsignedInt")
_TEXT = (
    *("string", "code", "id", "uri", "url", "canonical", "oid", "uuid", "markdown"),
    *("base64Binary", "date", "dateTime", "instant", "time", "xhtml"),
)
CARRIERS: dict[str, Carrier] = {
    "boolean": "boolean",
    "decimal": "decimal",
    **dict.fromkeys(_WHOLE, "integer"),
    **dict.fromkeys(_TEXT, "text"),
}
_SYSTEM = {name.lower(): name for name in ("boolean", "integer", "decimal", "string")} | {
    "date": "date",
    "datetime": "dateTime",
    "time": "time",
}
_LARGEST = 4 * 1024 * 1024


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: Any = Field(default=None, repr=False)
    extension: Any = Field(default=None, repr=False)
    modifier_extension: Any = Field(default=None, repr=False, alias="modifierExtension")


class Column(_Part):
    """One column: a FHIRPath expression and what it gives."""

    name: Name
    path: Expression
    type: StrictStr | None = None
    collection: StrictBool = False
    description: StrictStr | None = None
    tag: Any = None

    @field_validator("type")
    @classmethod
    def _is_primitive(cls, value: str | None) -> str | None:
        if value is None:
            return None
        system = value.removeprefix("http://hl7.org/fhirpath/").removeprefix("System.")
        known = value if value in CARRIERS else None
        if system != value:
            known = _SYSTEM.get(system.lower())
        if known is None:
            raise ValueError(f"expected a primitive type such as string or date, found '{value}'")
        return known

    @property
    def carrier(self) -> Carrier:
        """How a table carries the column's values; text where no type is given."""
        return CARRIERS[self.type] if self.type else "text"


class Select(_Part):
    """Columns of the focus, or of each element that `for_each` or `repeat` lead to."""

    column: tuple[Column, ...] = ()
    select: tuple["Select", ...] = ()
    union_all: tuple["Select", ...] = Field(default=(), alias="unionAll")
    for_each: Expression | None = Field(default=None, alias="forEach")
    for_each_or_null: Expression | None = Field(default=None, alias="forEachOrNull")
    repeat: tuple[Expression, ...] = ()

    @model_validator(mode="after")
    def _adds_up(self) -> "Select":
        given = [self.for_each is not None, self.for_each_or_null is not None, bool(self.repeat)]
        if sum(given) > 1:
            raise ValueError("expected one of 'forEach', 'forEachOrNull' and 'repeat', found more")
        if not (self.column or self.select or self.union_all):
            raise ValueError("expected 'column', 'select' or 'unionAll', found none")
        branches = [[item.name for item in part.columns()] for part in self.union_all]
        for number, names in enumerate(branches[1:], start=1):
            if names != branches[0]:
                raise ValueError(
                    f"the branches of 'unionAll' must have the same columns in the same order: "
                    f"the first has {', '.join(branches[0])}, and unionAll[{number}] "
                    f"{', '.join(names)}"
                )
        return self

    def columns(self) -> list[Column]:
        """The columns that it makes, in their order in the table."""
        found = [*self.column]
        for part in self.select:
            found += part.columns()
        return found + (self.union_all[0].columns() if self.union_all else [])


class Where(_Part):
    """A condition that a resource must meet."""

    path: Expression
    description: StrictStr | None = None


class Constant(_Part):
    """A value that expressions call `%name`; its type stands in its key, such as `valueCode`."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    name: Name

    @model_validator(mode="after")
    def _has_one_value(self) -> "Constant":
        keys = list(self.model_extra or {})
        known = {f"value{kind[0].upper()}{kind[1:]}" for kind in CARRIERS}
        if len(keys) != 1 or keys[0] not in known:
            found = ", ".join(keys) or "none"
            raise ValueError(f"expected one value such as 'valueString' or 'valueCode': {found}")
        (value,) = (self.model_extra or {}).values()
        if not _fits(value, CARRIERS[self.type]):
            raise ValueError(f"'{keys[0]}' is no {self.type}")
        return self

    @property
    def type(self) -> str:
        """The FHIR type of the value."""
        (key,) = self.model_extra or {}
        return next(kind for kind in CARRIERS if key[5:] == f"{kind[0].upper()}{kind[1:]}")

    @property
    def value(self) -> bool | int | float | str:
        """The value, as JSON carries it."""
        (value,) = (self.model_extra or {}).values()
        if not isinstance(value, bool | int | float | str):
            raise TypeError(type(value).__name__)
        return value


class ViewDefinition(_Part):
    """A whole view; what describes it (title, publisher ...) is kept and not read."""

    resource: Annotated[StrictStr, Field(pattern=r"^[A-Z][A-Za-z]*$", max_length=64)]
    select: tuple[Select, ...]
    where: tuple[Where, ...] = ()
    constant: tuple[Constant, ...] = ()
    resource_type: Literal["ViewDefinition"] | None = Field(default=None, alias="resourceType")

    @model_validator(mode="before")
    @classmethod
    def _without_description(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: item for key, item in value.items() if key not in _DESCRIPTION}

    @model_validator(mode="after")
    def _adds_up(self) -> "ViewDefinition":
        if not self.select:
            raise ValueError("expected at least one entry under 'select'")
        for what, names in (
            ("column", [column.name for column in self.columns()]),
            ("constant", [constant.name for constant in self.constant]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"several of its {what}s are called {', '.join(twice)}")
        return self

    def columns(self) -> list[Column]:
        """The columns of the table, in their order."""
        return [column for part in self.select for column in part.columns()]


_DESCRIPTION = frozenset(
    {
        *("meta", "implicitRules", "language", "text", "contained", "$schema"),
        *("url", "identifier", "version", "versionAlgorithmString", "versionAlgorithmCoding"),
        *("name", "title", "status", "experimental", "date", "publisher", "contact", "purpose"),
        *("description", "useContext", "jurisdiction", "copyright", "copyrightLabel"),
        *("fhirVersion", "profile"),
    }
)


def read_view(path: Path) -> ViewDefinition:
    """Read a ViewDefinition from a JSON file.

    Raises:
        RecordError: it cannot be read, is not JSON, or a key of it is wrong (named in the text).
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise RecordError(f"cannot read the view {path}: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise RecordError(f"{path} is larger than 4 MiB; expected a ViewDefinition")
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"the view {path} is not JSON: {_first_line(error)}") from error
    return parse_view(value, str(path))


def parse_view(value: Any, name: str) -> ViewDefinition:
    """Check a ViewDefinition.

    Args:
        value: as parsed from JSON.
        name: what errors call it, for example its file.

    Raises:
        RecordError: a key is wrong; the text names it by its path.
    """
    if not isinstance(value, dict):
        raise RecordError(f"the view {name} is not a JSON object with 'resource' and 'select'")
    try:
        return ViewDefinition.model_validate(value)
    except ValidationError as error:
        raise RecordError(_explain(error, name)) from error
    except RecursionError as error:
        raise RecordError(f"the view {name} is nested too deeply") from error


def _explain(error: ValidationError, name: str) -> str:
    lines = [f"the view {name} does not add up (keys are explained in docs/sources/views.md):"]
    lines += [
        f"  {_place(item['loc'])}: {complaint(item)}" for item in error.errors(include_url=False)
    ]
    return "\n".join(lines)


def _place(parts: tuple[int | str, ...]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".") or "the view as a whole"


def _fits(value: Any, carrier: Carrier) -> bool:
    if carrier == "boolean":
        return isinstance(value, bool)
    if carrier == "text":
        return isinstance(value, str)
    kinds = int if carrier == "integer" else int | float
    return isinstance(value, kinds) and not isinstance(value, bool)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
