"""Reading FHIR resources from files: NDJSON, bundles, single resources, each also gzipped.

A line that is not a JSON object is put aside with its number; the others are read. Numbers that
JSON does not allow (NaN, Infinity) make a line malformed. A byte-order mark and CRLF are removed.
A line of more than 16 MiB is put aside with its beginning and its number.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fedtwin_client.records.lines import Lines, OpenFile, Progress, holds, open_plain, read_lines
from fedtwin_client.records.reading import UnusableError
from fedtwin_client.records.report import Place, Tally
from fedtwin_protocol.errors import RecordError

Resource: TypeAlias = dict[str, Any]
MODIFIERS = {"modifierExtension": "a modifier extension", "implicitRules": "implicit rules"}
"""Members of resources and elements that change what the other members say."""
_ESCAPED_NAME = re.compile(rb'("[A-Za-z]{0,17}\\u00[0-9A-Za-z\\]{0,102}")[ \t\r\n]*:')
_MODIFIER_NAMES = tuple(f'"{name}"'.encode() for name in MODIFIERS)
_ENDINGS = (".ndjson", ".jsonl", ".json", ".ndjson.gz", ".jsonl.gz", ".json.gz")
_SINGLE_LIMIT = 512 * 1024 * 1024
_ADDRESS = re.compile(r"(?:^|/)([A-Z][A-Za-z]{1,59})/([A-Za-z0-9\-.]{1,64})$")


def _refuse(constant: str) -> float:
    raise ValueError(constant)


_DEEPEST = 200
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NO_TEXT = re.compile("[\udc80-\udcff]")  # what `_text` makes of bytes that are not UTF-8
_DECODER = json.JSONDecoder(parse_constant=_refuse)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A resource with where it stands.

    Attributes:
        resource: parsed JSON with a `resourceType`.
        place: its file and line; for an entry of a bundle, the entry's number.
        address: the entry's fullUrl; empty outside bundles.
        deleted: it is a bundle's word that the resource was deleted; of the resource there are only
            type, id and, as `meta.lastUpdated`, when.
    """

    resource: Resource
    place: Place
    address: str = ""
    deleted: bool = False


def find_files(paths: Iterable[Path]) -> list[Path]:
    """All FHIR files among files and folders, sorted, each once.

    Raises:
        RecordError: a path does not exist, or none of them holds such a file.
    """
    found: set[Path] = set()
    named = list(paths)
    for path in named:
        if path.is_dir():
            found |= {file for file in path.rglob("*") if _is_fhir(file)}
        elif path.is_file():
            found.add(path)
        else:
            raise RecordError(f"expected a file or a folder of FHIR records, found no {path}")
    if not found:
        listed = ", ".join(str(path) for path in named)
        raise RecordError(f"found no file ending in {', '.join(_ENDINGS)} in {listed}")
    return sorted(found)


def read_resources(
    file: Path,
    tally: Tally,
    opened: OpenFile | None = None,
    progress: Progress | None = None,
) -> Iterator[Found]:
    """All resources of a file, and deletions; what cannot be read is put aside.

    Args:
        file: NDJSON, a bundle or a single resource.
        tally: the account.
        opened: opens it; none: as `open_plain` does.
        progress: is told how many bytes more of it were read.

    Raises:
        RecordError: the file cannot be opened, or is damaged below the level of lines.
    """
    with explained(file):
        if is_lines(file):
            for lines in read_lines(file, progress, opened=opened):
                yield from resources_in(lines, file, tally)
        else:
            yield from _whole(file, tally, opened)


