"""A researcher's columns, made into what the feature contract asks for, or refused by name."""

import difflib
import math
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtwin_protocol.contract import Feature, FeatureContract
from fedtwin_protocol.encoding import spell_category
from fedtwin_protocol.errors import ReleaseError
from fedtwin_research.units import Conversion, conversions_to, ucum

Value = float | str | None
_SEX = {"male": 1.0, "m": 1.0, "female": 0.0, "f": 0.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Checked values in the contract's units.

    Attributes:
        values: feature name -> values, one for each patient.
        rows: number of patients.
        warnings: sentences about missing values and values at the edge of what was learned.
    """

    values: dict[str, list[Value]]
    rows: int
    warnings: tuple[str, ...]


def contract_columns(contract: FeatureContract, features: Any, units: Mapping[str, str]) -> Columns:
    """Check and convert a researcher's columns.

    Args:
        contract: what the model asks for.
        features: mapping of columns, list of mappings, one mapping of single values, a pandas
            DataFrame, a pyarrow Table, or a numpy array whose columns have names.
        units: of the columns that are not in the contract's unit.

    Raises:
        ReleaseError: names the column, and where it applies the row, the value and the range.
    """
    raw = _as_columns(features)
    names = [feature.name for feature in contract.features]
    _check_names(names, raw, units)
    rows = _rows(raw)
    values, warnings = {}, []
    for feature in contract.features:
        column = _column(feature, raw[feature.name], units.get(feature.name))
        values[feature.name] = column
        warnings += _warnings(feature, column)
    return Columns(values=values, rows=rows, warnings=tuple(warnings))


def _as_columns(features: Any) -> dict[str, list[Any]]:
    if (table := table_columns(features)) is not None:
        return table
    if isinstance(features, Mapping):
        single = [name for name, value in features.items() if _is_single(value)]
        if single and len(single) == len(features):
            return {str(name): [value] for name, value in features.items()}
        if single:
            raise ReleaseError(
                f"column '{single[0]}' holds one value where others hold lists; write a list"
            )
        return {str(name): list(value) for name, value in features.items()}
    if isinstance(features, Sequence) and not isinstance(features, str):
        return _from_rows(features)
    raise ReleaseError(
        "expected a mapping of columns, a list of mappings, a pandas DataFrame, a pyarrow Table or "
        f"a numpy array whose columns have names, got {_kind(features)}"
    )


def table_columns(table: Any) -> dict[str, list[Any]] | None:
    """Columns of another library's table, which is not imported for it; none of anything else."""
    pandas, pyarrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    if pandas is not None and isinstance(table, pandas.DataFrame):
        return {str(name): table[name].tolist() for name in table.columns}
    if pyarrow is not None and isinstance(table, pyarrow.Table):
        return {str(name): column for name, column in table.to_pydict().items()}
    if isinstance(table, np.ndarray) and table.dtype.names:
        return {name: np.atleast_1d(table[name]).tolist() for name in table.dtype.names}
    return None


def _kind(features: Any) -> str:
    if isinstance(features, np.ndarray):
        return f"an array of shape {features.shape} whose columns have no names"
    return type(features).__name__


def _is_single(value: Any) -> bool:
    return value is None or isinstance(value, str | numbers.Number | bool)


def _from_rows(rows: Sequence[Any]) -> dict[str, list[Any]]:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ReleaseError(f"row {number}: expected a mapping, got {type(row).__name__}")
        if set(row) != set(rows[0]):
            odd = ", ".join(sorted(str(name) for name in set(row) ^ set(rows[0])))
            raise ReleaseError(f"row {number} has other columns than row 0: {odd}")
    if not rows:
        raise ReleaseError("expected at least one patient, got none")
    return {str(name): [row[name] for row in rows] for name in rows[0]}


def _check_names(names: list[str], raw: Mapping[str, Any], units: Mapping[str, str]) -> None:
    if not isinstance(units, Mapping):
        raise ReleaseError(
            f"expected units by column, such as {{'{names[0]}': '…'}}, got {units!r}"
        )
    missing = [name for name in names if name not in raw]
    extra = [name for name in raw if name not in names]
    if missing or extra:
        parts = [f"missing: {', '.join(missing)}"] if missing else []
        parts += [f"not asked for: {with_hints(extra, names)}"] if extra else []
        raise ReleaseError(f"the columns do not fit the contract; {'; '.join(parts)}")
    unknown = [name for name in units if name not in names]
    if unknown:
        raise ReleaseError(f"a unit is given for unknown columns: {with_hints(unknown, names)}")


def with_hints(given: list[str], names: list[str]) -> str:
    """Names that were given, each with the known one that was probably meant."""
    close = ((name, difflib.get_close_matches(name, names, 1)) for name in given)
    return ", ".join(f"{name} (did you mean {near[0]}?)" if near else name for name, near in close)


def _rows(raw: Mapping[str, list[Any]]) -> int:
    lengths = {name: len(column) for name, column in raw.items()}
    if len(set(lengths.values())) > 1:
        text = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ReleaseError(f"the columns differ in length: {text}")
    return next(iter(lengths.values()))


def _column(feature: Feature, column: Sequence[Any], unit: str | None) -> list[Value]:
    if feature.kind == "category":
        if unit is not None:
            raise ReleaseError(f"column '{feature.name}' is a category and has no unit")
        return [_category(feature, row, value) for row, value in enumerate(column)]
    conversion = _conversion(feature, unit)
    return [_number(feature, row, value, conversion) for row, value in enumerate(column)]


def _conversion(feature: Feature, unit: str | None) -> Conversion:
    known = conversions_to(_unit_of(feature), feature.codes)
    source = ucum(_unit_of(feature) if unit is None else unit)
    if source not in known:
        raise ReleaseError(
            f"column '{feature.name}': cannot convert {unit!r} to {_unit_of(feature)!r}; expected "
            f"one of {', '.join(known)}"
        )
    return known[source]


def _unit_of(feature: Feature) -> str:
    if feature.counts:
        return "1"
    return "a" if feature.kind == "age" and feature.unit == "1" else feature.unit


def _number(feature: Feature, row: int, value: Any, conversion: Conversion) -> float | None:
    """One value of a column in the contract's unit; None where it is missing."""
    if is_missing(value):
        return None
    number = _plain_number(feature, row, value)
    if feature.yes_or_no:
        if number not in (0.0, 1.0):
            raise _refusal(feature, row, value, "0 or 1")
        return number
    if feature.counts:
        if not (number >= 0 and number.is_integer()):
            raise _refusal(feature, row, value, "how many values there are: 0, 1, 2 and so on")
        return number
    converted = conversion.of(number)
    low, high = feature.plausible or (-math.inf, math.inf)
    if not (math.isfinite(converted) and low <= converted <= high):
        expected = f"{low:g} to {high:g} {feature.unit}" if feature.plausible else "a finite number"
        raise _refusal(feature, row, value, expected, _unit_hint(feature, number))
    return converted


def _plain_number(feature: Feature, row: int, value: Any) -> float:
    if feature.kind == "sex" and isinstance(value, str) and value.lower() in _SEX:
        return _SEX[value.lower()]
    yes_or_no = feature.yes_or_no and feature.kind != "sex"
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, numbers.Real) or (is_bool(value) and not yes_or_no):
        expected = "male, female, 1 or 0" if feature.kind == "sex" else "a number"
        raise _refusal(feature, row, value, expected)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def is_bool(value: Any) -> bool:
    """Whether a value is yes or no, of Python or of numpy."""
    return isinstance(value, bool) or type(value).__name__ == "bool_"


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or what tables of other libraries have for them."""
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, numbers.Real) and not isinstance(value, int) and math.isnan(value)


def _unit_hint(feature: Feature, number: float) -> str:
    """Other units in which the value would make sense, if there are any."""
    if feature.plausible is None:
        return ""
    low, high = feature.plausible
    own = ucum(_unit_of(feature))
    fitting = [
        unit
        for unit, conversion in conversions_to(own, feature.codes).items()
        if unit != own and low <= conversion.of(number) <= high
    ]
    if not fitting:
        return ""
    return (
        f"; if the column is in {' or '.join(fitting)}, say so, "
        f"such as units={{'{feature.name}': '{fitting[0]}'}}"
    )


def _category(feature: Feature, row: int, value: Any) -> str | None:
    if is_missing(value):
        return None
    spelled = isinstance(value, numbers.Real) and not is_bool(value)
    text = spell_category(float(value)) if spelled else str(value)
    if text not in feature.categories:
        raise _refusal(feature, row, value, f"one of {', '.join(feature.categories)}")
    return text


def _refusal(feature: Feature, row: int, value: Any, expected: str, hint: str = "") -> ReleaseError:
    return ReleaseError(
        f"column '{feature.name}', row {row}: expected {expected}, found {value!r}{hint}"
    )


def _warnings(feature: Feature, column: Sequence[Value]) -> list[str]:
    found = []
    missing = sum(value is None for value in column)
    if missing:
        what = (
            "no prediction is made for them"
            if feature.missing == "exclude"
            else "the contract's centre stands in"
        )
        found.append(f"{feature.name} is missing for {missing} of {len(column)} patients: {what}")
    numeric = [value for value in column if isinstance(value, float)]
    low, high = feature.clip
    scaled = [(value - feature.center) / feature.scale for value in numeric]
    clipped = sum(not low <= value <= high for value in scaled)
    if clipped and feature.kind in {"number", "age"}:
        found.append(
            f"{feature.name} lies beyond what the model distinguishes for {clipped} of "
            f"{len(column)} patients and was taken as the edge"
        )
    return found
