"""Start and end of every element of an XML file, with flat memory and without its traps.

Entities are refused (a few lines of them can unfold to gigabytes), nothing is fetched from
elsewhere, and depth and the length of one tag are limited. Line numbers come with every element,
so that what is put aside can be found again; that is why this reads with expat itself.
"""

from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple
from xml.parsers.expat import ExpatError, ParserCreate

from fedtwin_protocol.errors import RecordError

_CHUNK = 256 * 1024
_DEEPEST = 64
_LONGEST_TAG = 16 * 1024 * 1024


class Element(NamedTuple):
    """A start tag.

    Attributes:
        name: of the element.
        attributes: as they were written.
        line: where it starts, from 1.
        parent: name of the element it stands in; empty for the outermost.
    """

    name: str
    attributes: dict[str, str]
    line: int
    parent: str


def read_elements(
    stream: BinaryIO, what: str, progress: Callable[[int], None] | None = None
) -> Iterator[Element]:
    """All start tags in order.

    Args:
        stream: the file.
        what: its name, for messages.
        progress: told how many bytes were read, now and then.

    Raises:
        RecordError: it is not XML, is cut off, or holds what XML files are attacked with.
    """
    parser = ParserCreate()
    found: list[Element] = []
    open_elements: list[str] = []
    last_event = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal last_event
        last_event = parser.CurrentByteIndex
        if len(open_elements) >= _DEEPEST:
            raise RecordError(
                f"{what}:{parser.CurrentLineNumber}: elements are nested more than {_DEEPEST} deep;"
                " this is no export. Nothing was imported"
            )
        parent = open_elements[-1] if open_elements else ""
        found.append(Element(name, attributes, parser.CurrentLineNumber, parent))
        open_elements.append(name)

    def end(name: str) -> None:
        nonlocal last_event
        last_event = parser.CurrentByteIndex
        open_elements.pop()

    def entity(*declared: object) -> None:
        raise RecordError(
            f"{what}:{parser.CurrentLineNumber}: declares an entity, which no export does and which"
            " could unfold without end. Nothing was imported"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = entity
    read = 0
    try:
        while chunk := stream.read(_CHUNK):
            read += len(chunk)
            parser.Parse(chunk, False)
            if read - last_event > _LONGEST_TAG and not found:
                raise RecordError(
                    f"{what}:{parser.CurrentLineNumber}: no element within 16 MiB; this is no"
                    " export. Nothing was imported"
                )
            yield from found
            found.clear()
            if progress is not None:
                progress(read)
        parser.Parse(b"", True)
    except ExpatError as error:
        hint = "; was it cut off? Export it again" if not error.code or open_elements else ""
        raise RecordError(
            f"{what} is not whole XML: {error}{hint}. Nothing was imported"
        ) from error
    except (UnicodeError, LookupError, ValueError) as error:
        raise RecordError(f"{what} is not readable XML: {error}. Nothing was imported") from error
    yield from found
