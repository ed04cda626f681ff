"""Lines that were put aside and mended: what each source gets to read them again."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fedtwin_client.records.report import Place
from fedtwin_client.records.source import Version


class MendedLine(NamedTuple):
    """One message, data point, resource or row.

    Attributes:
        place: where it stood.
        text: as a person has mended it.
        before: as it was.
        patient: whose it is, where that was said beside it.
    """

    place: Place
    text: str
    before: str
    patient: str | None = None


def in_place_of(before: Iterable[str], after: Sequence[Version]) -> Iterator[Version]:
    """The versions of a mended line; what bears another name now is withdrawn under its old one.

    Records without an id are known by their content, and that was mended.

    Args:
        before: origins of what the line made before.
        after: what it makes now; if that is nothing, what it made before stays.
    """
    names = {version.origin for version in after}
    for origin in before if names else ():
        if origin not in names:
            yield Version(origin=origin, updated=None, events=())
    yield from after
