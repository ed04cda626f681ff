"""Where each value of a JSON text stands."""

import json
import re
from typing import Final

Path = tuple[str | int, ...]
Span = tuple[int, int]
_TOKEN: Final = re.compile(
    rb'[ \t\r\n]*("(?:[^"\\]|\\.)*"|[-+.0-9eE]+|true|false|null|[{}\[\],:])', re.DOTALL
)


def spans_of(line: bytes) -> dict[Path, Span] | None:
    """Where each value of well-formed JSON stands; none if a name comes twice in an object."""
    spans: dict[Path, Span] = {}
    try:
        _span(line, 0, (), spans)
    except ValueError:
        return None
    return spans


def _span(line: bytes, place: int, path: Path, spans: dict[Path, Span]) -> int:
    start, token, end = _token(line, place)
    if token == b"{":
        end = _object(line, end, path, spans)
    elif token == b"[":
        end = _list(line, end, path, spans)
    if path in spans:
        raise ValueError(path)
    spans[path] = (start, end)
    return end


def _object(line: bytes, place: int, path: Path, spans: dict[Path, Span]) -> int:
    _, token, place = _token(line, place)
    while token != b"}":
        if token == b",":
            _, token, place = _token(line, place)
        name = json.loads(token)
        _, _, place = _token(line, place)
        place = _span(line, place, (*path, name), spans)
        _, token, place = _token(line, place)
    return place


def _list(line: bytes, place: int, path: Path, spans: dict[Path, Span]) -> int:
    _, token, end = _token(line, place)
    number = 0
    while token != b"]":
        place = _span(line, end if token == b"," else place, (*path, number), spans)
        _, token, end = _token(line, place)
        number += 1
    return end


def _token(line: bytes, place: int) -> tuple[int, bytes, int]:
    found = _TOKEN.match(line, place)
    if found is None:
        raise ValueError(place)
    return found.start(1), found[1], found.end(1)
