"""What lines of FHIR Observations hold of which something is made, as columns of JSON texts."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedtwin_client.records.fhir.columns import QUANTITY, Columns


class Quantities(NamedTuple):
    """Values that are quantities: Observations' own, or those of their components.

    Attributes:
        row: (values,) of which line.
        number: (values,) which of its parts it is.
        code: a CodeableConcept.
        value: a number.
        unit: what people read.
        unit_code: a UCUM code.
        comparator: if it is a bound.
    """

    row: NDArray[np.int64]
    number: NDArray[np.int64]
    code: pa.Array
    value: pa.Array
    unit: pa.Array
    unit_code: pa.Array
    comparator: pa.Array

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All of several."""
        return cls(*_joined(parts, 5))


class Answers(NamedTuple):
    """Values of other kinds.

    Attributes:
        row: (values,) of which line.
        number: (values,) which of its parts it is.
        code: a CodeableConcept.
        answer: a member with its name; empty for none at all.
    """

    row: NDArray[np.int64]
    number: NDArray[np.int64]
    code: pa.Array
    answer: pa.Array

    @classmethod
    def joined(cls, parts: Iterable[Self]) -> Self:
        """All of several."""
        return cls(*_joined(parts, 2))


class Members(NamedTuple):
    """Rows of columns, one for each line; texts are null where there are none.

    Attributes:
        proven: (rows,) whether the line holds these members and no others of their names.
        id: of the resource.
        status: of the Observation.
        subject: a Reference.
        happened: `effectiveDateTime`.
        issued: when it was known.
        updated: `meta.lastUpdated`.
        quantities: of all lines.
        answers: of all lines.
    """

    proven: NDArray[np.bool_]
    id: pa.Array
    status: pa.Array
    subject: pa.Array
    happened: pa.Array
    issued: pa.Array
    updated: pa.Array
    quantities: Quantities
    answers: Answers


def members_of(columns: Columns) -> Members:
    """What columns hold whose lines have quantities alone; other lines are not proven."""
    table = columns.table
    quantity = _array(table["valueQuantity"])
    valued = np.asarray(quantity.is_valid())
    own = np.flatnonzero(valued)
    component = _array(table["component"])
    counts = pc.fill_null(pc.list_value_length(component), 0).to_numpy()
    rows = np.repeat(np.arange(len(component)), counts)
    first = np.cumsum(counts) - counts
    numbers = np.arange(len(rows)) - np.repeat(first, counts) + valued[rows]
    code, inner = component.flatten().flatten()
    mine = dict(zip(QUANTITY, quantity.take(pa.array(own)).flatten(), strict=True))
    theirs = dict(zip(QUANTITY, inner.flatten(), strict=True))
    asked = ("value", "unit", "code", "comparator")
    return Members(
        columns.proven & (valued | columns.only_quantities),
        _array(table["id"]),
        _array(table["status"]),
        _array(table["subject"]),
        _array(table["effectiveDateTime"]),
        _array(table["issued"]),
        _array(table["meta"]).flatten()[0],
        Quantities(
            np.concatenate([own, rows]),
            np.concatenate([np.zeros(len(own), dtype=np.int64), numbers]),
            pa.concat_arrays([_array(table["code"]).take(pa.array(own)), code]),
            *(pa.concat_arrays([mine[name], theirs[name]]) for name in asked),
        ),
        Answers.joined([]),
    )


def _array(column: Any) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], type=column.type)


def _joined(parts: Iterable[tuple[Any, ...]], texts: int) -> list[Any]:
    """Two columns of numbers and some of texts, of several one after another."""
    none = np.zeros(0, dtype=np.int64)
    columns = list(zip((none, none, *[pa.array([], pa.string())] * texts), *parts, strict=True))
    return [
        *(np.concatenate(column) for column in columns[:2]),
        *(pa.concat_arrays(column) for column in columns[2:]),
    ]