def is_lines(file: Path) -> bool:
    """Whether a file's name says that every line is a resource."""
    return ".ndjson" in file.name or ".jsonl" in file.name


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Says of a file that cannot be read which one it is.

    Raises:
        RecordError: the file cannot be opened, or is damaged below the level of lines.
    """
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError(f"cannot read {file}: {error}; nothing was imported") from error


def resources_in(lines: Lines, file: Path, tally: Tally) -> Iterator[Found]:
    """The resources of some lines of a file; what cannot be read is put aside."""
    if lines.too_long:
        tally.put_aside(
            "a line of more than 16 MiB", Place(tally.name_of(file), lines.first), _text(lines.data)
        )
        return
    for number, line in lines.each():
        yield from resources_of_line(line, Place(tally.name_of(file), number), tally)


def resources_of_line(line: bytes, place: Place, tally: Tally) -> Iterator[Found]:
    """The resources of one line; what cannot be read is put aside."""
    if not line.strip():
        return
    value = parse_json(line)
    if value is None and not line.endswith(b"\n"):
        tally.put_aside("the last line was cut off", place, _text(line))
    else:
        yield from _checked(value, place, "", tally, _text(line) if value is None else "")


def mentions(
    file: Path,
    kinds: Iterable[str],
    opened: OpenFile | None = None,
    *,
    with_member: str | None = None,
) -> Iterator[Found]:
    """The resources of some types, passing over other lines without parsing them.

    Args:
        file: NDJSON, a bundle or a single resource.
        kinds: wanted values of `resourceType`.
        opened: opens it; none: as `open_plain` does.
        with_member: passes also over lines that do not hold this name.
    """
    wanted = set(kinds)
    pattern = re.compile(rb'"resourceType"\s*:\s*"(?:' + "|".join(sorted(wanted)).encode() + rb')"')
    with explained(file):
        if not is_lines(file):
            for found in _whole(file, Tally(quarantine=None), opened):
                if found.resource["resourceType"] in wanted and not found.deleted:
                    yield found
            return
        names = [f'"{kind}"'.encode() for kind in wanted]
        member = b"" if with_member is None else f'"{with_member}"'.encode()
        if not any(holds(file, name, opened) for name in names):
            return
        if member and not holds(file, member, opened):
            return
        for number, line in _lines_with(file, names, member, opened):
            resource = parse_json(line) if pattern.search(line) else None
            if isinstance(resource, dict) and resource.get("resourceType") in wanted:
                yield Found(resource=resource, place=Place(file.name, number))


def _lines_with(
    file: Path, names: Iterable[bytes], member: bytes, opened: OpenFile | None
) -> Iterator[tuple[int, bytes]]:
    """The lines that hold a member, of the pieces that also hold one of some names."""
    for lines in read_lines(file, opened=opened):
        if lines.too_long or member not in lines.data:
            continue
        if any(name in lines.data for name in names):
            yield from ((number, line) for number, line in lines.each() if member in line)


def own_id(found: Found) -> str:
    """The resource's id, or its address in the bundle, or else a digest of its content."""
    own = found.resource.get("id")
    written = own if isinstance(own, str) and own else found.address
    if not written:
        content = json.dumps(found.resource, sort_keys=True).encode("utf-8", "surrogatepass")
        written = f"sha256:{hashlib.sha256(content).hexdigest()[:32]}"
    return written.replace("#", "%23")


def resources_of(value: Resource, place: Place, tally: Tally) -> Iterator[Found]:
    """The resources of one parsed JSON object: itself, or the entries of a bundle."""
    yield from _checked(value, place, "", tally, "")


def resources_of_text(text: str, place: Place, tally: Tally) -> Iterator[Found]:
    """The resources of one text, as a line of a file would give them."""
    value = parse_json(text.encode("utf-8", "surrogatepass"))
    yield from _checked(value, place, "", tally, text if value is None else "")


def text_of(resource: Resource, key: str) -> str:
    """A member that must be text; empty where it is absent.

    Raises:
        UnusableError: it is something else.
    """
    value = resource.get(key)
    if value is not None and not isinstance(value, str):
        raise UnusableError(f"a '{key}' that is not text")
    return value or ""


def refuse_modified(resource: Resource) -> None:
    """Refuse what FHIR forbids to read without knowing the rules that it names.

    A modifier extension can mean anything: that the specimen was haemolysed, that the record is
    not of the patient, that the opposite holds.

    Raises:
        UnusableError: the resource or element has a modifier extension, or implicit rules.
    """
    for name, words in MODIFIERS.items():
        if resource.get(name):
            raise UnusableError(f"{words}, which may change what it says")


def may_be_modified(line: bytes) -> bool:
    """Whether a line of JSON may hold one of `MODIFIERS`, also written with escapes."""
    if any(name in line for name in _MODIFIER_NAMES):
        return True
    names = _ESCAPED_NAME.findall(line) if b"\\u00" in line else []
    try:
        return any(json.loads(name) in MODIFIERS for name in names)
    except ValueError:
        return True


