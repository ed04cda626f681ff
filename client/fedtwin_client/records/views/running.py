"""A ViewDefinition at work: from one resource to its rows.

The order of things is that of the specification (SQL on FHIR v2, "Processing algorithm"): `where`
picks resources; a `select` leads to its elements (`forEach`, `forEachOrNull`, `repeat`); for each
of them its columns, nested selects and `unionAll` are multiplied.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Any

from fhirpathpy.engine.nodes import FP_DateTime, FP_Time, ResourceNode

from fedtwin_client.records.resources import Resource
from fedtwin_client.records.views.definition import Column, Constant, Select, ViewDefinition
from fedtwin_client.records.views.functions import EvaluationError, functions
from fedtwin_client.records.views.paths import Path, parse_path, plain_value
from fedtwin_protocol.errors import RecordError

MOST_ROWS = 100_000  # of one resource; more is a product that its author did not mean
_VALUES = (bool, int, float, str)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cell:
    column: Column
    path: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """A `select` with its expressions parsed."""

    cells: tuple[_Cell, ...]
    parts: tuple["_Step", ...]
    branches: tuple["_Step", ...]
    each: Path | None
    or_null: bool
    repeat: tuple[Path, ...]


class View:
    """A view whose expressions are parsed and checked.

    Attributes:
        definition: what its author wrote.
        name: what errors call it.
    """

    def __init__(self, definition: ViewDefinition, name: str, now: datetime) -> None:
        """Parse every expression.

        Args:
            definition: the view.
            name: what errors call it, for example its file.
            now: aware; what the view's `now()` gives.

        Raises:
            RecordError: an expression is no FHIRPath, or names what is not there.
        """
        try:
            self._prepare(definition, name, now)
        except RecursionError as error:
            raise RecordError(f"the view {name} is nested too deeply") from error

    def _prepare(self, definition: ViewDefinition, name: str, now: datetime) -> None:
        self.definition = definition
        self.name = name
        self._table = functions(now)
        self._constants = {item.name: _constant(item) for item in definition.constant}
        self._where = [
            self._path(item.path, f"where[{number}].path")
            for number, item in enumerate(definition.where)
        ]
        self._steps = tuple(
            self._step(item, f"select[{number}]") for number, item in enumerate(definition.select)
        )

    @property
    def columns(self) -> list[Column]:
        """The columns of its rows, in their order."""
        return self.definition.columns()

    def rows(self, resource: Resource) -> list[dict[str, Any]]:
        """The rows of one resource, by column; none for one of another type.

        Raises:
            EvaluationError: an expression does not fit the resource; the text names its key.
        """
        if resource.get("resourceType") != self.definition.resource:
            return []
        root = ResourceNode.create_node(resource, resource["resourceType"])
        variables = self._constants | {
            "context": root,
            "resource": root,
            "rootResource": root,
            "ucum": "http://unitsofmeasure.org",
            "sct": "http://snomed.info/sct",
            "loinc": "http://loinc.org",
            "rowIndex": 0,
        }
        try:
            if not all(self._holds(path, root, variables) for path in self._where):
                return []
            return self._multiply([self._made(step, [root], variables) for step in self._steps])
        except RecursionError as error:
            raise EvaluationError("it is nested too deeply for the view") from error

    def _path(self, text: str, where: str) -> Path:
        return parse_path(text, where, self._constants, self._table, self.name)

    def _step(self, item: Select, where: str) -> _Step:
        each = item.for_each if item.for_each is not None else item.for_each_or_null
        key = "forEach" if item.for_each is not None else "forEachOrNull"
        return _Step(
            cells=tuple(
                _Cell(column=column, path=self._path(column.path, f"{where}.column[{number}].path"))
                for number, column in enumerate(item.column)
            ),
            parts=tuple(
                self._step(part, f"{where}.select[{number}]")
                for number, part in enumerate(item.select)
            ),
            branches=tuple(
                self._step(part, f"{where}.unionAll[{number}]")
                for number, part in enumerate(item.union_all)
            ),
            each=None if each is None else self._path(each, f"{where}.{key}"),
            or_null=item.for_each_or_null is not None,
            repeat=tuple(
                self._path(text, f"{where}.repeat[{number}]")
                for number, text in enumerate(item.repeat)
            ),
        )

    def _nodes(self, path: Path, focus: list[Any], variables: dict[str, Any]) -> list[Any]:
        try:
            return path.nodes(focus, variables, self._table)
        except EvaluationError as error:
            raise EvaluationError(f"{path.where} ('{path.text}'): {error}") from error

    def _holds(self, path: Path, root: Any, variables: dict[str, Any]) -> bool:
        found = [plain_value(item) for item in self._nodes(path, [root], variables)]
        if len(found) > 1 or any(not isinstance(item, bool) for item in found):
            raise EvaluationError(
                f"{path.where} ('{path.text}'): expected true or false, found something else"
            )
        return found == [True]

    def _made(
        self, step: _Step, focus: list[Any], variables: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The rows of a select at one focus."""
        if step.each is None and not step.repeat:
            return self._at(step, focus, variables)
        if step.each is not None:
            nodes = self._nodes(step.each, focus, variables)
        else:
            nodes = list(self._descend(step.repeat, focus, variables))
        if not nodes and step.or_null:
            return self._at(step, [], variables | {"rowIndex": 0})
        rows: list[dict[str, Any]] = []
        for number, node in enumerate(nodes):
            rows += self._at(step, [node], variables | {"rowIndex": number})
            _refuse_more_than(MOST_ROWS, len(rows))
        return rows

    def _descend(
        self, paths: tuple[Path, ...], focus: list[Any], variables: dict[str, Any]
    ) -> Iterator[Any]:
        """Every element that the paths lead to, again and again; parents before children."""
        waiting = list(reversed(self._led_to(paths, focus, variables)))
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(self._led_to(paths, [node], variables))

    def _led_to(
        self, paths: tuple[Path, ...], focus: list[Any], variables: dict[str, Any]
    ) -> list[Any]:
        return [node for path in paths for node in self._nodes(path, focus, variables)]

    def _at(self, step: _Step, focus: list[Any], variables: dict[str, Any]) -> list[dict[str, Any]]:
        factors = [[{cell.column.name: self._value(cell, focus, variables) for cell in step.cells}]]
        factors += [self._made(part, focus, variables) for part in step.parts]
        if step.branches:
            factors.append(
                [row for part in step.branches for row in self._made(part, focus, variables)]
            )
        return self._multiply(factors)

    def _multiply(self, factors: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        count = 1
        for rows in factors:
            count *= len(rows)
        _refuse_more_than(MOST_ROWS, count)
        return [
            {name: value for part in combined for name, value in part.items()}
            for combined in product(*factors)
        ]

    def _value(self, cell: _Cell, focus: list[Any], variables: dict[str, Any]) -> Any:
        found = [plain_value(item) for item in self._nodes(cell.path, focus, variables)]
        try:
            values = [_checked(value, cell.column) for value in found]
        except EvaluationError as error:
            raise EvaluationError(f"{cell.path.where} ('{cell.path.text}'): {error}") from error
        if cell.column.collection:
            return values
        if len(values) > 1:
            raise EvaluationError(
                f"{cell.path.where} ('{cell.path.text}'): found {len(values)} values; write "
                f"'collection: true', end the path with .first(), or use forEach"
            )
        return values[0] if values else None


def _checked(value: Any, column: Column) -> Any:
    """A value that fits its column.

    Raises:
        EvaluationError: it is not a primitive, or not of the column's type.
    """
    if not isinstance(value, _VALUES):
        raise EvaluationError(
            f"found an element with parts, and the column '{column.name}' takes one value; name "
            "the part that is wanted"
        )
    if isinstance(value, int | float) and not _is_finite(value):
        raise EvaluationError(f"the column '{column.name}' takes finite numbers")
    if column.type is None:
        return value
    kind = column.carrier
    if isinstance(value, bool):
        found, fits = "true or false", kind == "boolean"
    elif isinstance(value, str):
        found, fits = "text", kind == "text"
    else:
        whole = abs(value) < 2**63 and value == int(value)
        found, fits = "a number", kind == "decimal" or (kind == "integer" and whole)
    if not fits:
        raise EvaluationError(f"the column '{column.name}' is of type {column.type}, found {found}")
    return int(value) if kind == "integer" else value


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of figures
        return False


def _refuse_more_than(most: int, count: int) -> None:
    if count > most:
        raise EvaluationError(f"one resource makes more than {most:,} rows; narrow the view")


def _constant(item: Constant) -> Any:
    if item.type in {"date", "dateTime", "instant"}:
        return FP_DateTime(str(item.value)) or item.value
    if item.type == "time":
        return FP_Time(str(item.value)) or item.value
    return item.value
