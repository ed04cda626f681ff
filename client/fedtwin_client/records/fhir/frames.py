"""The frame of a line of FHIR: its names and marks, with texts and numbers in it left open.

Lines of one frame have the same members in the same order; texts, numbers and with them lengths
differ. Where something stands is said by an anchor and an offset from it: a line's anchors are its
start, the quotation marks with a colon behind them, which end names, and its end. Between two
anchors at most one text or number is left open.

So a line needs no parsing. It is well-formed JSON of the same members as the frame's first line if
it has as many anchors and quotation marks that are not escaped, if outside of the open places the
bytes are the same, and if each open text holds what a text may, and each open number is one.
"""

import re
from bisect import bisect_right
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedtwin_client.records.fhir.json_spans import Path, Span, spans_of
from fedtwin_client.records.resources import MODIFIERS, parse_json

Place = tuple[int, int]
Range = tuple[Place, Place]
NUMBER: Final = r"-?(?:0|[1-9][0-9]{0,299})(?:\.[0-9]{1,300})?"
"""Numbers that may stand in an open place: without an exponent, and not of endless digits."""
_NUMBER: Final = re.compile(NUMBER.encode())
WORD: Final = 32
"""Bytes that are compared at once: what most names with the marks around them take."""
_QUOTE: Final = ord('"')
_UNITS: Final = ("unit", "code", "comparator")
_TIMES: Final = {"effectiveDateTime"}
_TEXTS: Final = ("id", "status", "effectiveDateTime", "issued")
_UPDATED: Final = ("meta", "lastUpdated")


class Part(NamedTuple):
    """Where a value of an Observation stands, with its code; none: it has no such member.

    Attributes:
        code: a JSON text.
        number: of a quantity.
        units: of a quantity, JSON texts: unit, code and comparator.
        answer: a member with its name, of a value of any other kind; nothing for none at all.
    """

    code: Range | None
    number: Range | None
    units: tuple[Range | None, ...]
    answer: Range | None


class Observed(NamedTuple):
    """Where the members of an Observation stand of which something is made.

    Attributes:
        texts: JSON texts: id, status, subject, effectiveDateTime, issued and meta.lastUpdated.
        parts: its own value, if it has one, and those of its components, in order.
    """

    texts: tuple[Range | None, ...]
    parts: tuple[Part, ...]


class Frame(NamedTuple):
    """What lines of one frame have in common.

    Attributes:
        quotes: how many quotation marks that are not escaped.
        gaps: (anchors - 1,) what lies between each anchor and the next at least.
        tight: (anchors - 1,) whether nothing else lies there.
        anchor: (words,) from which anchor on `WORD` bytes must agree.
        offset: (words,) how far from it.
        words: (quarters of words,) what stands there.
        mask: (quarters of words,) ones where it must agree.
        texts: where the open texts end.
        numbers: where the open numbers stand.
        observed: what is made of it; none if the lines are read one by one.
    """

    quotes: int
    gaps: NDArray[np.int32]
    tight: NDArray[np.bool_]
    anchor: NDArray[np.int64]
    offset: NDArray[np.int64]
    words: NDArray[np.uint64]
    mask: NDArray[np.uint64]
    texts: tuple[Place, ...]
    numbers: tuple[Range, ...]
    observed: Observed | None


def frame_of(line: bytes, anchors: list[int], quotes: int) -> Frame | None:
    """The frame of a line; none if it is no JSON object.

    Args:
        line: without its line feed.
        anchors: of the line, from 0 on.
        quotes: how many quotation marks that are not escaped it has.
    """
    resource = parse_json(line) if line[:1] == b"{" else None
    if not isinstance(resource, dict):
        return None
    spans = spans_of(line)
    if spans is None:
        return None
    holes = _holes(line, spans, anchors)
    places = _Places(anchors, holes)
    gaps = np.array([end - start for start, end in pairwise(anchors)], dtype=np.int32)
    tight = np.ones(len(gaps), dtype=np.bool_)
    for gap, (start, end) in holes.items():
        gaps[gap] -= end - start
        tight[gap] = False
    texts = [span for span in holes.values() if line[span[0] - 1] == _QUOTE]
    numbers = [span for span in holes.values() if line[span[0] - 1] != _QUOTE]
    return Frame(
        quotes,
        gaps,
        tight,
        *_words(line, sorted(holes.values()), places),
        texts=tuple(places.place(end) for _, end in texts),
        numbers=tuple(places.range(span) for span in numbers),
        observed=_observed(resource, spans, line, places),
    )


class _Places:
    """Finds places in the line that a frame is learnt from."""

    def __init__(self, anchors: list[int], holes: dict[int, Span]) -> None:
        self._anchors = anchors
        self._holes = holes

    def place(self, place: int) -> Place:
        """A place by the anchor from which it is always as far."""
        gap = bisect_right(self._anchors, place) - 1
        if gap in self._holes and place >= self._holes[gap][1]:
            gap += 1
        return gap, place - self._anchors[gap]

    def range(self, span: Span) -> Range:
        """The places of a span's ends."""
        start, end = span
        gap = bisect_right(self._anchors, start) - 1
        if gap in self._holes and start > self._holes[gap][0]:
            gap += 1
        return (gap, start - self._anchors[gap]), self.place(end)


