"""Which unit values without one are in, told by a reference: proposed here, accepted by a person.

The reference is a sketch of each code's values in the consortium: 19 quantiles (5 %, 10 %, ...
95 %) in a named unit. For each unit that the code may be written in, the values are converted and
their distribution is held against the sketch by the Kolmogorov-Smirnov distance at these quantiles.
This is the local form of what N3C did with pooled values (Bradwell et al., J Am Med Inform Assoc
2022, ocac054), with no value leaving the site.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.codes.concepts import codes_of
from fedtwin_client.records.codes.rows import Line, checked_code, read_lines
from fedtwin_client.records.codes.tables import CodeTables, in_use

LEVELS: Final = tuple(range(5, 100, 5))
FEWEST: Final = 20
LARGEST_DISTANCE: Final = 0.3
LEAST_LEAD: Final = 0.2
_COLUMNS: Final = ("code", "unit", *(f"q{level:02d}" for level in LEVELS))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """How a code's values lie in the consortium.

    Attributes:
        unit: of the quantiles.
        quantiles: (19,) at 5 %, 10 %, ... 95 %.
    """

    unit: str
    quantiles: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """What the values of one code say of their unit.

    Attributes:
        code: whose values they are.
        values: how many.
        distances: units that they may be in, each with its distance from 0 to 1; nearest first.
        unit: the proposed one; none if it cannot be told.
        why: in words.
    """

    code: str
    values: int
    distances: tuple[tuple[str, float], ...]
    unit: str | None
    why: str


def read_reference(file: Path) -> dict[str, Reference]:
    """Read sketches: CSV with the columns `code`, `unit`, `q05`, `q10`, ... `q95`.

    Raises:
        RecordError: it cannot be read, or a row is not whole.
    """
    found: dict[str, Reference] = {}
    for line in read_lines(file, _COLUMNS, _COLUMNS):
        code = checked_code(line, line.get("code"))
        unit = in_use().units.normal(line.get("unit"))
        if unit is None:
            raise line.fault(f"the unit '{line.get('unit')[:40]}' is not known")
        if code in found:
            raise line.fault(f"{code} comes twice")
        quantiles = np.array([_number(line, column) for column in _COLUMNS[2:]])
        if (np.diff(quantiles) < 0).any():
            raise line.fault("expected quantiles that never fall from one to the next")
        found[code] = Reference(unit=unit, quantiles=quantiles)
    return found


def read_values(file: Path) -> dict[str, list[float]]:
    """Read values without a unit: CSV with the columns `code` and `value`.

    Raises:
        RecordError: it cannot be read, or a row is not whole.
    """
    found: dict[str, list[float]] = {}
    for line in read_lines(file, ("code", "value"), ("code", "value")):
        code = in_use().standard(checked_code(line, line.get("code")))
        found.setdefault(code, []).append(_number(line, "value"))
    return found


def _number(line: Line, column: str) -> float:
    number = line.number_in(column)
    if number is None:
        raise line.fault(f"expected a number as {column}")
    return number


def values_put_aside(lines: Iterator[str]) -> Iterator[tuple[str, float]]:
    """Codes and values of FHIR Observations that were put aside because they have no unit.

    Args:
        lines: of a quarantine file.
    """
    for line in lines:
        try:
            entry = json.loads(line)
            reasons = [entry["reason"], *entry.get("also", ())]
            aside = any(str(reason).startswith("no unit for ") for reason in reasons)
            resource = json.loads(entry["raw"]) if aside else None
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if isinstance(resource, dict):
            parts = resource.get("component")
            for part in (resource, *(parts if isinstance(parts, list) else ())):
                yield from _without_unit(part)


def _without_unit(part: Any) -> Iterator[tuple[str, float]]:
    quantity = part.get("valueQuantity") if isinstance(part, dict) else None
    if not isinstance(quantity, dict) or quantity.get("unit") or quantity.get("code"):
        return
    value, codes = quantity.get("value"), codes_of(part.get("code"))
    if isinstance(value, int | float) and abs(value) < 1e300 and codes and math.isfinite(value):
        yield codes[0], float(value)


def propose_units(
    values: Mapping[str, list[float]], references: Mapping[str, Reference]
) -> list[Proposal]:
    """A proposal for every code that has values and a reference.

    Args:
        values: numbers without a unit, by code.
        references: sketches by code.
    """
    tables = in_use()
    return [
        propose_unit(code, np.array(numbers, dtype=np.float64), references[code], tables)
        for code, numbers in sorted(values.items())
        if code in references and numbers
    ]


def propose_unit(
    code: str, values: NDArray[np.float64], reference: Reference, tables: CodeTables
) -> Proposal:
    """Hold the values in each unit against the reference.

    A unit is proposed if there are enough values, its distance is small, and every unit of another
    scale is clearly farther.

    Args:
        code: of a known substance or measure; of another only the reference's unit is tried.
        values: (values,) without a unit.
        reference: of this code.
        tables: of codes and units.
    """
    distances = sorted(
        _distances(code, values, reference, tables).items(), key=lambda item: item[1]
    )
    unit: str | None = None
    if len(values) < FEWEST:
        why = f"fewer than {FEWEST} values"
    elif not distances:
        why = f"the reference's unit {reference.unit} does not fit this code"
    elif distances[0][1] > LARGEST_DISTANCE:
        why = "no unit brings the values near the reference"
    elif len(distances) > 1 and distances[1][1] - distances[0][1] < LEAST_LEAD:
        why = f"{distances[0][0]} and {distances[1][0]} are about equally near"
    else:
        unit, why = distances[0][0], "nearest by far"
    return Proposal(code=code, values=len(values), distances=tuple(distances), unit=unit, why=why)


def _distances(
    code: str, values: NDArray[np.float64], reference: Reference, tables: CodeTables
) -> dict[str, float]:
    known = tables.analytes.get(code)
    units = (reference.unit,) if known is None else (known.unit, *known.written, reference.unit)
    found: dict[str, float] = {}
    scales: list[tuple[float, float]] = []
    for unit in dict.fromkeys(units):
        way = tables.convert(code, unit, reference.unit)
        if way is None or any(np.allclose((way.factor, way.offset), one) for one in scales):
            continue
        scales.append((way.factor, way.offset))
        found[unit] = ks_distance(values * way.factor + way.offset, reference.quantiles)
    return found


def ks_distance(values: NDArray[np.float64], quantiles: NDArray[np.float64]) -> float:
    """The largest gap between a sample's distribution and a sketch, at the sketch's quantiles.

    Args:
        values: (values,) at least one.
        quantiles: (19,) at 5 %, 10 %, ... 95 %; where several are equal the distribution jumps.

    Returns:
        From 0 to 1.
    """
    ordered = np.sort(values)
    below = np.searchsorted(ordered, quantiles, side="left") / len(ordered)
    up_to = np.searchsorted(ordered, quantiles, side="right") / len(ordered)
    levels = np.array(LEVELS) / 100
    gaps = np.maximum(np.maximum(levels - up_to, below - levels), 0.0)
    return float(gaps.max())
