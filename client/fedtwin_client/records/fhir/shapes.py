"""The shape of a FHIR Observation's line: its bytes, and the places where like lines may differ.

An export holds few shapes: the lines of one test differ in ids, references, times, the number and
in what nothing is made of. A line that is the same, byte for byte, outside these places is
well-formed JSON of the same members if each place holds what cannot end a text (or, for a number,
is a number). So it needs no parsing, and what its codes and units mean was found out with the first
line of the shape.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.fhir.columns import QUANTITY
from fedtwin_client.records.fhir.json_spans import Path, Span, spans_of
from fedtwin_client.records.fhir.meanings import Kept, Meanings
from fedtwin_client.records.resources import MODIFIERS, parse_json

FIELDS: Final = ("id", "subject", "effectiveDateTime", "issued", "updated")
"""Texts of which something is made; `subject` is its reference, `updated` is `meta.lastUpdated`."""
_PATHS: Final[dict[str, Path]] = {name: (name,) for name in FIELDS} | {
    "subject": ("subject", "reference"),
    "updated": ("meta", "lastUpdated"),
}
_ALWAYS: Final = ("id", "effectiveDateTime")
_UNUSED: Final[frozenset[Path]] = frozenset({("meta", "versionId"), ("meta", "source")})


class Value(NamedTuple):
    """A number of a shape: where it stands, its number among the parts, and what it becomes."""

    span: Span
    part: int
    kept: Kept


class Shape(NamedTuple):
    """Where lines of one shape differ.

    Attributes:
        line: (words,) the first line, with its open places cleared.
        mask: (words,) ones where lines must agree.
        texts: spans of open texts, without their quotation marks: `FIELDS` that are there, in
            their order, then what nothing is made of.
        widths: bytes of each of `FIELDS`, -1 for one that is not there.
        subject: the JSON text of a subject without a reference, the same in all lines; else none.
        values: the numbers, in order.
        status: as events hold it.
        probe: a word that is looked at before the others.
    """

    line: NDArray[np.uint64]
    mask: NDArray[np.uint64]
    texts: tuple[Span, ...]
    widths: tuple[int, ...]
    subject: str | None
    values: tuple[Value, ...]
    status: str | None
    probe: int = 0


def shape_of(line: bytes, meanings: Meanings) -> Shape | None:
    """The shape of a plain Observation; none for every other line.

    Args:
        line: without its line feed.
        meanings: what codes, units and statuses mean.
    """
    resource = parse_json(line) if line[:1] == b"{" else None
    if not isinstance(resource, dict) or resource.get("resourceType") != "Observation":
        return None
    if not resource.keys().isdisjoint(MODIFIERS):
        return None
    spans = spans_of(line)
    values = None if spans is None else _values(resource, spans, line, meanings)
    if spans is None or not values:
        return None
    fields = _fields(resource, spans)
    written = spans.get(("status",))
    status = meanings.status(None if written is None else _text(line, written))
    if fields is None or status is None:
        return None
    places = [(start + 1, end - 1) for start, end in fields.values()]
    texts = (*places, *_unused(line, spans))
    whole, mask = _masked(line, [*texts, *(value.span for value in values)])
    widths = dict(zip(fields, (end - start for start, end in places), strict=True))
    return Shape(
        line=whole,
        mask=mask,
        texts=texts,
        widths=tuple(widths.get(name, -1) for name in FIELDS),
        subject=None if "subject" in fields else _text(line, spans["subject",]),
        values=tuple(values),
        status=status or None,
    )


def words(length: int) -> int:
    """Bytes of a line of this length, filled up to whole words."""
    return (length + 7) // 8 * 8


def _masked(line: bytes, places: list[Span]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    mask = np.zeros(words(len(line)), dtype=np.uint8)
    mask[: len(line)] = 255
    for start, end in places:
        mask[start:end] = 0
    whole = np.zeros(len(mask), dtype=np.uint8)
    whole[: len(line)] = np.frombuffer(line, dtype=np.uint8)
    return (whole & mask).view(np.uint64), mask.view(np.uint64)


def _text(line: bytes, span: Span) -> str:
    return line[span[0] : span[1]].decode()


def _fields(resource: dict[str, Any], spans: dict[Path, Span]) -> dict[str, Span] | None:
    """The spans of `FIELDS` that are there, in their order; none if one has another form."""
    subject, meta = resource.get("subject"), resource.get("meta", {})
    if not isinstance(subject, dict) or not isinstance(meta, dict):
        return None
    found: dict[str, Span] = {}
    for name, path in _PATHS.items():
        inside = {"subject": subject, "updated": meta}.get(name, resource)
        value = inside.get(path[-1])
        if isinstance(value, str) and value:
            found[name] = spans[path]
        elif path in spans and name != "subject":
            return None
    return found if found.keys() >= set(_ALWAYS) else None


def _unused(line: bytes, spans: dict[Path, Span]) -> list[Span]:
    """Texts that differ from line to line and of which nothing is made."""
    found = []
    for path, (start, end) in spans.items():
        if (
            line[start : start + 1] == b'"'
            and path not in _PATHS.values()
            and _is_unused(path, spans)
        ):
            found.append((start + 1, end - 1))
    return found


def _is_unused(path: Path, spans: dict[Path, Span]) -> bool:
    """Whether a text is a reference to something else than the patient, or only for people."""
    last = path[-1] if path else ""
    if last == "display":
        return (*path[:-1], "reference") in spans
    numbered = path[:1] == ("identifier",) and last == "value"
    return path in _UNUSED or numbered or last == "reference"


def _values(
    resource: dict[str, Any], spans: dict[Path, Span], line: bytes, meanings: Meanings
) -> list[Value] | None:
    """The numbers of a resource of which all parts are quantities."""
    named = {name for name in resource if name.startswith("value")}
    if not named <= {"valueQuantity"}:
        return None
    parts: list[Path] = [()] if named else []
    components = resource.get("component", [])
    if not isinstance(components, list) or ("component" in resource and not components):
        return None
    for number, component in enumerate(components):
        if not isinstance(component, dict) or component.keys() != {"code", "valueQuantity"}:
            return None
        parts.append(("component", number))
    values: list[Value] = []
    for number, path in enumerate(parts):
        value = _value(path, number, spans, line, meanings)
        if value is None:
            return None
        values.append(value)
    return values


def _value(
    path: Path, number: int, spans: dict[Path, Span], line: bytes, meanings: Meanings
) -> Value | None:
    quantity = (*path, "valueQuantity")
    inside = {where[-1] for where in spans if where[:-1] == quantity}
    span = spans.get((*quantity, "value"))
    if span is None or not inside <= set(QUANTITY) or not _is_number(line, span):
        return None
    asked = [spans.get((*path, "code"))]
    asked += [spans.get((*quantity, name)) for name in ("unit", "code", "comparator")]
    kept = meanings.kept(*(None if one is None else _text(line, one) for one in asked))
    return None if kept is None else Value(span, number, kept)


def _is_number(line: bytes, span: Span) -> bool:
    return line[span[0]] in b"-0123456789"