def _holes(line: bytes, spans: dict[Path, Span], anchors: list[int]) -> dict[int, Span]:
    """By gap between anchors what can be left open: texts without quotation marks, and numbers.

    Where two stand in one gap neither is: nothing would say where one ends.
    """
    found: dict[int, list[Span]] = {}
    for path, (start, end) in spans.items():
        gap = bisect_right(anchors, start) - 1
        if line[start] == _QUOTE:
            within = found.setdefault(gap, [])
            within += [] if path == ("resourceType",) else [(start + 1, end - 1)]
        elif _NUMBER.fullmatch(line, start, end):
            found.setdefault(gap, []).append((start, end))
    return {gap: spans[0] for gap, spans in found.items() if len(spans) == 1}


def _words(
    line: bytes, holes: list[Span], places: _Places
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
    """`anchor`, `offset`, `words` and `mask` of what stands outside of the holes."""
    edges = [0, *(edge for hole in holes for edge in hole), len(line)]
    anchors: list[int] = []
    offsets: list[int] = []
    written = bytearray()
    masks = bytearray()
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        anchor, offset = places.place(start)
        for at in range(start, end, WORD):
            anchors.append(anchor)
            offsets.append(offset + at - start)
            here = line[at : min(at + WORD, end)]
            written += here.ljust(WORD, b"\0")
            masks += (b"\xff" * len(here)).ljust(WORD, b"\0")
    return (
        np.array(anchors, dtype=np.int64),
        np.array(offsets, dtype=np.int64),
        np.frombuffer(bytes(written), dtype=np.uint64),
        np.frombuffer(bytes(masks), dtype=np.uint64),
    )


def _observed(
    resource: dict[str, Any], spans: dict[Path, Span], line: bytes, places: _Places
) -> Observed | None:
    """Where an Observation says what; none for every other resource, and for odd ones."""
    subject, meta = resource.get("subject"), resource.get("meta")
    if resource.get("resourceType") != "Observation" or not isinstance(subject, dict):
        return None
    if any(not MODIFIERS.keys().isdisjoint(path) for path in spans):
        return None
    if not isinstance(meta, dict | None) or {name for name in resource if _is_time(name)} != _TIMES:
        return None
    written = {name: resource.get(name) for name in _TEXTS}
    written["lastUpdated"] = (meta or {}).get("lastUpdated")
    if not all(isinstance(text, str | None) for text in written.values()):
        return None
    parts = _parts(resource, spans, line, places)
    if not parts:
        return None
    paths = [("id",), ("status",), ("subject",), ("effectiveDateTime",), ("issued",), _UPDATED]
    return Observed(tuple(_range(path, spans, line, places) for path in paths), tuple(parts))


def _is_time(name: str) -> bool:
    return name.startswith("effective")


def _range(path: Path, spans: dict[Path, Span], line: bytes, places: _Places) -> Range | None:
    """Where a value stands; none if there is none, or null."""
    span = spans.get(path)
    if span is None or line[span[0] : span[1]] == b"null":
        return None
    return places.range(span)


def _parts(
    resource: dict[str, Any], spans: dict[Path, Span], line: bytes, places: _Places
) -> list[Part] | None:
    """All parts; none if one is odd."""
    components = resource.get("component")
    if not isinstance(components, list | None) or components == []:
        return None
    said: list[tuple[Path, Any]] = [
        (("component", number), part) for number, part in enumerate(components or ())
    ]
    if not components or any(name.startswith("value") for name in resource):
        said.insert(0, ((), resource))
    parts = [_part(path, part, spans, line, places) for path, part in said]
    return None if None in parts else [part for part in parts if part is not None]


def _part(
    path: Path, part: Any, spans: dict[Path, Span], line: bytes, places: _Places
) -> Part | None:
    if not isinstance(part, dict):
        return None
    named = [name for name in part if name.startswith("value")]
    code = _range((*path, "code"), spans, line, places)
    if named == ["valueQuantity"]:
        quantity = (*path, "valueQuantity")
        number = _range((*quantity, "value"), spans, line, places)
        units = tuple(_range((*quantity, name), spans, line, places) for name in _UNITS)
        value = (
            part["valueQuantity"].get("value") if isinstance(part["valueQuantity"], dict) else None
        )
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return Part(code, number, units, None)
    if len(named) == 1:
        start, end = spans[(*path, named[0])]
        name = line.rindex(b'"', 0, line.rindex(b'"', 0, start))
        return Part(code, None, (None,) * len(_UNITS), places.range((name, end)))
    if named or path or "dataAbsentReason" in part:
        return None  # it makes no event, and is accounted for
    return Part(code, None, (None,) * len(_UNITS), places.range((0, 0)))