def list_of(resource: Resource, key: str) -> list[Any]:
    """A member that must be a list; empty where it is absent.

    Raises:
        UnusableError: it is something else.
    """
    value = resource.get(key)
    if value is not None and not isinstance(value, list):
        raise UnusableError(f"a '{key}' that is not a list")
    return value or []


def _is_fhir(file: Path) -> bool:
    return file.is_file() and file.name.endswith(_ENDINGS) and not file.name.startswith(".")


def parse_json(data: bytes) -> Any:
    """Parsed JSON, or none.

    None if it is not JSON, not UTF-8, holds a number or text that none of them allows, or is nested
    more than 200 deep: what is parsed here must also be possible to write.
    """
    try:
        text = data.decode("utf-8-sig")
        value = _DECODER.decode(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character: no text
    except (ValueError, RecursionError):
        return None
    opened = text.count("{") + text.count("[")
    return None if opened > _DEEPEST and _is_deeper(value, _DEEPEST) else value


def _is_deeper(value: Any, limit: int) -> bool:
    """Whether lists and objects are nested deeper than a limit."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit + 1):
        inside = [item.values() if isinstance(item, dict) else item for item in level]
        level = [one for items in inside for one in items if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def _whole(file: Path, tally: Tally, opened: OpenFile | None) -> Iterator[Found]:
    with (opened or open_plain)(file) as stream:
        data = stream.read(_SINGLE_LIMIT + 1)
    if len(data) > _SINGLE_LIMIT:
        raise RecordError(f"{file} is larger than 512 MiB; split it, or export NDJSON instead")
    value = parse_json(data)
    first = data.lstrip(b"\xef\xbb\xbf \r\n").partition(b"\n")[0]
    if value is None and isinstance(parse_json(first), dict):  # NDJSON under another name
        for lines in read_lines(file, opened=opened):
            yield from resources_in(lines, file, tally)
        return
    yield from _checked(
        value, Place(tally.name_of(file), 1), "", tally, _text(data) if value is None else ""
    )


def _checked(value: Any, place: Place, address: str, tally: Tally, raw: str) -> Iterator[Found]:
    if not isinstance(value, dict):
        reason = "not UTF-8 text" if _NO_TEXT.search(raw) else "not a JSON object"
        tally.put_aside(reason, place, raw or value)
    elif value.get("resourceType") == "Bundle":
        yield from _entries(value, place, tally)
    elif not isinstance(value.get("resourceType"), str) or not value["resourceType"]:
        tally.put_aside("no resourceType", place, value)
    else:
        yield Found(resource=value, place=place, address=address)


def _entries(bundle: Resource, place: Place, tally: Tally) -> Iterator[Found]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        tally.put_aside("a bundle whose 'entry' is not a list", place, bundle)
        return
    for number, entry in enumerate(entries, start=1):
        inner = Place(f"{place.file}:{place.line} entry", number)
        resource = entry.get("resource") if isinstance(entry, dict) else None
        address = entry.get("fullUrl") if isinstance(entry, dict) else None
        if resource is None:
            deletion = _deletion(entry, inner)
            if deletion is None:
                tally.skip("a bundle's entry without a resource", inner)
            else:
                yield deletion
        else:
            yield from _checked(
                resource, inner, address if isinstance(address, str) else "", tally, ""
            )


def _deletion(entry: Any, place: Place) -> Found | None:
    """What an entry says was deleted, as histories and Bulk Data write it; none if nothing."""
    request = entry.get("request") if isinstance(entry, dict) else None
    if not isinstance(request, dict) or request.get("method") != "DELETE":
        return None
    match = _ADDRESS.search(str(request.get("url")))
    if match is None:
        return None
    resource: Resource = {"resourceType": match[1], "id": match[2]}
    response = entry.get("response")
    if isinstance(response, dict) and response.get("lastModified"):
        resource["meta"] = {"lastUpdated": response["lastModified"]}
    return Found(resource=resource, place=place, deleted=True)


def _text(data: bytes) -> str:
    """Bytes as text, from which they can be had again."""
    return data.decode("utf-8", errors="surrogateescape")
