"""JSON values in files: single values, lists, and one value a line (NDJSON), each also gzipped.

What is no JSON object is put aside with its file and line; the others are read. A line may be 16
MiB long, a file of one value or list 512 MiB.
"""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from fedtwin_client.records.lines import open_plain
from fedtwin_client.records.report import Place, Tally
from fedtwin_client.records.resources import parse_json
from fedtwin_protocol.errors import RecordError

ENDINGS = (".json", ".ndjson", ".jsonl", ".json.gz", ".ndjson.gz", ".jsonl.gz")
_LINE_LIMIT = 16 * 1024 * 1024
_SHOWN = 800_000  # bytes: more characters than a quarantine keeps, which then says so
_FILE_LIMIT = 512 * 1024 * 1024


class Item(NamedTuple):
    """An object, and where it stands: its file and line, or its number in a list."""

    value: dict[str, Any]
    place: Place


def find_json(paths: Iterable[Path], what: str) -> list[Path]:
    """All JSON files among files and folders, sorted, each once.

    Args:
        paths: files, whatever they are called, and folders.
        what: the files should hold, in words.

    Raises:
        RecordError: a path does not exist, or none of them holds such a file.
    """
    found: set[Path] = set()
    named = list(paths)
    for path in named:
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.name.endswith(ENDINGS))
            found |= {file for file in inside if file.is_file() and not file.name.startswith(".")}
        elif path.is_file():
            found.add(path)
        else:
            raise RecordError(f"expected a file or a folder of {what}, found no {path}")
    if not found:
        listed = ", ".join(str(path) for path in named)
        raise RecordError(f"found no file ending in {', '.join(ENDINGS)} in {listed}")
    return sorted(found)


def read_items(file: Path, tally: Tally) -> Iterator[Item]:
    """All objects of a file; what is none is put aside.

    Raises:
        RecordError: the file cannot be opened, is damaged below the level of lines, or too large.
    """
    try:
        with open_plain(file) as stream:
            if ".ndjson" in file.name or ".jsonl" in file.name:
                yield from _lines(stream, file, tally)
                return
            data = stream.read(_FILE_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"cannot read {file}: {error}; nothing was imported") from error
    if len(data) > _FILE_LIMIT:
        raise RecordError(f"{file} is larger than 512 MiB; split it, or write one value a line")
    yield from _whole(data, file, tally)


def _lines(stream: BinaryIO, file: Path, tally: Tally) -> Iterator[Item]:
    number = 0
    while line := stream.readline(_LINE_LIMIT + 1):
        number += 1
        place = Place(tally.name_of(file), number)
        if len(line) > _LINE_LIMIT:
            beginning = line[:_SHOWN]
            while line and not line.endswith(b"\n"):
                line = stream.readline(_LINE_LIMIT)
            tally.put_aside(
                "a line longer than 16 MiB", place, beginning.decode("utf-8", "surrogateescape")
            )
        elif line.strip():
            value = parse_json(line)
            cut = value is None and not line.endswith(b"\n")
            yield from _object(
                value, place, tally, line, "the last line was cut off" if cut else ""
            )


def _whole(data: bytes, file: Path, tally: Tally) -> Iterator[Item]:
    value = parse_json(data)
    lines = data.lstrip(b"\xef\xbb\xbf \r\n").splitlines()
    if value is None and len(lines) > 1 and isinstance(parse_json(lines[0]), dict):
        for number, line in enumerate(data.splitlines(), start=1):  # NDJSON under another name
            if line.strip():
                yield from _object(
                    parse_json(line), Place(tally.name_of(file), number), tally, line
                )
    elif isinstance(value, list):
        if not value:
            tally.skip("an empty list", Place(tally.name_of(file), 1))
        for number, item in enumerate(value, start=1):
            yield from _object(item, Place(f"{tally.name_of(file)}:1 entry", number), tally, b"")
    else:
        yield from _object(value, Place(tally.name_of(file), 1), tally, data)


def _object(value: Any, place: Place, tally: Tally, raw: bytes, reason: str = "") -> Iterator[Item]:
    if isinstance(value, dict):
        yield Item(value, place)
        return
    text = raw[:_SHOWN].decode("utf-8", errors="surrogateescape") if raw else value
    tally.put_aside(reason or "not a JSON object", place, text)
