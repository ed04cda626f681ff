"""FHIRPath functions that SQL on FHIR adds, in the form of fhirpathpy's table of functions.

`getResourceKey()` is the resource's id, `getReferenceKey()` the id that a reference leads to, with
a type only if it leads there. `now()` and its kin give the time that was handed in, and `trace()`
prints nothing: what it would print speaks of patients.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from fhirpathpy.engine.nodes import FP_DateTime, FP_Time, ResourceNode
from fhirpathpy.engine.util import get_data

from fedtwin_client.records.views.boundaries import (
    date_boundary,
    decimal_boundary,
    moment_boundary,
    time_boundary,
)

Table = dict[str, dict[str, Any]]


class EvaluationError(ValueError):
    """An expression cannot be evaluated on a resource; the text says why."""


def functions(now: datetime) -> Table:
    """The functions added to fhirpathpy's own.

    Args:
        now: aware; what `now()`, `today()` and `timeOfDay()` give.
    """
    moment = now.isoformat(timespec="milliseconds")
    return {
        "getResourceKey": {"fn": _resource_key},
        "getReferenceKey": {"fn": _reference_key, "arity": {0: [], 1: ["TypeSpecifier"]}},
        "lowBoundary": {"fn": _low, "arity": {0: [], 1: ["Integer"]}},
        "highBoundary": {"fn": _high, "arity": {0: [], 1: ["Integer"]}},
        "join": {"fn": _join, "arity": {0: [], 1: ["String"]}},
        "trace": {"fn": _silent, "arity": {0: [], 1: ["String"], 2: ["String", "Expr"]}},
        "now": {"fn": lambda _context, _items: [FP_DateTime(moment)]},
        "today": {"fn": lambda _context, _items: [FP_DateTime(moment[:10])]},
        "timeOfDay": {"fn": lambda _context, _items: [FP_Time(moment[11:23])]},
    }


def reference_id(written: str, kind: str | None) -> str | None:
    """The id that a literal reference leads to; none for another type or none at all.

    Args:
        written: relative, absolute, versioned, `urn:uuid:` or a contained `#...`.
        kind: the type of resource it must lead to.
    """
    if written.startswith(("urn:uuid:", "urn:oid:")):
        return written.rpartition(":")[2] or None
    parts = written.partition("/_history")[0].rstrip("/").split("/")
    if len(parts) < 2 or not parts[-1] or (kind is not None and parts[-2] != kind):
        return None
    return parts[-1]


def _resource_key(_context: Any, items: list[Any]) -> list[Any]:
    keys = [get_data(item) for item in items]
    return [
        item["id"]
        for item in keys
        if isinstance(item, Mapping) and "resourceType" in item and isinstance(item.get("id"), str)
    ]


def _reference_key(_context: Any, items: list[Any], kind: Any = None) -> list[Any]:
    found = []
    for item in items:
        value = get_data(item)
        written = value.get("reference") if isinstance(value, Mapping) else None
        if isinstance(written, str):
            key = reference_id(written, None if kind is None else kind.name)
            found += [] if key is None else [key]
    return found


def _join(_context: Any, items: list[Any], separator: Any = "") -> list[Any]:
    """As the official tests have it: of nothing, the empty text."""
    texts = [get_data(item) for item in items]
    if not all(isinstance(text, str) for text in texts):
        raise EvaluationError("join() takes texts, found something else")
    return [(separator or "").join(texts)]


def _silent(_context: Any, items: list[Any], *_arguments: Any) -> list[Any]:
    return items


def _low(_context: Any, items: list[Any], digits: Any = None) -> list[Any]:
    return _boundary(items, False, digits)


def _high(_context: Any, items: list[Any], digits: Any = None) -> list[Any]:
    return _boundary(items, True, digits)


def _boundary(items: list[Any], high: bool, digits: Any) -> list[Any]:
    if not items:
        return []
    if len(items) > 1:
        raise EvaluationError("a boundary is one of a single value, found several")
    (item,) = items
    value = get_data(item)
    edge: Decimal | str | None = None
    if isinstance(value, Decimal | int) and not isinstance(value, bool):
        places = None if digits is None or digits == [] else int(digits)
        edge = decimal_boundary(Decimal(value), high, places)
    elif isinstance(value, str | FP_DateTime | FP_Time):
        written = value if isinstance(value, str) else str(value.asStr)
        edge = _by_type(_type_of(item), written, high)
    return [] if edge is None else [edge]


def _by_type(kind: str | None, text: str, high: bool) -> str | None:
    if kind == "date":
        return date_boundary(text, high)
    if kind == "time":
        return time_boundary(text.removeprefix("T"), high)
    return moment_boundary(text, high)


def _type_of(item: Any) -> str | None:
    if isinstance(item, ResourceNode):
        known = item.get_type_info()
        return None if known is None else str(known.name)
    return "time" if isinstance(item, FP_Time) else None
