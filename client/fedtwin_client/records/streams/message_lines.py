"""Mended messages of streams as a source: read as the door that put them aside would have done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from fedtwin_client.records.consent import Consent
from fedtwin_client.records.mended import MendedLine, in_place_of
from fedtwin_client.records.pseudonyms import Identity
from fedtwin_client.records.report import Recipe, Tally
from fedtwin_client.records.source import Desk, OpenSource, Version, check_source_name
from fedtwin_client.records.streams.messages import MessageReader, Read

KIND = "message"


def message_recipe(door: str, system: str | None, zone: str) -> Recipe:
    """How the messages of a door are read.

    Args:
        door: its name.
        system: whose numbers name the patients; none: this door's alone.
        zone: of times without one.
    """
    settings = MappingProxyType({"system": system})
    return Recipe(kind=KIND, source=door, zone=zone, settings=settings)


def message_lines(lines: Sequence[MendedLine], recipe: Recipe) -> OpenSource:
    """Mended messages.

    Raises:
        RecordError: the recipe's name of the door is none.
    """
    check_source_name(recipe.source)
    return lambda desk: MessageLines(lines, recipe, desk)


class MessageLines:
    """Reads mended messages.

    Attributes:
        title: what is imported, in words.
        learned: addresses under which the messages speak of patients.
        consents: what patients said of research, by origin.
    """

    learned: Mapping[str, Identity]
    consents: Mapping[str, Consent]

    def __init__(self, lines: Sequence[MendedLine], recipe: Recipe, desk: Desk) -> None:
        self.title = f"{len(lines)} mended messages from {recipe.source}"
        self._lines = lines
        self._source = recipe.source
        system = recipe.settings.get("system")
        self._system = system if isinstance(system, str) else None
        self._desk = desk
        self.learned, self.consents = {}, {}

    def versions(self) -> Iterator[Version]:
        """What every message makes."""
        unheard = self._reader(Tally(quarantine=None))
        reader = self._reader(self._desk.reading.tally)
        for line in self._lines:
            read = self._read(reader, line.text, line)
            self.learned = {**self.learned, **read.learned}
            self.consents = {**self.consents, **read.consents}
            before = self._read(unheard, line.before, line).versions
            yield from in_place_of((version.origin for version in before), read.versions)

    def _reader(self, tally: Tally) -> MessageReader:
        reading = self._desk.reading.at(self._desk.reading.now, tally)
        return MessageReader(replace(self._desk, reading=reading), self._source, self._system)

    def _read(self, reader: MessageReader, text: str, line: MendedLine) -> Read:
        payload = text.encode("utf-8", "surrogateescape")
        return reader.read(payload, line.place, line.patient, self._desk.reading.now)
